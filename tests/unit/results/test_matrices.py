"""Cells, means and rows of both matrices, against values recomputed from the stored representations."""

import dataclasses
import itertools
import warnings

import numpy as np
import pytest

from netsim.results.matrices import ESTIMATORS, Cells, comparable, matrices, sums_of
from netsim.results.results import load_results
from netsim.results.twins import counted_cells
from netsim.similarity import cka


def make_cells(rng: np.random.Generator, networks: int = 3, shards: int = 5) -> Cells:
    """Return cells of noise: no cell is like another."""
    cka, leave_one_out = rng.random((2, networks, networks)), rng.random((2, networks, networks, shards))
    off = ~np.eye(networks, dtype=bool)
    return Cells(cka, leave_one_out, rng.random((networks, networks)), np.full(cka.shape, "", str), off)


@pytest.fixture
def cells() -> Cells:
    return make_cells(np.random.default_rng(0))


def jackknife_error(replicates: np.ndarray) -> float:
    """Compute the standard error by its definition."""
    count = len(replicates)
    return float(np.sqrt((count - 1) / count * sum((value - replicates.mean()) ** 2 for value in replicates)))


def test_natural_is_symmetric_and_both_diagonals_are_one(finished):
    results = load_results(finished)
    np.testing.assert_array_equal(results.cells("natural", "biased"), results.cells("natural", "biased").T)
    for kind, estimator in itertools.product(("natural", "inverted"), ("biased", "unbiased")):
        np.testing.assert_array_equal(np.diag(results.cells(kind, estimator)), 1)


def test_error_of_a_mean_is_the_jackknife_of_that_mean(finished):
    """Deleting a shard of images deletes it from every cell: 4 shards, recomputed from representations."""
    names, shards = finished.settings.names, 4
    replicates = []
    for deleted in range(shards):
        keep = np.repeat(np.arange(shards) != deleted, 8)
        reps = [finished.array(f"representations/natural/{name}")[...][keep] for name in names]
        cells = [cka.linear_cka(x, y, "unbiased") for i, x in enumerate(reps) for j, y in enumerate(reps) if i != j]
        replicates.append(np.mean(cells))
    se = jackknife_error(np.array(replicates))
    assert load_results(finished).means["natural", "unbiased"].se == pytest.approx(se, rel=1e-6)


def test_rows_are_compared_pair_by_pair_of_left_out_shards(finished):
    """vgg's inverted row minus resnet18's, recomputed from representations without each of 4 shards."""
    results, names = load_results(finished), finished.settings.names

    def row_mean(through: str, keep: np.ndarray) -> float:
        reps = {name: finished.array(f"representations/inverted/{through}/{name}")[...][keep] for name in names}
        return np.mean([cka.linear_cka(reps[through], reps[o], "unbiased") for o in names if o != through])

    def difference(keep: np.ndarray) -> float:
        return row_mean("vgg", keep) - row_mean("resnet18", keep)

    estimate = results.row_differences["vgg", "resnet18"]
    replicates = np.array([difference(np.repeat(np.arange(4) != deleted, 8)) for deleted in range(4)])
    assert estimate.value == pytest.approx(difference(np.ones(32, dtype=bool)), abs=1e-9)
    assert estimate.se == pytest.approx(np.sqrt(3 / 4 * np.sum((replicates - replicates.mean()) ** 2)), rel=1e-6)
    assert estimate.df == 3
    assert results.rows["inverted", "unbiased"]["vgg"].value == pytest.approx(
        row_mean("vgg", np.ones(32, dtype=bool)), abs=1e-9
    )


def test_floors_follow_from_the_covariances_of_the_stored_representations(finished):
    """T_x T_y / ((n - 1) |C_xx| |C_yy|): the mean of biased CKA over all permutations of one side."""
    names = finished.settings.names

    def participation(set_name: str, name: str) -> float:
        rows = finished.array(f"representations/{set_name}/{name}")[...].astype(np.float64)
        covariance = np.cov(rows.T)
        return np.trace(covariance) / np.linalg.norm(covariance)

    cells = matrices(finished)
    for set_name, floor, row in (
        ("natural", cells["natural"].floor, 0),
        ("inverted/resnet18", cells["inverted"].floor, 1),
    ):
        factors = [participation(set_name, name) for name in names]
        np.testing.assert_allclose(floor[row], np.array(factors) * factors[row] / 31, rtol=1e-6)


