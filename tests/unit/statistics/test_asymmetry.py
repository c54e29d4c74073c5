"""Differences of mirrored cells: against loops, and against simulated matrices without any."""

import numpy as np
import pytest
from scipy import stats

from netsim.statistics.asymmetry import asymmetry
from netsim.statistics.multiple import holm

SHARDS = 6


def matrix(m=5, rng_seed=0, effect=0.05):
    rng = np.random.default_rng(rng_seed)
    shards = rng.normal(0, effect, (m, m, 1)) + rng.normal(0.3, 0.05, (m, m, SHARDS))
    cells = shards.mean(axis=-1)
    return cells, (SHARDS * cells[..., None] - shards) / (SHARDS - 1), ~np.eye(m, dtype=bool)


def loop_test(value, left_out):
    """Value, standard error and p-value of a jackknife."""
    mean = sum(left_out) / len(left_out)
    se = ((len(left_out) - 1) / len(left_out) * sum((each - mean) ** 2 for each in left_out)) ** 0.5
    return value, se, 2 * stats.t.sf(abs(value / se), len(left_out) - 1)


def test_pairs_are_those_of_loops():
    cells, replicates, counted = matrix()
    counted[0, 2] = counted[2, 0] = False
    result = asymmetry(cells, replicates, counted, range(5))
    expected = {
        (i, j): loop_test(cells[i, j] - cells[j, i], [replicates[i, j, g] - replicates[j, i, g] for g in range(SHARDS)])
        for i in range(5)
        for j in range(i + 1, 5)
        if counted[i, j]
    }
    assert list(result.pairs) == list(expected) and len(expected) == 9
    for pair, (value, se, p) in expected.items():
        assert abs(result.pairs[pair].value - value) < 1e-9 and abs(result.pairs[pair].se - se) < 1e-9
        assert abs(result.pairs[pair].p_value - p) < 1e-9
    assert np.allclose(list(result.pair_p.values()), holm([p for _, _, p in expected.values()]), rtol=0, atol=1e-9)


def test_rows_minus_columns_are_those_of_loops():
    cells, replicates, counted = matrix()
    groups = ["a", "a", "b", "c", "d"]

    def row_minus_column(values, i):
        others = [j for j in range(5) if groups[j] != groups[i]]
        return sum(values[i, j] - values[j, i] for j in others) / len(others)

    result = asymmetry(cells, replicates, counted, groups)
    tests = [
        loop_test(row_minus_column(cells, i), [row_minus_column(replicates[..., g], i) for g in range(SHARDS)])
        for i in range(5)
    ]
    for each, (value, se, p) in zip(result.networks, tests, strict=True):
        assert abs(each.value - value) < 1e-9 and abs(each.images.se - se) < 1e-9
        assert abs(each.images.p_value - p) < 1e-9
    assert np.allclose(result.network_p, holm([p for *_, p in tests]), rtol=0, atol=1e-9)


def test_a_pair_counts_if_both_of_its_cells_do():
    cells, replicates, counted = matrix()
    counted[0, 2] = False
    result = asymmetry(cells, replicates, counted, range(5))
    assert len(result.pairs) == 9 and (0, 2) not in result.pairs
    for network, others in ((0, [1, 3, 4]), (2, [1, 3, 4])):
        expected = (cells[network, others] - cells[others, network]).mean()
        assert result.networks[network].value == pytest.approx(expected, abs=1e-12)
    counted[0, 2], counted[2, 0] = True, False
    assert asymmetry(cells, replicates, counted, range(5)).pairs == result.pairs


def test_rows_minus_columns_cancel():
    assert sum(each.value for each in asymmetry(*matrix(), range(5)).networks) == pytest.approx(0, abs=1e-12)


def test_a_transposed_matrix_has_the_opposite_asymmetry():
    cells, replicates, counted = matrix()
    one, other = (
        asymmetry(cells, replicates, counted, range(5)),
        asymmetry(cells.T, replicates.swapaxes(0, 1), counted, range(5)),
    )
    assert all(one.pairs[pair].value == -other.pairs[pair].value for pair in one.pairs)
    assert one.pair_p == other.pair_p
    assert [(j, i) for i, j in one.largest(4)] == other.largest(4)


def test_the_largest_pairs_come_first_and_the_right_way_round():
    cells, replicates, counted = matrix()
    result = asymmetry(cells, replicates, counted, range(5))
    differences = [result.difference(*pair).value for pair in result.largest(10)]
    assert differences == sorted(differences, reverse=True) and min(differences) > 0
    (i, j), *_ = result.largest(1)
    assert result.difference(j, i).value == -result.difference(i, j).value == -np.abs(cells - cells.T).max()
    assert result.adjusted(i, j) == result.adjusted(j, i)


def test_symmetric_matrices_are_rejected_in_five_percent():
    rejected = [
        min(asymmetry(*matrix(rng_seed=seed, effect=0), range(5)).pair_p.values()) < 0.05 for seed in range(300)
    ]
    assert np.mean(rejected) < 0.08


def test_an_exactly_symmetric_matrix_has_no_p_value():
    cells, replicates, counted = matrix()
    result = asymmetry(cells + cells.T, replicates + replicates.swapaxes(0, 1), counted, range(5))
    assert all(each.value == 0 for each in result.pairs.values())
    assert np.isnan(list(result.pair_p.values())).all()


def test_json_names_the_networks():
    cells, replicates, counted = matrix(3)
    content = asymmetry(cells, replicates, counted, range(3)).to_json(["x", "y", "z"])
    assert [(pair["through"], pair["observer"]) for pair in content["pairs"]] == [("x", "y"), ("x", "z"), ("y", "z")]
    assert all(0 <= pair["p_value"] <= pair["p_holm"] <= 1 for pair in content["pairs"])
    assert list(content["row_minus_column"]) == ["x", "y", "z"]
