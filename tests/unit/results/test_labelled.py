"""Arrays of results are labelled by set, network and pair, and are those of the store."""

import numpy as np

from netsim.results.labelled import losses, stored_arrays
from netsim.results.results import load_results
from netsim.store import layout
from netsim.store.layout import results_path


def test_labels_are_those_of_the_arrays_under_results_in_the_store(finished):
    similarity = stored_arrays(load_results(finished))
    assert set(similarity.data_vars) == {"cka", "cka_se", "cka_unbiased", "cka_unbiased_se", "floor"}
    assert similarity.attrs == {"pairs": 32, "shards": 4}
    for name, array in similarity.data_vars.items():
        assert array.dims == ("set", "through", "observer")
        np.testing.assert_array_equal(array, finished.array(results_path(finished.sweep.id, name))[...])


def test_values_are_those_of_each_estimator(finished):
    results = load_results(finished)
    similarity = stored_arrays(results)
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
    by_name = losses(load_results(finished))
    for name in finished.settings.names:
        stored = finished.array(f"inverted/{name}/losses")[...]
        for variable, quantity in (("initial", "initial_loss"), ("final", "final_loss"), ("distance", "distance")):
            np.testing.assert_array_equal(by_name[variable].sel(through=name), layout.quantity(stored, quantity))
