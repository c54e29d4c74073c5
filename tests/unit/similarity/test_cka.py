"""CKA must equal its definition for two arrays and for any split into shards."""

import doctest
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from netsim.errors import DataError, SettingsError
from netsim.similarity.cka import linear_cka, pair_similarities, similarity, with_self
from netsim.similarity.hsic import ESTIMATORS, cka
from netsim.similarity.streaming import (
    pair_hsic,
)
from unit.similarity.definitions import (
    errors_of,
    related,
    shard_cka,
    slow_cka,
    split,
)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("n", "dx", "dy"), [(60, 12, 7), (20, 90, 30), (4, 3, 2), (30, 1, 40)])
def test_linear_cka_is_its_definition_with_few_rows_and_with_many(rng, n, dx, dy, estimator):
    X, Y = related(rng, n, dx, dy)
    assert linear_cka(X, Y, estimator) == pytest.approx(slow_cka(X, Y, estimator), abs=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dx", [12, 200])
def test_rotation_scale_and_shift_do_not_change_cka(rng, dx, estimator):
    X, Y = related(rng, 80, dx=dx)
    rotation = np.linalg.qr(rng.normal(size=(dx, dx)))[0]
    moved = 0.003 * X @ rotation + rng.normal(size=dx)
    assert linear_cka(moved, Y, estimator) == pytest.approx(linear_cka(X, Y, estimator), abs=1e-10)
    assert linear_cka(moved, X, estimator) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_cka_is_symmetric_and_does_not_depend_on_the_order_of_images(rng, estimator):
    X, Y = related(rng, 80)
    shuffled = rng.permutation(80)
    assert linear_cka(Y, X, estimator) == pytest.approx(linear_cka(X, Y, estimator), abs=1e-12)
    assert linear_cka(X[shuffled], Y[shuffled], estimator) == pytest.approx(linear_cka(X, Y, estimator), abs=1e-12)


@pytest.mark.parametrize("dx", [12, 200])
def test_a_large_mean_and_float32_do_not_change_cka(rng, dx):
    X, Y = related(rng, 80, dx=dx)
    far = (X + 1000).astype(np.float32)
    for estimator in ESTIMATORS:
        exact = slow_cka(far.astype(np.float64) - 1000, Y, estimator)
        assert linear_cka(far, Y, estimator) == pytest.approx(exact, abs=1e-10)
        shards = split(far, Y, (1, 39, 40))
        result = shard_cka(shards)
        assert {"biased": result.cka, "unbiased": result.cka_unbiased}[estimator] == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("size", [1e-38, 3e38])
def test_features_at_the_ends_of_float32_neither_overflow_nor_vanish(rng, size):
    X, Y = related(rng, 80)
    for estimator in ESTIMATORS:
        extreme = linear_cka(X / X.max() * size, Y / Y.max() * size, estimator)
        assert extreme == pytest.approx(linear_cka(X, Y, estimator), abs=1e-10)


def test_torch_tensors_of_any_float_type_give_what_arrays_give(rng):
    X, Y = related(rng, 60)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        tensor = torch.tensor(X, dtype=dtype, requires_grad=True)
        assert linear_cka(tensor, torch.tensor(Y)) == linear_cka(tensor.detach().double().numpy(), Y)


def test_the_example_of_linear_cka_is_true():
    (example,) = doctest.DocTestFinder(recurse=False).find(linear_cka, "linear_cka")
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=9)


@pytest.mark.parametrize("module", ["netsim.similarity.cka", "netsim.similarity.blocked", "netsim.similarity.measures"])
def test_importing_similarity_imports_no_heavy_library(module):
    code = f"import sys, {module}; print(*{{'torch', 'scipy', 'sklearn'}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


@pytest.mark.parametrize("sizes", [(60,), (30, 30), (1,) * 60, (1, 40, 2, 17), (57, 1, 1, 1)])
@pytest.mark.parametrize("offset", [0, 50])
def test_any_split_gives_the_value_of_the_whole(rng, space, sizes, offset):
    X, Y = related(rng, 60)
    for at in np.cumsum(sizes)[:-1:2]:  # representations that drift from shard to shard
        X[at:] += offset
        Y[at:] -= offset
    result = shard_cka(split(X, Y, sizes))
    assert result.cka == pytest.approx(slow_cka(X, Y, "biased"), abs=1e-10)
    assert result.cka_unbiased == pytest.approx(slow_cka(X, Y, "unbiased"), abs=1e-10)


