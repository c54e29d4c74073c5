"""Parts of targets and seeds: a published table, an analysis of variance by loops, and simulated draws."""

import json

import numpy as np
import pytest
from scipy import stats

from netsim.similarity.uncertainty import jackknife_se
from netsim.statistics.reliability import SeedReliability, seed_reliability


def parts_of(shards) -> SeedReliability:
    """Return the reliability of means, of which shards (K, G) are the pseudo-values."""
    shards = np.asarray(shards, dtype=np.float64)
    values, count = shards.mean(axis=1), shards.shape[1]
    return seed_reliability(values, (count * values[:, None] - shards) / (count - 1))


def simulated(rng, *, icc, draws=2, shards=16):
    """Draw pseudo-values of variance 1, of which the targets have `icc`."""
    targets, seeds = rng.normal(size=shards), rng.normal(size=(draws, shards))
    return 0.3 + np.sqrt(icc) * targets + np.sqrt(1 - icc) * seeds


def table_of_variance(shards):
    """Return ICC, interval, and both variances of a mean, by sums over a two-way table (Shrout and Fleiss, table 3)."""
    draws, count = len(shards), len(shards[0])
    grand = sum(map(sum, shards)) / (draws * count)
    of_shards = [sum(draw[g] for draw in shards) / draws for g in range(count)]
    of_draws = [sum(draw) / count for draw in shards]
    between = draws * sum((each - grand) ** 2 for each in of_shards) / (count - 1)
    residual = 0.0
    for k in range(draws):
        for g in range(count):
            residual += (shards[k][g] - of_shards[g] - of_draws[k] + grand) ** 2
    within = residual / ((draws - 1) * (count - 1))
    icc = (between - within) / (between + (draws - 1) * within)
    low = between / within / stats.f.ppf(0.975, count - 1, (count - 1) * (draws - 1))
    high = between / within * stats.f.ppf(0.975, (count - 1) * (draws - 1), count - 1)
    interval = [(each - 1) / (each + draws - 1) for each in (low, high)]
    return icc, *interval, (between - within) / draws / count, within / count


def test_the_published_example_has_the_published_correlation():
    """Shrout and Fleiss 1979, table 2: six subjects, four judges; ICC(3,1) = .71, and .34 to .95 in R's psych."""
    judges = [[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2], [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]]
    parts = parts_of(judges)
    assert round(parts.icc, 2) == 0.71
    assert [round(end, 2) for end in parts.interval] == [0.34, 0.95]


@pytest.mark.parametrize("draws", [2, 3])
def test_parts_are_those_of_a_table_of_variance_by_loops(draws):
    rng = np.random.default_rng(0)
    shards = simulated(rng, icc=0.6, draws=draws, shards=9)
    parts, expected = parts_of(shards), table_of_variance(shards.tolist())
    mine = (parts.icc, *parts.interval, parts.targets**2, parts.seeds**2)
    assert np.allclose(mine, expected, rtol=0, atol=1e-9)


def test_parts_are_those_of_the_standard_errors_of_draws_and_of_their_difference():
    """Of any statistic, whatever its replicates are."""
    rng = np.random.default_rng(0)
    values, replicates = rng.normal(size=2), rng.normal(size=(2, 12))
    replicates[1] += replicates[0]
    parts, errors = seed_reliability(values, replicates), jackknife_se(replicates.T)
    difference = jackknife_se(replicates[1] - replicates[0])
    assert parts.seeds**2 == pytest.approx(difference**2 / 2, abs=1e-9)
    assert parts.targets**2 + parts.seeds**2 == pytest.approx(np.square(errors).mean(), abs=1e-9)
    assert parts.icc == pytest.approx(1 - parts.seeds**2 / np.square(errors).mean(), abs=1e-9)


def test_the_order_of_draws_and_another_level_and_scale_change_nothing():
    rng = np.random.default_rng(0)
    shards = simulated(rng, icc=0.5)
    one = parts_of(shards)
    for other in (shards[::-1], shards + np.array([[1.0], [7.0]]), 3 * shards):
        assert parts_of(other).icc == pytest.approx(one.icc) and parts_of(other).interval == pytest.approx(one.interval)


@pytest.mark.parametrize("icc", [0.05, 0.27, 0.9])
def test_the_interval_covers_the_truth_in_95_percent(icc):
    rng = np.random.default_rng(0)
    intervals = np.array([parts_of(simulated(rng, icc=icc)).interval for _ in range(2000)])
    covered = ((intervals[:, 0] <= icc) & (icc <= intervals[:, 1])).mean()
    assert 0.935 < covered < 0.965  # 3 standard errors


def test_a_second_draw_leaves_what_is_told():
    rng = np.random.default_rng(0)
    shards = np.array([simulated(rng, icc=0.27, draws=2, shards=4) for _ in range(20_000)])
    one, both = shards[:, 0].mean(axis=1).var(), shards.mean(axis=(1, 2)).var()
    assert both / one == pytest.approx(SeedReliability(0.27, (0, 1), 0, 0).after_second_draw, abs=0.02)
    assert SeedReliability(-0.4, (-1, 0), 0, 0).after_second_draw == 0.5


def test_draws_that_agree_leave_all_to_the_targets():
    parts = parts_of([[0.25, 0.5, 0.75], [0.25, 0.5, 0.75]])
    assert (parts.icc, parts.interval, parts.seeds) == (1, (1, 1), 0) and parts.targets > 0


def test_draws_that_share_nothing_have_an_interval_about_zero():
    parts = parts_of([[-1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, 1.0, 1.0]])
    assert parts.icc == pytest.approx(0) and parts.targets == pytest.approx(0, abs=1e-8)
    assert parts.interval[0] < 0 < parts.interval[1]


def test_what_is_undefined_is_nan():
    for parts in (
        seed_reliability([0.5, 0.6], [[0.5], [0.6]]),
        parts_of(np.ones((2, 4))),
        parts_of([[np.nan, 1, 2], [1, 2, 3]]),
    ):
        assert np.isnan(parts.icc) and np.isnan(parts.interval).all()
        assert json.loads(json.dumps(parts.to_json(), allow_nan=False))["icc"] is None


def test_shapes_that_do_not_fit_are_refused():
    for values, replicates in (([1], np.ones((1, 4))), ([1, 2], np.ones((3, 4))), ([1, 2], np.ones(4))):
        with pytest.raises(ValueError, match=r"must be \(K,\) and \(K, G\) with K of at least 2, got"):
            seed_reliability(values, replicates)
