"""Agreement of matrices: against every order by hand, scikit-bio, and matrices that have nothing in common."""

from itertools import permutations

import numpy as np
import pytest

from netsim.statistics import mantel as module
from netsim.statistics.mantel import mantel, split_half_reliability

OFF = ~np.eye(7, dtype=bool)
FIRST = [
    [0.0, 0.83, 0.56, 0.36, 0.15, 0.45, 0.47],
    [0.83, 0.0, 1.0, 0.69, 0.31, 0.49, 0.98],
    [0.56, 1.0, 0.0, 0.54, 0.71, 0.15, 0.6],
    [0.36, 0.69, 0.54, 0.0, 0.88, 0.3, 0.91],
    [0.15, 0.31, 0.71, 0.88, 0.0, 0.49, 0.28],
    [0.45, 0.49, 0.15, 0.3, 0.49, 0.0, 0.82],
    [0.47, 0.98, 0.6, 0.91, 0.28, 0.82, 0.0],
]
SECOND = [
    [0.0, 0.5, 0.71, 0.4, 0.55, 0.45, 0.71],
    [0.5, 0.0, 0.88, 0.7, 0.51, 0.5, 0.64],
    [0.71, 0.88, 0.0, 0.61, 0.57, 0.48, 0.44],
    [0.4, 0.7, 0.61, 0.0, 0.77, 0.62, 0.95],
    [0.55, 0.51, 0.57, 0.77, 0.0, 0.48, 0.44],
    [0.45, 0.5, 0.48, 0.62, 0.48, 0.0, 0.74],
    [0.71, 0.64, 0.44, 0.95, 0.44, 0.74, 0.0],
]


def pair(m=6, rng_seed=0, shared=0.5):
    rng = np.random.default_rng(rng_seed)
    first = rng.normal(size=(m, m))
    return first, shared * first + rng.normal(size=(m, m)), ~np.eye(m, dtype=bool)


def loop_r(first, second, counted, order):
    """Correlate cell by cell, with the networks of the second in another order."""
    m = len(order)
    cells = [
        (first[i, j], second[order[i], order[j]])
        for i in range(m)
        for j in range(m)
        if counted[i, j] and counted[order[i], order[j]]
    ]
    return np.corrcoef(np.array(cells).T)[0, 1]


def test_numbers_are_those_of_scikit_bio():
    """scikit-bio 0.7.4: mantel(FIRST, SECOND, permutations=200000, alternative="greater", seed=1).

    It permutes at random, so its p-value is known to 0.0001; here all 5040 orders are counted.
    """
    agreement = mantel(np.array(FIRST), np.array(SECOND), OFF)
    assert agreement.r == pytest.approx(0.6526189123148557, abs=1e-12)
    assert agreement.p_value == pytest.approx(0.00158, abs=0.0003)
    assert (agreement.orders, agreement.networks) == (5040, 7)


