"""CKA by sums must be CKA by its definition, whatever the split; the definition is written out slowly below."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from netsim.errors import DataError, SettingsError
from netsim.similarity import streaming
from netsim.similarity.cka import linear_cka, similarity
from netsim.similarity.hsic import ESTIMATORS, cka, null_floor, participation_ratio
from netsim.similarity.streaming import cheaper_space, pair_hsic
from netsim.similarity.uncertainty import jackknife, jackknife_se

SPACES = ("gram", "feature")


# The slow twins: definitions, with n x n matrices and loops ----------------------------------------------------------


def hsic_biased(K, L):
    """tr(K H L H), Kornblith et al. 2019 eq. 3 without the factor, which cancels."""
    n = len(K)
    H = np.eye(n) - np.ones((n, n)) / n
    return np.trace(K @ H @ L @ H)


def hsic_unbiased(K, L):
    """Song et al. 2012, eq. 5: explicit zero diagonals."""
    n, one = len(K), np.ones(len(K))
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    total = (
        np.trace(K @ L) + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ K @ L @ one)
    )
    return total / (n * (n - 3))


def slow_cka(X, Y, estimator):
    hsic = {"biased": hsic_biased, "unbiased": hsic_unbiased}[estimator]
    K, L = X @ X.T, Y @ Y.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


# Data ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def related(rng, n, dx=12, dy=7):
    """Two representations that share half of what they say, skewed and heavy-tailed as ReLU features are."""
    shared = rng.normal(size=(n, 5))
    X = np.maximum(shared @ rng.normal(size=(5, dx)) + rng.normal(size=(n, dx)), 0)
    Y = np.maximum(shared @ rng.normal(size=(5, dy)) + 2 * rng.normal(size=(n, dy)), 0)
    return X, Y


def split(X, Y, sizes):
    assert sum(sizes) == len(X)
    stops = np.cumsum(sizes)
    return [(X[stop - size : stop], Y[stop - size : stop]) for size, stop in zip(sizes, stops, strict=True)]


def shard_cka(shards):
    return similarity(shards, [(0, 1)])[0, 1]


def errors_of(found):
    return [float(jackknife_se(replicates)) for replicates in (found.leave_one_out, found.leave_one_out_unbiased)]


def own(X):
    return pair_hsic([[X]], [(0, 0)])[0, 0]


@pytest.fixture(params=SPACES)
def space(request, monkeypatch):
    """Both ways to the same sums, whichever would be cheaper."""
    monkeypatch.setattr(streaming, "cheaper_space", lambda *_: request.param)
    return request.param


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of few rows and Gram blocks of few columns, so that small data crosses their edges."""
    monkeypatch.setattr(streaming, "BLOCK_ROWS", 7)
    monkeypatch.setattr(streaming, "COLUMNS", 3)


# In memory -----------------------------------------------------------------------------------------------------------


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
        found = shard_cka(shards)
        assert {"biased": found.cka, "unbiased": found.cka_unbiased}[estimator] == pytest.approx(exact, abs=1e-10)


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


def test_unrelated_rows_have_unbiased_cka_zero_and_biased_cka_at_the_floor(rng):
    found, floors = [], []
    for _ in range(60):
        X = rng.normal(size=(120, 60))
        Y = rng.normal(size=(120, 40)) * np.arange(1, 41) ** -0.5
        found.append([linear_cka(X, Y, estimator) for estimator in ESTIMATORS])
        floors.append(null_floor(own(X), own(Y))[0])
    biased, unbiased = np.mean(found, axis=0)
    assert np.std(floors) < 0.01
    assert biased == pytest.approx(np.mean(floors), abs=0.004)
    assert biased > 0.15
    assert unbiased == pytest.approx(0, abs=0.004)
    assert min(u for _, u in found) < 0  # never clamped


