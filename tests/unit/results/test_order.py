"""An order moves networks and changes no value."""

import itertools

import numpy as np
import pytest

from netsim.errors import SettingsError
from netsim.results.as_json import to_json
from netsim.results.order import ORDERS, ordered
from netsim.results.results import Results
from support.results import make_results, with_groups


@pytest.fixture(scope="module")
def results() -> Results:
    return with_groups(make_results(5, n=64, observers=("seer", "judge")), "a", "b", "b", "c", "d")


@pytest.mark.parametrize("order", ORDERS)
def test_every_value_stays_with_its_networks(results, order):
    shown = ordered(results, order)
    assert sorted(shown.everyone) == sorted(results.everyone) and shown.observers[0] in ("seer", "judge")
    for kind, estimator, name in itertools.product(("cka", "se"), ("biased", "unbiased"), ("natural", "inverted")):
        cells, before = (each.cells(name, estimator, kind=kind) for each in (shown, results))
        for (i, row), (j, column) in itertools.product(enumerate(shown.networks), enumerate(shown.everyone)):
            assert cells[i, j] == before[results.networks.index(row), results.everyone.index(column)]
    rows = [results.networks.index(name) for name in shown.networks]
    columns = [results.everyone.index(name) for name in shown.everyone]
    for values, before in (
        (shown.floor("inverted"), results.floor("inverted")),
        (shown.controls.values["adjusted"], results.controls.values["adjusted"]),
        (shown.controls.se("unreached"), results.controls.se("unreached")),
        (shown.controls.comparable, results.controls.comparable),
        (shown.comparable, results.comparable),
        (shown.on_converged[3], results.on_converged[3]),
    ):
        np.testing.assert_array_equal(values, before[np.ix_(rows, columns)])


@pytest.mark.parametrize("order", ORDERS)
def test_a_difference_of_rows_is_the_earlier_minus_the_later(results, order):
    shown = ordered(results, order)
    assert list(shown.row_differences) == sorted(
        shown.row_differences, key=lambda pair: [shown.networks.index(name) for name in pair]
    )
    for first, other in itertools.combinations(shown.networks, 2):
        known = results.row_differences.get((first, other)) or results.row_differences[other, first]
        sign = 1 if (first, other) in results.row_differences else -1
        assert shown.row_differences[first, other].value == sign * known.value
        assert shown.row_differences[first, other].p_value == known.p_value
    assert {tuple(sorted(pair)): p for pair, p in shown.adjusted_p_values.items()} == {
        tuple(sorted(pair)): p for pair, p in results.adjusted_p_values.items()
    }


def test_orders_are_what_they_are_called(results):
    assert to_json(ordered(results)) == to_json(results)
    by_name = ordered(results, "name")
    assert list(by_name.networks) == sorted(results.networks) and by_name.observers == ("judge", "seer")
    means = [ordered(results, "mean").rows["inverted", "unbiased"][n].value for n in ordered(results, "mean").networks]
    assert means == sorted(means, reverse=True)
    names, tree = results.inference.clusters["inverted"]
    assert ordered(results, "clustered").networks == tuple(names[leaf] for leaf in tree.order)
    assert ordered(make_results(2, n=64), "clustered").networks == make_results(2, n=64).networks  # no tree
    with pytest.raises(SettingsError, match=r"^unknown order 'names'; did you mean 'name'\?"):
        ordered(results, "names")