@pytest.mark.parametrize("m", [5, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_few_networks_are_put_in_every_order(m, masked):
    first, second, counted = pair(m)
    if masked:
        counted[0, 1] = counted[1, 0] = False
    agreement = mantel(first, second, counted)
    r = loop_r(first, second, counted, range(m))
    every = [loop_r(first, second, counted, order) for order in permutations(range(m))]
    assert abs(agreement.r - r) < 1e-9
    assert abs(agreement.p_value - np.mean(np.array(every) >= r - 1e-12)) < 1e-9
    assert agreement.orders == len(every)


def test_the_interval_is_that_of_a_loop_over_networks():
    from scipy import stats

    first, second, counted = pair(9, shared=1)
    agreement = mantel(first, second, counted, permuted=9)
    z = []
    for network in range(9):
        rest = [i for i in range(9) if i != network]
        cut = np.ix_(rest, rest)
        z.append(np.arctanh(loop_r(first[cut], second[cut], counted[cut], range(8))))
    se = (8 / 9 * sum((each - sum(z) / 9) ** 2 for each in z)) ** 0.5
    ends = np.tanh(np.arctanh(agreement.r) + np.array([-1, 1]) * stats.t.ppf(0.975, 8) * se)
    assert np.allclose(agreement.interval, ends, rtol=0, atol=1e-9)


@pytest.mark.parametrize("correlation", [0, 0.5, 0.9])
def test_the_interval_covers_the_correlation_of_all_networks(correlation):
    rng, covered = np.random.default_rng(0), []

    def effects(*shape):
        one, other = rng.normal(size=(2, *shape))
        return one, correlation * one + np.sqrt(1 - correlation**2) * other

    for _ in range(400):
        rows, columns, cells = effects(9), effects(9), effects(9, 9)
        matrices = [2 * (rows[side][:, None] + columns[side]) + cells[side] for side in (0, 1)]
        low, high = mantel(*matrices, ~np.eye(9, dtype=bool), permuted=0).interval
        covered.append(low < correlation < high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_many_networks_are_permuted_at_random_but_always_the_same():
    first, second, counted = pair(9, shared=0)
    once, again = (mantel(first, second, counted, permuted=199) for _ in range(2))
    assert once == again and once.orders == 200
    assert mantel(first, second, counted, permuted=199, rng_seed=1).p_value != once.p_value
    assert round(once.p_value * 200) == once.p_value * 200 >= 1


def test_the_size_of_chunks_does_not_matter(monkeypatch):
    first, second, counted = pair(9)
    whole = mantel(first, second, counted, permuted=199)
    monkeypatch.setattr(module, "CHUNK", 700)
    assert mantel(first, second, counted, permuted=199) == whole


def test_the_same_matrix_agrees_with_itself():
    first, _, counted = pair(6)
    agreement = mantel(first, 2 * first + 1, counted)
    assert agreement.r == pytest.approx(1, abs=1e-12) and agreement.p_value == 1 / 720
    assert agreement.interval == pytest.approx((1, 1))


def test_unrelated_matrices_with_strong_networks_are_rejected_in_five_percent():
    """An ordinary correlation test of the 72 cells would reject far more: networks, not cells, are independent."""
    from scipy.stats import pearsonr

    rng, off = np.random.default_rng(0), ~np.eye(9, dtype=bool)
    rejected, naive = [], []
    for _ in range(400):
        effects = rng.normal(size=(2, 9))
        first, second = effects[:, :, None] + effects[:, None, :] + 0.3 * rng.normal(size=(2, 9, 9))
        rejected.append(mantel(first, second, off, permuted=199).p_value <= 0.05)
        naive.append(pearsonr(first[off], second[off], alternative="greater").pvalue <= 0.05)
    assert 0.02 < np.mean(rejected) < 0.08 and np.mean(naive) > 0.15


@pytest.mark.parametrize("m", [2, 3, 4])
def test_below_five_networks_there_is_no_p_value(m):
    agreement = mantel(*pair(m))
    assert np.isnan(agreement.p_value) and np.isnan(agreement.interval).all() and agreement.orders == 0
    assert agreement.to_json()["p_value"] is None


def test_a_constant_matrix_has_no_correlation():
    first, _, counted = pair(6)
    agreement = mantel(first, np.full((6, 6), 0.1), counted)
    assert np.isnan(agreement.r) and np.isnan(agreement.p_value)


def test_wrong_shapes_are_refused():
    first, second, counted = pair(6)
    with pytest.raises(ValueError, match=r"must be \(M, M\), got \(6, 6\), \(5, 5\) and \(6, 6\)"):
        mantel(first, second[:5, :5], counted)
    with pytest.raises(ValueError, match=r"must be \(M, M\), got \(5, 6\)"):
        mantel(first[:5], second[:5], counted[:5])
    with pytest.raises(ValueError, match=r"replicates must be \(6, 6\) and a last axis of shards, got \(4, 6, 6\)"):
        split_half_reliability(first, np.zeros((4, 6, 6)), counted)


def shards_of(noise, shards=8, rng_seed=0):
    rng = np.random.default_rng(rng_seed)
    each = rng.normal(0.5, 0.1, (9, 9, 1)) + rng.normal(0, noise, (9, 9, shards))
    cells = each.mean(axis=-1)
    return each, cells, (shards * cells[..., None] - each) / (shards - 1), ~np.eye(9, dtype=bool)


def test_reliability_is_that_of_a_loop_over_splits():
    each, cells, replicates, counted = shards_of(0.1)
    rng, r = np.random.default_rng(3), []
    for _ in range(20):
        order = rng.permutation(8)
        halves = [each[..., half].mean(axis=-1)[counted] for half in (order[:4], order[4:])]
        r.append(np.corrcoef(*halves)[0, 1])
    expected = 2 * np.mean(r) / (1 + np.mean(r))
    assert abs(split_half_reliability(cells, replicates, counted, splits=20, rng_seed=3) - expected) < 1e-9


def test_reliability_is_the_share_of_the_variance_that_is_no_noise():
    for noise in (0.05, 0.2, 0.4):
        reliabilities = [split_half_reliability(*shards_of(noise, rng_seed=seed)[1:]) for seed in range(20)]
        assert np.mean(reliabilities) == pytest.approx(0.1**2 / (0.1**2 + noise**2 / 8), abs=0.05)


def test_one_shard_has_no_reliability():
    _, cells, replicates, counted = shards_of(0.1)
    assert np.isnan(split_half_reliability(cells, replicates[..., :1], counted))
