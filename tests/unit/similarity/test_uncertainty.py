"""Errors and intervals must equal textbook formulas where there are any, and cover the truth elsewhere."""

import numpy as np
import pytest
from scipy import stats

from netsim.similarity.uncertainty import Estimate, half_sampling, half_width, jackknife, jackknife_se, plain
from unit.similarity.definitions import errors_of, shard_cka, split


def test_jackknife_is_efrons_formula_and_of_a_mean_it_is_the_usual_standard_error(rng):
    values = rng.normal(size=25)
    replicates = np.array([np.delete(values, g).mean() for g in range(25)])
    assert jackknife_se(replicates) == pytest.approx(values.std(ddof=1) / np.sqrt(25))
    stacked = jackknife_se(np.stack([replicates, 2 * replicates], axis=1))
    np.testing.assert_allclose(stacked, [jackknife_se(replicates), 2 * jackknife_se(replicates)])
    assert np.isnan(jackknife_se(replicates[:1]))


def test_of_a_mean_the_interval_and_p_are_students(rng):
    """The jackknife of a mean is exact, so scipy's t interval and t test of the same numbers must agree."""
    values = rng.normal(0.3, size=12)
    result = jackknife(values.mean(), np.array([np.delete(values, g).mean() for g in range(12)]))
    assert result.interval == pytest.approx(stats.t.interval(0.95, 11, values.mean(), stats.sem(values)))
    assert result.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert np.isnan(jackknife(1.0, np.array([1.0])).interval).all()
    assert np.isnan(jackknife(1.0, np.ones(4)).p_value)


def test_the_interval_of_a_biased_estimate_is_of_its_expected_value_and_nothing_is_tested(rng):
    """Unrelated rows: the interval of biased CKA covers its mean over sets of this n, and never the true 0."""
    means, covered, tested = [], [], []
    for _ in range(60):
        shards = split(rng.normal(size=(200, 30)), rng.normal(size=(200, 20)), (20,) * 10)
        result = shard_cka(shards)
        estimate = jackknife(result.cka, result.leave_one_out, biased=True)
        means.append(estimate.value)
        covered.append(estimate.interval)
        tested.append(estimate.p_value)
    low, high = np.array(covered).T
    expected = np.mean(means)
    assert expected > 0.1 and ((low <= expected) & (expected <= high)).mean() > 0.85
    assert not ((low <= 0) & (high >= 0)).any()
    assert np.isnan(tested).all() and "p_value" not in estimate.to_json()
    assert estimate.to_json()["interval_of"] == "expected value at this n"


def test_jackknife_intervals_cover_the_population_value(rng):
    """The interval has 19 degrees of freedom and nominally covers 95 % of 100 sets of 500 images in 20 shards."""
    A, B = rng.normal(size=(4, 8)), rng.normal(size=(4, 6))
    sxx, syy, sxy = A.T @ A + 2 * np.eye(8), B.T @ B + 2 * np.eye(6), A.T @ B
    truth = np.square(sxy).sum() / np.sqrt(np.square(sxx).sum() * np.square(syy).sum())
    covered, values, errors = 0, [], []
    for _ in range(100):
        shared = rng.normal(size=(500, 4))
        X = shared @ A + np.sqrt(2) * rng.normal(size=(500, 8))
        Y = shared @ B + np.sqrt(2) * rng.normal(size=(500, 6))
        result = shard_cka(split(X, Y, (25,) * 20))
        values.append(result.cka_unbiased)
        errors.append(errors_of(result)[1])
        covered += abs(result.cka_unbiased - truth) < 2.093 * errors[-1]
    assert 88 <= covered <= 100
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)


def test_half_sampling_of_a_mean_has_the_usual_standard_error(rng):
    values = rng.normal(size=200)
    halves = np.array([rng.permutation(values)[:100].mean() for _ in range(2000)])
    estimate = half_sampling(values.mean(), halves)
    assert estimate.value == values.mean() and estimate.df == 1999
    assert estimate.se == pytest.approx(stats.sem(values), rel=0.05)


def test_half_width_is_students_quantile_times_the_error():
    se = np.array([[0.1, 0.2], [np.nan, 0.0]])
    np.testing.assert_allclose(half_width(se, 7), stats.t.ppf(0.975, 7) * se)
    assert np.isnan(half_width(se, 0)).all()


def test_json_has_none_where_a_number_is_undefined():
    assert plain([1, [np.float64(2.5), np.nan], -np.inf]) == [1.0, [2.5, None], None]
    assert Estimate(0.5, float("nan"), 0).to_json() == {
        "value": 0.5, "se": None, "interval": [None, None], "p_value": None,
    }  # fmt: skip
