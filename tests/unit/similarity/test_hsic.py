"""CKA, its floor and the participation ratio from sums over rows must equal their definitions."""

import itertools

import numpy as np
import pytest

from netsim.similarity.cka import linear_cka
from netsim.similarity.hsic import ESTIMATORS, Hsic, cka, null_floor, participation_ratio
from netsim.similarity.streaming import (
    pair_hsic,
)
from unit.similarity.definitions import (
    hsic_biased,
    hsic_unbiased,
    related,
    self_hsic,
)


def test_sums_give_both_hsics_of_the_definition_up_to_their_factors(rng):
    X, Y = related(rng, 30)
    sums, n = pair_hsic([[X, Y]], [(0, 1)])[0, 1], 30
    K, L = X @ X.T, Y @ Y.T
    assert sums.value("biased")[0] == pytest.approx(hsic_biased(K, L), rel=1e-10)
    assert sums.value("unbiased")[0] == pytest.approx(n * (n - 3) * hsic_unbiased(K, L), rel=1e-10)


def test_fewer_than_four_rows_have_no_hsic(rng):
    sums = pair_hsic([[rng.normal(size=(n, 2))] for n in (3, 1)], [(0, 0)])[0, 0]
    assert sums.n.tolist() == [4, 1, 3]
    for estimator in ESTIMATORS:
        assert np.isnan(sums.value(estimator)).tolist() == [False, True, True]


def test_a_network_without_cka_has_a_reason(rng):
    X = rng.normal(size=(10, 3))
    single = np.zeros((10, 3))
    single[4] = 1
    three = Hsic(*(np.array([value]) for value in (3, 1.0, 1.0, 1.0, 1.0)))
    assert [self_hsic(X).why_undefined(estimator) for estimator in ESTIMATORS] == ["", ""]
    assert three.why_undefined("biased") == "CKA requires at least 4 images, got 3"
    assert self_hsic(np.ones((10, 3))).why_undefined("biased") == "constant: every image has the same representation"
    assert self_hsic(single).why_undefined("biased") == ""
    reason = "the unbiased H(X, X) is not positive: too few images differ; use more images"
    assert self_hsic(single).why_undefined("unbiased") == reason


def test_unrelated_rows_have_unbiased_cka_zero_and_biased_cka_at_the_floor(rng):
    result, floors = [], []
    for _ in range(60):
        X = rng.normal(size=(120, 60))
        Y = rng.normal(size=(120, 40)) * np.arange(1, 41) ** -0.5
        result.append([linear_cka(X, Y, estimator) for estimator in ESTIMATORS])
        floors.append(null_floor(self_hsic(X), self_hsic(Y))[0])
    biased, unbiased = np.mean(result, axis=0)
    assert np.std(floors) < 0.01
    assert biased == pytest.approx(np.mean(floors), abs=0.004)
    assert biased > 0.15
    assert unbiased == pytest.approx(0, abs=0.004)
    assert min(u for _, u in result) < 0  # never clamped


def test_floor_is_the_mean_over_all_permutations_of_the_rows(rng):
    X, Y = related(rng, 6)
    everything = [linear_cka(X, Y[list(order)]) for order in itertools.permutations(range(6))]
    assert null_floor(self_hsic(X), self_hsic(Y))[0] == pytest.approx(np.mean(everything), abs=1e-12)


def test_floor_is_the_formula_with_the_participation_ratios_of_the_population(rng):
    n, d = 500, 300
    variances = np.arange(1, d + 1) ** -0.4
    r = variances.sum() ** 2 / np.square(variances).sum()
    X, Y = (rng.normal(size=(n, d)) * np.sqrt(variances) for _ in range(2))
    assert null_floor(self_hsic(X), self_hsic(Y))[0] == pytest.approx(r / (n + r), rel=0.02)
    assert participation_ratio(self_hsic(X))[0] == pytest.approx(n * r / (n + r), rel=0.02)


def test_participation_ratio_counts_directions():
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=5)))
    assert participation_ratio(self_hsic(corners))[0] == pytest.approx(5)
    assert participation_ratio(self_hsic(np.arange(10.0)[:, None] * np.ones(3)))[0] == pytest.approx(1)


def test_sums_over_different_rows_are_not_combined(rng):
    X, _ = related(rng, 10)
    with pytest.raises(AssertionError, match="different rows"):
        cka(self_hsic(X), self_hsic(X), self_hsic(X[:9]))