def test_sums_of_a_set_are_over_all_pairs_and_without_each_shard(finished):
    sums = sums_of(finished)["inverted/vgg"]
    assert ("vgg", "resnet18") in sums
    assert {tuple(value.n) for value in sums.values()} == {(32, 24, 24, 24, 24)}


def test_cells_of_networks_with_different_weights_count(finished):
    for cells in matrices(finished).values():
        np.testing.assert_array_equal(cells.comparable, ~np.eye(3, dtype=bool))
    np.testing.assert_array_equal(comparable(finished), ~np.eye(3, dtype=bool))


def test_cells_that_do_not_count_are_in_no_mean_and_twins_are_not_compared():
    """The first and the last of four networks are twins: whatever their cells are, no mean changes."""
    cells = make_cells(np.random.default_rng(0), networks=4)
    mask = counted_cells(["x", "y", "z", "x"])
    twins = dataclasses.replace(cells, comparable=mask)
    mean = twins.mean("unbiased")
    assert mean.value == pytest.approx(np.mean([cells.cka[0, i, j] for i, j in np.argwhere(mask)]))
    spoilt = twins.cka.copy(), twins.leave_one_out.copy()
    for array in spoilt:
        array[:, 0, 3] = array[:, 3, 0] = np.nan
    other = dataclasses.replace(twins, cka=spoilt[0], leave_one_out=spoilt[1])
    assert other.mean("unbiased") == mean and other.rows("biased") == twins.rows("biased")
    assert other.rows("unbiased")[3].value == pytest.approx(cells.cka[0, 3, 1:3].mean())
    assert list(other.row_differences("unbiased")) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    np.testing.assert_array_equal(twins.minus(cells).comparable, mask)


def test_means_of_nothing_but_twins_are_nan_without_a_warning():
    cells = dataclasses.replace(make_cells(np.random.default_rng(0)), comparable=np.zeros((3, 3), dtype=bool))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan([cells.mean("unbiased").value, cells.mean("unbiased").se, cells.rows("biased")[0].value]).all()
        assert cells.row_differences("unbiased") == {}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_means_and_rows_average_cells_off_the_diagonal(cells, estimator):
    index = ESTIMATORS.index(estimator)
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    mean = cells.mean(estimator)
    assert mean.value == pytest.approx(np.mean([cells.cka[index, i, j] for i, j in pairs]))
    assert mean.se == pytest.approx(
        jackknife_error(np.mean([cells.leave_one_out[index, i, j] for i, j in pairs], axis=0))
    )
    for i, row in enumerate(cells.rows(estimator)):
        others = [j for j in range(3) if j != i]
        assert row.value == pytest.approx(cells.cka[index, i, others].mean())
        assert row.se == pytest.approx(jackknife_error(cells.leave_one_out[index, i, others].mean(axis=0)))


def test_every_estimate_of_the_biased_estimator_is_biased_and_no_other(cells):
    for estimator in ("biased", "unbiased", "debiased"):
        estimates = [cells.mean(estimator), *cells.rows(estimator), *cells.columns(estimator)]
        estimates += cells.row_differences(estimator).values()
        estimates.append(cells.minus(make_cells(np.random.default_rng(1))).mean(estimator))
        assert {each.biased for each in estimates} == {estimator == "biased"}
        assert {np.isnan(each.p_value) for each in estimates} == {estimator == "biased"}
    assert cells.rows("debiased") == cells.rows("unbiased") and cells.mean("debiased") == cells.mean("unbiased")


def test_row_differences_are_paired_and_earlier_minus_later(cells):
    differences = cells.row_differences("unbiased")
    assert list(differences) == [(0, 1), (0, 2), (1, 2)]
    first, last = (cells.leave_one_out[0, i, [j for j in range(3) if j != i]].mean(axis=0) for i in (0, 2))
    rows = cells.rows("unbiased")
    assert differences[0, 2].value == pytest.approx(rows[0].value - rows[2].value)
    assert differences[0, 2].se == pytest.approx(jackknife_error(first - last))


def test_subtraction_is_paired_so_that_equal_cells_differ_by_0_without_error(cells):
    difference = cells.minus(cells).mean("unbiased")
    assert (difference.value, difference.se) == (0, 0)
    other = make_cells(np.random.default_rng(1))
    assert cells.minus(other).mean("biased").value == pytest.approx(
        cells.mean("biased").value - other.mean("biased").value
    )
