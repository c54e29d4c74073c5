"""The published matrices are those of the figure, and a run is compared with them cell by cell."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from netsim.errors import RunError, SettingsError
from netsim.results.matrices import ESTIMATORS
from netsim.results.published import compare, comparison_json, published_matrices
from support.results import make_results, with_cells, with_summary


@pytest.fixture
def published():
    return published_matrices("jones2022")


def run_with(published, natural, inverted, names=None):
    """Results of nine networks with these matrices; `names` puts them in another order."""
    made = make_results(9)
    order = [published.networks.index(name) for name in names or published.networks]
    names = tuple(published.networks[index] for index in order)
    summaries = {
        name: dataclasses.replace(old, name=name, reference=f"torchvision:{name}@default")
        for name, old in zip(names, made.summaries.values(), strict=True)
    }
    for kind, values in (("natural", natural), ("inverted", inverted)):
        cka = made.matrices[kind].cka.copy()
        cka[ESTIMATORS.index("biased")] = values[np.ix_(order, order)]
        made = with_cells(made, kind, cka=cka)
    return dataclasses.replace(
        made,
        networks=names,
        groups={name: name for name in names},
        summaries=summaries,
    )


def off_diagonal(cells: np.ndarray) -> np.ndarray:
    return cells[~np.eye(len(cells), dtype=bool)]


def test_the_published_matrices_have_the_means_the_author_gives(published):
    """0.67 natural is the author's number; every other fact was counted on the figure."""
    assert off_diagonal(published.natural).mean() == pytest.approx(0.67, abs=0.005)
    assert off_diagonal(published.inverted).mean() == pytest.approx(0.095, abs=0.0005)
    np.testing.assert_array_equal(published.natural, published.natural.T)
    for matrix in (published.natural, published.inverted):
        np.testing.assert_array_equal(np.diag(matrix), 1)
    assert (off_diagonal(published.inverted) < off_diagonal(published.natural)).all()


def test_a_run_of_the_published_values_differs_nowhere_whatever_its_order(published):
    comparison = compare(
        run_with(published, published.natural, published.inverted, published.networks[::-1]), published
    )
    for part in (comparison.natural, comparison.inverted):
        np.testing.assert_array_equal(part.difference, 0)
        assert part.pearson == pytest.approx(1) and part.spearman == pytest.approx(1)
        assert part.mean == part.published_mean


def test_differences_and_correlations_are_those_of_the_cells(published):
    rng = np.random.default_rng(0)
    inverted = published.inverted + rng.normal(0, 0.05, (9, 9))
    inverted[2, 3] = np.nan
    comparison = compare(run_with(published, published.natural, inverted), published).inverted
    keep = np.isfinite(off_diagonal(inverted))
    ours, theirs = off_diagonal(inverted)[keep], off_diagonal(published.inverted)[keep]
    assert comparison.pearson == pytest.approx(np.corrcoef(ours, theirs)[0, 1])
    assert comparison.spearman == pytest.approx(np.corrcoef(stats.rankdata(ours), stats.rankdata(theirs))[0, 1])
    assert comparison.mean - comparison.published_mean == pytest.approx((ours - theirs).mean())
    np.testing.assert_allclose(comparison.difference, inverted - published.inverted)


def test_cells_of_twins_are_not_compared(published):
    run = run_with(published, published.natural, published.inverted)
    first, second = run.networks[:2]
    twins = with_summary(run, first, weights_hash=run.summaries[second].weights_hash)
    natural, others = compare(twins, published).natural, off_diagonal(published.natural)
    assert natural.mean == pytest.approx((others.sum() - 2 * published.natural[0, 1]) / 70)
    assert natural.mean == natural.published_mean


def test_json_has_no_nan(published):
    inverted = published.inverted.copy()
    inverted[0, 1] = np.nan
    printed = comparison_json(compare(run_with(published, np.ones((9, 9)), inverted), published))
    assert json.loads(json.dumps(printed, allow_nan=False))["natural"]["pearson"] is None
    assert printed["inverted"]["difference"][0][1] is None


def test_networks_of_the_same_name_for_small_images_are_others(published):
    small = make_results(9)
    with pytest.raises(
        RunError,
        match=r"at least 3 of the networks of jones2022 \(densenet161, .*\), got 0. Rename networks by `name=reference",
    ):
        compare(small, published)


def test_an_unknown_name_is_refused():
    with pytest.raises(
        SettingsError, match="published matrices must be one of jones2022, got 'jones2021'; did you mean 'jones2022'"
    ):
        published_matrices("jones2021")