def test_floor_is_the_mean_over_all_permutations_of_the_rows(rng):
    X, Y = related(rng, 6)
    everything = [linear_cka(X, Y[list(order)]) for order in itertools.permutations(range(6))]
    assert null_floor(own(X), own(Y))[0] == pytest.approx(np.mean(everything), abs=1e-12)


def test_floor_is_the_formula_with_the_participation_ratios_of_the_population(rng):
    n, d = 500, 300
    variances = np.arange(1, d + 1) ** -0.4
    r = variances.sum() ** 2 / np.square(variances).sum()
    X, Y = (rng.normal(size=(n, d)) * np.sqrt(variances) for _ in range(2))
    assert null_floor(own(X), own(Y))[0] == pytest.approx(r / (n + r), rel=0.02)
    assert participation_ratio(own(X))[0] == pytest.approx(n * r / (n + r), rel=0.02)


def test_participation_ratio_counts_directions():
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=5)))
    assert participation_ratio(own(corners))[0] == pytest.approx(5)
    assert participation_ratio(own(np.arange(10.0)[:, None] * np.ones(3)))[0] == pytest.approx(1)


# Over shards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(60,), (30, 30), (1,) * 60, (1, 40, 2, 17), (57, 1, 1, 1)])
@pytest.mark.parametrize("offset", [0, 50])
def test_any_split_gives_the_value_of_the_whole(rng, space, sizes, offset):
    X, Y = related(rng, 60)
    for at in np.cumsum(sizes)[:-1:2]:  # representations that drift from shard to shard
        X[at:] += offset
        Y[at:] -= offset
    found = shard_cka(split(X, Y, sizes))
    assert found.cka == pytest.approx(slow_cka(X, Y, "biased"), abs=1e-10)
    assert found.cka_unbiased == pytest.approx(slow_cka(X, Y, "unbiased"), abs=1e-10)


@pytest.mark.parametrize("sizes", [(10, 10, 10, 10), (1,) * 8, (3, 1, 20)])
def test_left_out_values_are_those_of_the_other_shards_alone(rng, space, sizes):
    X, Y = related(rng, sum(sizes))
    shards = split(X, Y, sizes)
    found = shard_cka(shards)
    for g in range(len(shards)):
        rest_x, rest_y = (np.concatenate(side) for side in zip(*(shards[:g] + shards[g + 1 :]), strict=True))
        assert found.leave_one_out[g] == pytest.approx(slow_cka(rest_x, rest_y, "biased"), abs=1e-10)
        assert found.leave_one_out_unbiased[g] == pytest.approx(slow_cka(rest_x, rest_y, "unbiased"), abs=1e-10)


@pytest.mark.parametrize("offset", [0, 1e3])
@pytest.mark.parametrize(("dx", "dy"), [(12, 7), (45, 30), (90, 60)])
def test_gram_and_feature_space_agree_with_the_definition_below_and_above_as_many_rows_as_features(
    rng, space, small_blocks, dx, dy, offset
):
    """59 rows of uneven, drifting shards: fewer than dx + dy, about as many, more. One shard is empty."""
    X, Y = related(rng, 59, dx, dy)
    shards = split(X + offset, Y - offset, (20, 1, 9, 0, 4, 25))
    for at in (20, 30):
        X[at:] += offset / 3
    found = shard_cka(shards)
    for estimator, value, left_out in (
        ("biased", found.cka, found.leave_one_out),
        ("unbiased", found.cka_unbiased, found.leave_one_out_unbiased),
    ):
        assert value == pytest.approx(slow_cka(shards_of(shards, 0), shards_of(shards, 1), estimator), abs=1e-9)
        for g in range(6):
            rest = shards[:g] + shards[g + 1 :]
            exact = slow_cka(shards_of(rest, 0), shards_of(rest, 1), estimator)
            assert left_out[g] == pytest.approx(exact, abs=1e-9)


def shards_of(shards, side):
    rows = np.concatenate([shard[side] for shard in shards])
    return rows - rows.mean(axis=0)  # the definitions are written for matrices that offsets have not drowned


