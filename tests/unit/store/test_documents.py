"""Zarr documents are created once, compared with the settings, repaired, and opened by xarray."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import xarray as xr

from netsim.errors import StoreError
from netsim.store.arrays import ArraySpec
from netsim.store.documents import array_faults, create_arrays, repair_arrays
from netsim.store.run import Run
from support.sweeps import new_run
from unit.store.definitions import IMAGE, LOSS, SETTINGS, WHOLE, arrays, commit


def test_creating_arrays_again_changes_nothing(run):
    commit(run, 0, 1.0)
    create_arrays(run, [LOSS, IMAGE, WHOLE])
    np.testing.assert_array_equal(run.read(run.record("invert", "vgg", 0), LOSS.path), arrays(1.0)[LOSS.path])


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        *product(
            ("inverted/vgg/image/zarr.json", "inverted/zarr.json", "similarity/natural/observer/c/0"),
            (b"", b"{", "delete"),
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


# ---- growth

OTHER = replace(LOSS, path="inverted/vgg/distance")
"""Another array of the group of `LOSS` and `IMAGE`, of which other work has fewer pairs."""


def document(run: Run, spec: ArraySpec) -> bytes:
    return run.files.get(f"{spec.path}/zarr.json")


def lengths(run: Run) -> list[int]:
    return [json.loads(document(run, spec))["shape"][0] for spec in (LOSS, IMAGE)]


def test_arrays_grow_with_the_pairs_and_their_values_stay(run):
    record = commit(run, 0, 1.0)
    longer = [spec.with_pairs(16) for spec in (LOSS, IMAGE)]
    create_arrays(run, [*longer, WHOLE])
    assert lengths(run) == [16, 16] and array_faults(run, longer) == {}
    again = Run.open(run.url)
    for path, values in arrays(1.0).items():
        np.testing.assert_array_equal(again.read(record, path), values)
    assert np.isnan(again.array(LOSS.path)[4:]).all()
    np.testing.assert_array_equal(again.read(commit(again, 3, 2.0), LOSS.path), arrays(2.0)[LOSS.path])


def test_arrays_of_a_network_called_c_grow_too(tmp_path):
    """Zarr calls the folder of an array's chunks c."""
    run = new_run(str(tmp_path / "c"), SETTINGS)
    spec = replace(LOSS, path="inverted/c/losses")
    create_arrays(run, [spec])
    create_arrays(run, [longer := spec.with_pairs(2 * spec.shape[0])])
    assert array_faults(run, [longer]) == {}


def test_arrays_never_shrink(run):
    create_arrays(run, [spec.with_pairs(16) for spec in (LOSS, IMAGE)])
    for change in (create_arrays, repair_arrays):
        change(run, [LOSS, IMAGE, WHOLE])
        assert lengths(run) == [16, 16]
    assert array_faults(run, [LOSS, IMAGE, WHOLE]) == {}


def test_a_document_that_grew_is_the_one_that_a_new_store_of_as_many_pairs_has(run, tmp_path):
    fresh = new_run(str(tmp_path / "fresh"), SETTINGS)
    create_arrays(fresh, [LOSS.with_pairs(16), IMAGE.with_pairs(16)])
    create_arrays(run, [LOSS.with_pairs(16)])  # and with it the other array of its group
    assert [document(run, spec) for spec in (LOSS, IMAGE)] == [document(fresh, spec) for spec in (LOSS, IMAGE)]


def test_arrays_of_one_group_are_as_long_as_the_longest_of_them(run, url):
    """Otherwise xarray opens no group in which a sweep of fewer pairs has further arrays."""
    create_arrays(run, [LOSS.with_pairs(16)])
    assert lengths(run) == [16, 16]
    create_arrays(run, [OTHER])
    group = xr.open_zarr(url, group="inverted/vgg", consolidated=False)
    assert group.sizes["pair"] == 16 and {"final_loss", "image", "distance"} <= set(group)


@pytest.mark.parametrize("mend", [create_arrays, repair_arrays])
def test_an_array_that_another_process_made_shorter_keeps_its_values_and_is_mended(run, mend):
    """Of two that grow at once, the one of fewer pairs may be the last to write."""
    before, longer = document(run, LOSS), [LOSS.with_pairs(16), IMAGE.with_pairs(16)]
    create_arrays(run, longer)
    record = commit(Run.open(run.url), 3, 2.0)
    run.files.put(f"{LOSS.path}/zarr.json", before)
    np.testing.assert_array_equal(Run.open(run.url).read(record, LOSS.path), arrays(2.0)[LOSS.path])
    assert array_faults(run, longer) == {f"{LOSS.path}/zarr.json": "it has too few pairs"}
    mend(run, longer)
    assert lengths(run) == [16, 16]


def test_a_damaged_array_does_not_keep_others_of_its_group_from_growing(run):
    run.files.put(f"{IMAGE.path}/zarr.json", b"{")
    create_arrays(run, [LOSS.with_pairs(16)])
    assert json.loads(document(run, LOSS))["shape"] == [16]
    repair_arrays(run, [IMAGE])
    assert lengths(run) == [16, 16]
