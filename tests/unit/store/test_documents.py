"""Zarr documents are created once, compared with the settings, repaired, and opened by xarray."""

import json
from itertools import product

import numpy as np
import pytest
import xarray as xr

from netsim.errors import StoreError
from netsim.store.documents import array_faults, create_arrays, repair_arrays
from netsim.store.run import Run
from unit.store.definitions import IMAGE, LOSS, WHOLE, arrays, commit


def test_creating_arrays_again_changes_nothing(run):
    commit(run, 0, 1.0)
    create_arrays(run, [LOSS, IMAGE, WHOLE])
    np.testing.assert_array_equal(run.read(run.record("invert", "vgg", 0), LOSS.path), arrays(1.0)[LOSS.path])


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        *product(
            ("inverted/vgg/image/zarr.json", "inverted/zarr.json", "inverted/vgg/pair/c/0"), (b"", b"{", "delete")
        ),
        *product(("inverted/vgg/image/zarr.json",), ("shape", "fill_value")),
    ],
)
def test_a_damaged_document_is_detected_and_repaired(run, file, harm):
    """Documents of an array and of a group, and a coordinate. Values of the arrays stay."""
    record, specs = commit(run, 0, 1.0), [LOSS, IMAGE, WHOLE]
    if harm == "delete":
        run.files.remove(file)
    elif isinstance(harm, bytes):
        run.files.put(file, harm)
    else:
        document = json.loads(run.files.get(file))
        document[harm] = [8, 1, 7, 6] if harm == "shape" else 1
        run.files.put(file, json.dumps(document).encode())
    assert list(array_faults(run, specs)) == [file]
    if harm != "delete":
        with pytest.raises(StoreError, match=rf"{file} is damaged .*; `netsim verify --repair .*`, and run again"):
            create_arrays(Run.open(run.url), specs)
    repair_arrays(run, specs)
    assert array_faults(run, specs) == {}
    np.testing.assert_array_equal(Run.open(run.url).read(record, IMAGE.path), arrays(1.0)[IMAGE.path])


def test_documents_are_compared_by_meaning_not_by_spelling(run):
    document = run.files.get(f"{IMAGE.path}/zarr.json")
    run.files.put(f"{IMAGE.path}/zarr.json", json.dumps(json.loads(document), sort_keys=True).encode())
    create_arrays(run, [LOSS, IMAGE, WHOLE])
    assert array_faults(run, [LOSS, IMAGE, WHOLE]) == {}


def test_xarray_opens_the_arrays_without_netsim(run, url):
    """One group and the whole tree open, with dimension names and coordinates."""
    commit(run, 0, 1.0)
    run.commit("aggregate", "natural", 0, arrays={WHOLE.path: np.eye(2)}, seconds=0)
    group = xr.open_zarr(url, group="inverted/vgg", consolidated=False)
    assert group.image.dims == ("pair", "channel", "y", "x") and group.final_loss.dims == ("pair",)
    np.testing.assert_array_equal(group.final_loss.sel(pair=[2, 3]), 1)
    assert np.isnan(group.final_loss[4:]).all() and group.pair.values.tolist() == list(range(8))
    np.testing.assert_allclose(group.image[0, 0, 0], (np.arange(6) + 1) / 65535, rtol=1e-6)
    cells = xr.open_zarr(url, group="similarity/natural", consolidated=False).cka
    assert cells.sel(through="vgg", observer="vgg") == 1 and cells.sel(through="vgg", observer="resnet18") == 0
    tree = xr.open_datatree(url, engine="zarr", consolidated=False)
    assert {"/inverted/vgg", "/similarity/natural"} <= set(tree.groups)