def test_gram_and_feature_space_give_the_same_to_1e_10(rng):
    shards = [{"a": rng.normal(size=(n, 40)), "b": rng.normal(size=(n, 25)) ** 3} for n in (30, 8, 41)]
    pairs = [("a", "a"), ("a", "b"), ("b", "b")]
    gram, feature = (pair_hsic(shards, pairs, space=space) for space in SPACES)
    for pair in pairs:
        for name in ("n", "square", "q", "tx", "ty"):
            np.testing.assert_allclose(getattr(gram[pair], name), getattr(feature[pair], name), rtol=1e-10)


def test_the_cheaper_space_is_gram_for_few_rows_and_for_many_partners():
    assert cheaper_space(250, {"a": 100, "b": 60}, [("a", "a"), ("a", "b"), ("b", "b")]) == "gram"
    assert cheaper_space(450, {"a": 100, "b": 60}, [("a", "a"), ("a", "b"), ("b", "b")]) == "feature"
    nine = dict(enumerate((2208, 1280, 2048, 512, 2048, 1024, 4096, 2048, 2048)))
    all_pairs = [(x, y) for x in nine for y in nine if x <= y]
    assert cheaper_space(10_000, nine, [(0, 0), (0, 1), (1, 1)]) == "feature"
    assert cheaper_space(10_000, nine, all_pairs) == "gram"
    assert cheaper_space(50_000, nine, all_pairs) == "feature"


def test_many_networks_at_once_are_each_pair_alone(rng):
    X, Y = related(rng, 60)
    Z = rng.normal(size=(60, 4)) + X[:, :4]
    shards = [{"a": X[at], "b": Y[at], "c": Z[at], "unused": None} for at in np.split(np.arange(60), 4)]
    pairs = [("a", "b"), ("c", "a"), ("a", "a")]
    found = similarity(shards, pairs)
    assert list(found) == pairs
    for x, y in pairs:
        alone = shard_cka([(shard[x], shard[y]) for shard in shards])
        assert found[x, y].cka == pytest.approx(alone.cka, abs=1e-12)
        assert errors_of(found[x, y]) == pytest.approx(errors_of(alone), abs=1e-12)
        assert found[x, y].floor == pytest.approx(alone.floor, abs=1e-12)
    assert found["a", "a"].cka == pytest.approx(1, abs=1e-12)
    assert errors_of(found["a", "a"])[0] == pytest.approx(0, abs=1e-12)


def test_shards_are_read_when_needed_and_give_the_same_bits(rng, space, small_blocks):
    X, Y = related(rng, 40)
    reads = []

    def reader(index, shard):
        def read():
            reads.append(index)
            return dict(zip("xy", shard, strict=True))

        return read

    shards = split(X, Y, (10,) * 4)
    late = similarity([reader(i, shard) for i, shard in enumerate(shards)], [("x", "y")])["x", "y"]
    once = [0, 1, 2, 3]
    assert reads == (once * 3 if space == "feature" else [*once, *once, 1, 2, 3, 2, 3, 3])
    early = shard_cka(shards)
    assert (late.cka, late.cka_unbiased, late.floor) == (early.cka, early.cka_unbiased, early.floor)
    assert errors_of(late) == errors_of(early)


def test_mean_of_batch_values_is_not_what_is_computed(rng):
    X, Y = related(rng, 400)
    shards = split(X, Y, (10,) * 40)
    batches = np.mean([linear_cka(*shard) for shard in shards])
    whole = linear_cka(X, Y)
    assert batches > whole + 0.15  # the trap: few rows look similar
    assert shard_cka(shards).cka == pytest.approx(whole, abs=1e-10)


# Errors of the value -------------------------------------------------------------------------------------------------


