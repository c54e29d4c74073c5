"""Holm's adjustment agrees with statsmodels, and with the method as it was written down."""

import numpy as np
import pytest

from netsim.statistics.multiple import holm

P_VALUES = [0.0001, 0.0441, 0.0004, 0.2, 0.0095, 0.0095, 0.0201, 0.5719, 0.0278, 0.0298, 0.0344, 1.0, 0.3240, 0.4262]
"""Some equal, one 1, in no order."""


def holm_by_steps(p_values):
    """Holm's method as a procedure: go up the sorted p-values, and never down in the adjusted ones."""
    ranked = sorted(range(len(p_values)), key=lambda k: p_values[k])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for step, k in enumerate(ranked):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[k]))
        adjusted[k] = largest
    return adjusted


def test_numbers_are_those_of_statsmodels():
    """statsmodels 0.15.0: multipletests(P_VALUES, method="holm")[1]."""
    expected = [
        0.0014,
        0.2646,
        0.005200000000000001,
        1.0,
        0.11399999999999999,
        0.11399999999999999,
        0.201,
        1.0,
        0.2502,
        0.2502,
        0.2502,
        1.0,
        1.0,
        1.0,
    ]
    assert np.allclose(holm(P_VALUES), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("count", [0, 1, 2, 36])
def test_it_agrees_with_the_procedure(count):
    p_values = np.random.default_rng(count).uniform(0, 0.2, count)
    assert np.abs(holm(p_values) - holm_by_steps(p_values.tolist())).max(initial=0) < 1e-12


def test_undefined_tests_do_not_count():
    adjusted = holm([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]].tolist() == holm([0.01, 0.04]).tolist()
    assert np.isnan(adjusted[1])


def test_the_shape_and_the_order_stay():
    matrix = np.array([[0.03, 0.01], [0.5, 0.02]])
    assert holm(matrix).tolist() == holm(matrix.ravel()).reshape(2, 2).tolist()
    assert holm(matrix)[0, 1] == 0.04


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_what_is_no_p_value_is_refused(wrong):
    with pytest.raises(ValueError, match=r"from 0 to 1, got"):
        holm([0.5, wrong])


def test_a_family_of_true_hypotheses_is_rejected_in_five_percent():
    p_values = np.random.default_rng(0).uniform(size=(4000, 36))
    rejected = np.mean([holm(family).min() <= 0.05 for family in p_values])
    assert 0.04 < rejected < 0.06
