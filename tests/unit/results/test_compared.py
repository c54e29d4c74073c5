"""Two sweeps are compared pair by pair where their pairs are the same, and as independent samples elsewhere."""

import shutil
from math import hypot

import numpy as np
import pytest

from netsim.errors import RunError, StoreError
from netsim.results.compared import compare_sweeps
from netsim.results.matrices import matrices
from netsim.results.results import load_results
from netsim.statistics.mantel import split_half_reliability
from netsim.statistics.multiple import holm
from netsim.store.run import Run
from netsim.store.views import view
from support.sweeps import TINY, new_run, run_all, tiny


@pytest.fixture(scope="module")
def longer(tmp_path_factory) -> Run:
    """The tiny sweep with one iteration more."""
    url = tmp_path_factory.mktemp("longer") / "run"
    run = new_run(str(url), tiny(inversion=TINY["inversion"] | {"iterations": 6}), label="longer")
    run_all(run)
    return run


@pytest.fixture(scope="module")
def reseeded(tmp_path_factory) -> Run:
    """The tiny sweep with other seeds for the same targets."""
    url = tmp_path_factory.mktemp("reseeded") / "run"
    run = new_run(str(url), tiny(pairs=TINY["pairs"] | {"seed_draw": 1}), label="reseeded")
    run_all(run)
    return run


def jackknife_error(replicates: np.ndarray) -> float:
    """Compute the standard error by its definition."""
    count = len(replicates)
    return float(np.sqrt((count - 1) / count * ((replicates - replicates.mean()) ** 2).sum()))


def test_a_sweep_does_not_differ_from_itself(finished):
    compared = compare_sweeps(finished, finished)
    assert compared.unpaired == "" and compared.other_weights == () and compared.n == (32, 32)
    for difference in compared.means.values():
        assert (difference.difference.value, difference.difference.se) == (0, 0)
        assert difference.first == difference.second
    assert compared.means["natural"].first == load_results(finished).means["natural", "unbiased"]


def test_differences_of_the_same_pairs_are_paired_by_shard(finished, longer):
    compared, off = compare_sweeps(finished, longer), ~np.eye(3, dtype=bool)
    one, other = (matrices(run)["inverted"] for run in (finished, longer))
    values = other.cka[0][off].mean() - one.cka[0][off].mean()
    replicates = other.leave_one_out[0][off].mean(axis=0) - one.leave_one_out[0][off].mean(axis=0)
    difference = compared.means["inverted"].difference
    assert compared.unpaired == "" and difference.df == 3
    assert compared.settings == {"inversion.iterations": (5, 6)} and not compared.other_seeds and not compared.seeds
    assert difference.value == pytest.approx(values) and difference.value != 0
    assert difference.se == pytest.approx(jackknife_error(replicates))
    cell = other.leave_one_out[0][0, 1] - one.leave_one_out[0][0, 1]
    assert compared.cells["inverted"][0, 1] == pytest.approx(other.cka[0][0, 1] - one.cka[0][0, 1])
    assert compared.errors["inverted"][0, 1] == pytest.approx(jackknife_error(cell))
    assert compared.cells["natural"] == pytest.approx(np.zeros((3, 3)))


def test_a_run_of_fewer_iterations_is_the_beginning_of_a_longer_one(finished, longer):
    """So a store of half the iterations has what another had halfway."""
    for name in finished.sweep.names:
        short, long = (run.array(f"inverted/{name}/history")[:] for run in (finished, longer))
        np.testing.assert_array_equal(short, long[:, : short.shape[1]])
        assert (short.shape[1], long.shape[1]) == (6, 7)


def test_p_values_of_means_and_rows_are_adjusted_together(finished, longer):
    compared = compare_sweeps(finished, longer)
    tests = [*compared.means.values(), *(row for rows in compared.rows.values() for row in rows.values())]
    expected = holm([each.difference.p_value for each in tests])
    printed = compared.to_json()
    rows = [row for rows in printed["rows"].values() for row in rows.values()]
    adjusted = [each["difference"]["p_value_holm"] for each in (*printed["means"].values(), *rows)]
    assert adjusted == [None if np.isnan(p) else p for p in expected]
    assert any(p is not None and p > each.difference.p_value for p, each in zip(adjusted, tests, strict=True))


def test_rows_are_those_of_the_results(finished, longer):
    compared, results = compare_sweeps(finished, longer), load_results(longer)
    for name in results.networks:
        row = compared.rows["inverted"][name]
        assert row.second == results.rows["inverted", "unbiased"][name]
        assert row.difference.value == pytest.approx(row.second.value - row.first.value)


def test_other_pairs_are_independent_samples(finished, tmp_path):
    other = new_run(str(tmp_path / "run"), tiny(pairs={"count": 32, "shard_size": 8, "rng_seed": 1}))
    run_all(other)
    compared = compare_sweeps(finished, other)
    assert compared.unpaired == "the pairs are drawn or cut otherwise (pairs.rng_seed)" and not compared.seeds
    mean = compared.means["natural"]
    assert mean.difference.se == pytest.approx(hypot(mean.first.se, mean.second.se)) and mean.difference.se > 0