def test_jackknife_is_efrons_formula_and_of_a_mean_it_is_the_usual_standard_error(rng):
    values = rng.normal(size=25)
    left_out = np.array([np.delete(values, g).mean() for g in range(25)])
    assert jackknife_se(left_out) == pytest.approx(values.std(ddof=1) / np.sqrt(25))
    stacked = jackknife_se(np.stack([left_out, 2 * left_out], axis=1))
    np.testing.assert_allclose(stacked, [jackknife_se(left_out), 2 * jackknife_se(left_out)])
    assert np.isnan(jackknife_se(left_out[:1]))


def test_of_a_mean_the_interval_and_p_are_students(rng):
    """The jackknife of a mean is exact, so scipy's t interval and t test of the same numbers are the twins."""
    values = rng.normal(0.3, size=12)
    found = jackknife(values.mean(), np.array([np.delete(values, g).mean() for g in range(12)]))
    assert found.interval == pytest.approx(stats.t.interval(0.95, 11, values.mean(), stats.sem(values)))
    assert found.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert np.isnan(jackknife(1.0, np.array([1.0])).interval).all()
    assert np.isnan(jackknife(1.0, np.ones(4)).p_value)


def test_jackknife_intervals_cover_the_population_value(rng):
    """t-interval with 19 degrees of freedom: 95 % nominal; 100 sets of 500 images in 20 shards."""
    A, B = rng.normal(size=(4, 8)), rng.normal(size=(4, 6))
    sxx, syy, sxy = A.T @ A + 2 * np.eye(8), B.T @ B + 2 * np.eye(6), A.T @ B
    truth = np.square(sxy).sum() / np.sqrt(np.square(sxx).sum() * np.square(syy).sum())
    covered, values, errors = 0, [], []
    for _ in range(100):
        shared = rng.normal(size=(500, 4))
        X = shared @ A + np.sqrt(2) * rng.normal(size=(500, 8))
        Y = shared @ B + np.sqrt(2) * rng.normal(size=(500, 6))
        found = shard_cka(split(X, Y, (25,) * 20))
        values.append(found.cka_unbiased)
        errors.append(errors_of(found)[1])
        covered += abs(found.cka_unbiased - truth) < 2.093 * errors[-1]
    assert 88 <= covered <= 100
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)


# What cannot be answered ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_representation_has_no_cka(rng, space, value):
    X, _ = related(rng, 40)
    constant = np.full((40, 5), value)
    found = shard_cka(split(X, constant, (10, 30)))
    assert np.isnan([found.cka, found.cka_unbiased, found.floor, *errors_of(found)]).all()
    assert found.undefined == found.undefined_unbiased == "1: constant: every image has the same representation"
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
        found = shard_cka(split(X, Y, (10,) * 4))
        assert np.flatnonzero(np.isnan(found.leave_one_out)).tolist() == [lively]
        assert np.flatnonzero(np.isnan(found.leave_one_out_unbiased)).tolist() == [lively]


@pytest.mark.filterwarnings("error")  # the root of a rounding error below 0 would be NaN by luck
def test_a_single_row_that_differs_has_biased_cka_only(rng):
    for row in range(40):
        X, Y = related(rng, 40)
        Y[:] = 0
        Y[row] = rng.normal(size=7)
        assert 0 < linear_cka(X, Y, "biased") < 1
        assert np.isnan(linear_cka(X, Y, "unbiased"))
        found = shard_cka([(X, Y)])
        assert found.undefined == "" and "1: the unbiased H(X, X) is not positive" in found.undefined_unbiased


def test_one_shard_has_a_value_and_no_error(rng):
    found = shard_cka([related(rng, 20)])
    assert np.isfinite(found.cka_unbiased)
    assert np.isnan(errors_of(found)).all()


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


def test_sums_over_different_rows_are_not_combined(rng):
    X, _ = related(rng, 10)
    with pytest.raises(AssertionError, match="different rows"):
        cka(own(X), own(X), own(X[:9]))