@pytest.mark.parametrize("sizes", [(10, 10, 10, 10), (1,) * 8, (3, 1, 20)])
def test_leave_one_out_values_are_those_of_the_other_shards_alone(rng, space, sizes):
    X, Y = related(rng, sum(sizes))
    shards = split(X, Y, sizes)
    result = shard_cka(shards)
    for g in range(len(shards)):
        rest_x, rest_y = (np.concatenate(side) for side in zip(*(shards[:g] + shards[g + 1 :]), strict=True))
        assert result.leave_one_out[g] == pytest.approx(slow_cka(rest_x, rest_y, "biased"), abs=1e-10)
        assert result.leave_one_out_unbiased[g] == pytest.approx(slow_cka(rest_x, rest_y, "unbiased"), abs=1e-10)


def test_many_networks_at_once_are_each_pair_alone(rng):
    X, Y = related(rng, 60)
    Z = rng.normal(size=(60, 4)) + X[:, :4]
    shards = [{"a": X[at], "b": Y[at], "c": Z[at], "unused": None} for at in np.split(np.arange(60), 4)]
    pairs = [("a", "b"), ("c", "a"), ("a", "a")]
    result = similarity(shards, pairs)
    assert list(result) == pairs
    for x, y in pairs:
        alone = shard_cka([(shard[x], shard[y]) for shard in shards])
        assert result[x, y].cka == pytest.approx(alone.cka, abs=1e-12)
        assert errors_of(result[x, y]) == pytest.approx(errors_of(alone), abs=1e-12)
        assert result[x, y].floor == pytest.approx(alone.floor, abs=1e-12)
    assert result["a", "a"].cka == pytest.approx(1, abs=1e-12)
    assert errors_of(result["a", "a"])[0] == pytest.approx(0, abs=1e-12)


def test_sums_of_each_network_with_itself_come_before_the_pairs():
    assert with_self([("a", "b"), ("b", "b"), ("c", "a")]) == [
        ("a", "a"), ("b", "b"), ("c", "c"), ("a", "b"), ("c", "a"),
    ]  # fmt: skip


def test_sums_that_were_stored_give_the_similarity_of_the_shards(rng):
    X, Y = related(rng, 40)
    shards, pairs = split(X, Y, (10, 30)), [(0, 1), (1, 1)]
    stored, direct = pair_similarities(pair_hsic(shards, with_self(pairs)), pairs), similarity(shards, pairs)
    for pair in pairs:
        assert (stored[pair].cka, stored[pair].floor) == (direct[pair].cka, direct[pair].floor)
        np.testing.assert_array_equal(stored[pair].leave_one_out_unbiased, direct[pair].leave_one_out_unbiased)