def test_other_seeds_for_the_same_targets_are_paired_by_target(finished, reseeded):
    compared = compare_sweeps(finished, reseeded)
    assert compared.unpaired == "" and compared.other_seeds and compared.settings == {"pairs.seed_draw": (0, 1)}
    natural, inverted = (compared.means[kind].difference for kind in ("natural", "inverted"))
    assert (natural.value, natural.se) == (0, 0) and (compared.cells["natural"] == 0).all()
    sides = compared.means["inverted"].first, compared.means["inverted"].second
    assert inverted.value != 0 and inverted.se < hypot(*(side.se for side in sides))


def test_errors_of_inverted_means_are_divided_into_targets_and_seeds(finished, reseeded):
    compared = compare_sweeps(finished, reseeded)
    tests = {"": compared.means["inverted"]} | dict(compared.rows["inverted"])
    assert list(compared.seeds) == list(tests)
    for name, parts in compared.seeds.items():
        each = tests[name]
        both = (each.first.se**2 + each.second.se**2) / 2
        assert parts.seeds**2 == pytest.approx(each.difference.se**2 / 2, abs=1e-9)
        assert parts.icc == pytest.approx(1 - each.difference.se**2 / 2 / both, abs=1e-9)
    printed = compared.to_json()["seeds"]
    assert printed["mean"]["icc"] == compared.seeds[""].icc and set(printed["rows"]) == set(compared.networks)


def test_errors_are_not_divided_where_more_than_seeds_differ(reseeded, longer, finished, tmp_path):
    compared = compare_sweeps(longer, reseeded)
    assert compared.other_seeds and not compared.seeds and compared.to_json()["seeds"] is None
    shutil.copytree(reseeded.url, tmp_path / "run")
    swapped = [reference.replace("vgg", "vgg@none") for reference in TINY["networks"][:1]] + TINY["networks"][1:]
    settings = tiny(networks=[f"other={swapped[0]}", *swapped[1:]], pairs=TINY["pairs"] | {"seed_draw": 1})
    other = new_run(str(tmp_path / "run"), settings, label="other weights")
    run_all(other)
    renamed = tiny(networks=[f"vgg={swapped[0]}", *swapped[1:]], pairs=TINY["pairs"] | {"seed_draw": 1})
    compared = compare_sweeps(finished, new_run(str(tmp_path / "run"), renamed, label="renamed"))
    assert compared.other_weights == ("vgg",) and compared.other_seeds and not compared.seeds


def test_a_longer_sweep_is_compared_on_the_pairs_that_both_have(finished, tmp_path):
    shutil.copytree(finished.url, tmp_path / "run")
    grown = new_run(str(tmp_path / "run"), tiny(pairs={"count": 48, "shard_size": 8}), label="grown")
    run_all(grown)
    compared = compare_sweeps(grown, finished)
    assert compared.unpaired == "" and compared.n == (32, 32) and compared.means["inverted"].difference.se == 0
    alone = new_run(str(tmp_path / "alone"), tiny(pairs={"count": 48, "shard_size": 8}))
    run_all(alone)
    assert compare_sweeps(alone, finished).unpaired == "one has 48 pairs and the other 32"


def test_networks_that_both_have_are_compared(finished):
    pair = compare_sweeps(view(finished, ["resnet18", "vgg"]), finished)
    assert pair.networks == ("resnet18", "vgg") and pair.cells["natural"].shape == (2, 2)
    with pytest.raises(RunError, match="two sweeps must have at least 2 networks in common, got 1"):
        compare_sweeps(view(finished, ["resnet18", "vgg"]), view(finished, ["vgg", "shufflenet"]))


def test_an_unfinished_sweep_is_refused(finished, tmp_path):
    with pytest.raises(StoreError, match="is not finished"):
        compare_sweeps(finished, new_run(str(tmp_path / "run"), tiny()))


def test_matrices_are_correlated_over_the_cells_of_different_networks(finished, longer):
    compared = compare_sweeps(finished, longer)
    off = ~np.eye(3, dtype=bool)
    first, second = (matrices(run)["inverted"].cka[0] for run in (finished, longer))
    assert compared.agreement["inverted"].r == pytest.approx(np.corrcoef(first[off], second[off])[0, 1], abs=1e-12)
    assert np.isnan(compared.agreement["inverted"].p_value)  # three networks have six orders
    assert compare_sweeps(finished, finished).agreement["natural"].r == pytest.approx(1)
    left_out = matrices(finished)["inverted"].leave_one_out[0]
    assert compared.reliability["inverted"][0] == split_half_reliability(first, left_out, off)
    assert compared.to_json()["agreement"]["inverted"]["p_value"] is None


def test_json_has_plain_values_only(finished, longer):
    printed = compare_sweeps(finished, longer).to_json()
    assert list(printed) == [
        "networks", "n", "unpaired", "settings", "other_weights", "means", "rows", "cells", "errors", "agreement",
        "seeds",
    ]  # fmt: skip
    assert set(printed["means"]["natural"]) == {"first", "second", "difference"}
    assert len(printed["cells"]["inverted"]) == 3
