"""Cohen's kappa by hand and by its definition."""

import warnings

import numpy as np
import pytest

from netsim.similarity.measures.cohen_kappa import cohen_kappa
from unit.similarity.measures.examples import (
    logits_of,
    predicted,
    value,
)


def test_cohen_kappa_by_hand():
    """Cohen's table, 20 5 / 10 15: 0.7 agree, and 0.5 would by chance."""
    X, Y = logits_of([0] * 25 + [1] * 25, 2), logits_of([0] * 20 + [1] * 5 + [0] * 10 + [1] * 15, 2)
    assert cohen_kappa(X, Y) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert cohen_kappa(X, logits_of([1] * 25 + [0] * 25, 2)) == pytest.approx(-1)


def test_cohen_kappa_is_its_definition(rng):
    X, Y = predicted(rng)
    x, y = (np.eye(6)[side.argmax(axis=1)].mean(axis=0) for side in (X, Y))
    agreed = value("agreement", X, Y)
    assert cohen_kappa(X, Y) == pytest.approx((agreed - x @ y) / (1 - x @ y), abs=1e-12)


def test_predictions_of_one_class_agree_but_not_beyond_chance():
    X = logits_of([1] * 9, 3)
    assert value("agreement", X, X) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(cohen_kappa(X, 2 * X))
    assert cohen_kappa(X, logits_of([0, 1, 2] * 3, 3)) == pytest.approx(0)