def test_mean_of_batch_values_is_not_what_is_computed(rng):
    X, Y = related(rng, 400)
    shards = split(X, Y, (10,) * 40)
    batches = np.mean([linear_cka(*shard) for shard in shards])
    whole = linear_cka(X, Y)
    assert batches > whole + 0.15  # the trap: few rows look similar
    assert shard_cka(shards).cka == pytest.approx(whole, abs=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_representation_has_no_cka(rng, space, value):
    X, _ = related(rng, 40)
    constant = np.full((40, 5), value)
    result = shard_cka(split(X, constant, (10, 30)))
    assert np.isnan([result.cka, result.cka_unbiased, result.floor, *errors_of(result)]).all()
    assert result.undefined == result.undefined_unbiased == "1: constant: every image has the same representation"
    for estimator in ESTIMATORS:
        assert np.isnan(linear_cka(constant, X, estimator))
        assert np.isnan(linear_cka(np.full((40, 90), value), X, estimator))


def test_constant_once_the_only_lively_shard_is_left_out_is_nan_and_not_rounding_error(rng, space):
    for lively, balanced in itertools.product(range(4), [False, True] * 5):
        X, Y = related(rng, 40)
        constant, own_shard = rng.normal(size=7), np.arange(40) // 10 == lively
        if balanced:  # the other rows are then almost at the shard's mean: little but rounding errors is left of them
            Y[own_shard] = constant + 1e-5 + np.concatenate([Y[:5], -Y[:5]])
        Y[~own_shard] = constant
        result = shard_cka(split(X, Y, (10,) * 4))
        assert np.flatnonzero(np.isnan(result.leave_one_out)).tolist() == [lively]
        assert np.flatnonzero(np.isnan(result.leave_one_out_unbiased)).tolist() == [lively]


def test_an_error_that_is_undefined_names_the_shard_and_the_network(rng, space):
    X, Y = related(rng, 40)
    Y[10:] = Y[10]
    result = shard_cka(split(X, Y, (10,) * 4))
    reason = "no standard error: without shard 0, 1: constant: every image has the same representation"
    assert np.isfinite(result.cka) and result.undefined == ""
    assert result.undefined_error == result.undefined_error_unbiased == result.reason == reason
    Y[10] += 1  # a single image differs from the others in what is left
    result = shard_cka(split(X, Y, (10,) * 4))
    assert result.undefined_error == "" and np.isfinite(result.leave_one_out).all()
    assert result.reason_unbiased.startswith("no standard error: without shard 0, 1: the unbiased H(X, X) is not")


@pytest.mark.filterwarnings("error")  # the root of a rounding error below 0 would be NaN by luck
def test_a_single_row_that_differs_has_biased_cka_only(rng):
    for row in range(40):
        X, Y = related(rng, 40)
        Y[:] = 0
        Y[row] = rng.normal(size=7)
        assert 0 < linear_cka(X, Y, "biased") < 1
        assert np.isnan(linear_cka(X, Y, "unbiased"))
        result = shard_cka([(X, Y)])
        assert result.undefined == "" and "1: the unbiased H(X, X) is not positive" in result.undefined_unbiased


def test_one_shard_has_a_value_and_no_error(rng):
    result = shard_cka([related(rng, 20)])
    assert np.isfinite(result.cka_unbiased)
    assert np.isnan(errors_of(result)).all()


def test_no_pairs_are_no_work():
    assert similarity([], []) == {}


@pytest.mark.parametrize("rows", [0, 3])
def test_too_few_rows_are_refused_with_the_number(rng, rows):
    X, Y = related(rng, rows) if rows else (np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(DataError, match=rf"^CKA requires at least 4 rows, got {rows} in X and Y\. Use more images\.$"):
        linear_cka(X, Y)
    with pytest.raises(DataError, match=rf"^CKA requires at least 4 rows, got {rows} across all shards\. Use more"):
        shard_cka([(X, Y)] if rows else [])


def test_row_counts_that_differ_are_refused_with_both(rng):
    X, Y = related(rng, 10)
    with pytest.raises(
        DataError, match=r"^row counts must be equal, got X 10, Y 9\. Give every network the same images"
    ):
        linear_cka(X, Y[:9])
    with pytest.raises(DataError, match=r"^row counts must be equal in shard 1, got 0 10, 1 9\."):
        shard_cka([(X, Y), (X, Y[:9])])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(rng, value):
    X, Y = related(rng, 10)
    bad = Y.copy()
    bad[[4, 6], 1] = value
    with pytest.raises(
        DataError, match=r"^Y must be finite, got NaN or infinity in 2 of 10 rows, first in row 4\. Check"
    ):
        linear_cka(X, bad)
    with pytest.raises(DataError, match=r"^'vgg' in shard 1 must be finite, got NaN or infinity in 2 of 10 rows"):
        similarity([{"a": X, "vgg": Y}, {"a": X, "vgg": bad}], [("a", "vgg")])


def test_other_unusable_input_is_refused(rng):
    X, Y = related(rng, 10)
    with pytest.raises(DataError, match=r"^X must have shape \(n, d\), got \(10, 12, 1\)\. Flatten"):
        linear_cka(X[..., None], Y)
    with pytest.raises(DataError, match=r"^'a' must have 12 features as in shard 0, got 7 in shard 1\."):
        similarity([{"a": X}, {"a": Y}], [("a", "a")])
    with pytest.raises(DataError, match=r"^shards must be a sequence, .*, got generator\. Pass a list of functions\.$"):
        shard_cka(shard for shard in [(X, Y)])
    with pytest.raises(SettingsError, match=r"^unknown estimator 'unbaised'; did you mean 'unbiased'\?$"):
        linear_cka(X, Y, "unbaised")
    with pytest.raises(SettingsError, match=r"^unknown estimator 'debaised'; did you mean 'debiased'\?$"):
        linear_cka(X, Y, "debaised")
    with pytest.raises(SettingsError, match=r"^unknown estimator 'de-biased'; did you mean 'debiased'\?$"):
        linear_cka(X, Y, "de-biased")


def test_debiased_is_another_name_of_unbiased_wherever_an_estimator_is_named(rng):
    X, Y = related(rng, 40)
    assert linear_cka(X, Y, "debiased") == linear_cka(X, Y, "unbiased") != linear_cka(X, Y, "biased")
    sums, pair = pair_hsic([[X, Y]], with_self([(0, 1)])), (0, 1)
    for method in ("value", "self_value", "why_undefined"):
        np.testing.assert_array_equal(getattr(sums[0, 0], method)("debiased"), getattr(sums[0, 0], method)("unbiased"))
    parts = sums[pair], sums[0, 0], sums[1, 1]
    np.testing.assert_array_equal(cka(*parts, "debiased"), cka(*parts, "unbiased"))
