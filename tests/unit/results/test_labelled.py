"""A finished run opens as labelled arrays."""

import doctest
from pathlib import Path

import numpy as np
import pytest

from netsim.errors import StoreError
from netsim.results.labelled import open_run
from netsim.results.results import load_results
from netsim.store import layout
from netsim.store.layout import results_path
from support.sweeps import new_run, tiny


def test_a_finished_run_opens_as_labelled_arrays(finished):
    opened, results = open_run(finished.url), load_results(finished)
    cell = {"set": "inverted", "through": "resnet18", "observer": "vgg"}
    assert float(opened.similarity.cka_unbiased.sel(cell)) == results.cells("inverted")[1, 0]
    alike = np.diag(results.cells("natural", "biased")), np.diag(results.floor("natural"))
    assert (alike[0] == 1).all() and (alike[1] < 0.9).all()  # a floor is that of unrelated images
    images = opened.images.inverted.sel(through="vgg", pair=7)
    assert images.dtype == np.float32 and opened.images.seed.dtype == np.float32
    np.testing.assert_array_equal(images, layout.from_stored(finished.array("inverted/vgg/image")[7]))


def test_labels_are_those_of_the_arrays_under_results_in_the_store(finished):
    similarity = open_run(finished.url).similarity
    assert set(similarity.data_vars) == {"cka", "cka_se", "cka_unbiased", "cka_unbiased_se", "floor"}
    assert similarity.attrs == {"pairs": 32, "shards": 4}
    for name, array in similarity.data_vars.items():
        assert array.dims == ("set", "through", "observer")
        np.testing.assert_array_equal(array, finished.array(results_path(finished.sweep.id, name))[...])


def test_values_are_those_of_each_estimator(finished):
    similarity, results = open_run(finished.url).similarity, load_results(finished)
    for index, name in enumerate(("natural", "inverted")):
        for variable, estimator, kind in (
            ("cka", "biased", "cka"),
            ("cka_se", "biased", "se"),
            ("cka_unbiased", "unbiased", "cka"),
            ("cka_unbiased_se", "unbiased", "se"),
        ):
            np.testing.assert_array_equal(similarity[variable][index], results.cells(name, estimator, kind=kind))
        np.testing.assert_array_equal(similarity.floor[index], results.floor(name))


def test_losses_are_labelled_by_network_and_pair(finished):
    losses = open_run(finished.url).losses
    for name in finished.settings.names:
        stored = finished.array(f"inverted/{name}/losses")[...]
        for variable, quantity in (("initial", "initial_loss"), ("final", "final_loss"), ("distance", "distance")):
            np.testing.assert_array_equal(losses[variable].sel(through=name), layout.quantity(stored, quantity))


def test_the_example_in_the_documentation_runs(finished, tmp_path, monkeypatch):
    """Its run is a finished one here, so that no line is skipped."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(Path(finished.url).resolve(), target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    (documented,) = doctest.DocTestFinder(recurse=False).find(open_run, "open_run")
    for example in documented.examples:
        example.options.pop(doctest.SKIP, None)
    assert doctest.DocTestRunner().run(documented) == doctest.TestResults(failed=0, attempted=6)


def test_a_run_that_is_not_finished_does_not_open(tmp_path):
    run = new_run(str(tmp_path / "run"), tiny())
    with pytest.raises(StoreError, match=r"is not finished: 3 of 3 shards of train are missing"):
        open_run(run.url)
    with pytest.raises(StoreError):
        open_run(tmp_path / "none")
