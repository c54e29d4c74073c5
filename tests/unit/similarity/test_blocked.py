"""The U-statistic of blocks must equal its definition, and the exact value for one block, for any kernel."""

import itertools

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel as sklearn_rbf

from netsim.errors import DataError, SettingsError
from netsim.similarity.blocked import (
    blocked_similarity,
    cka_of_blocks,
    hsic_unbiased,
    linear_kernel,
    magnitude,
    rbf_kernel,
    row_distances,
)
from netsim.similarity.cka import linear_cka
from unit.similarity.definitions import hsic_unbiased as song
from unit.similarity.definitions import related


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def blocks_of(X, Y, size):
    return [{"x": X[i : i + size], "y": Y[i : i + size]} for i in range(0, len(X), size)]


def test_hsic_of_every_two_gram_matrices_is_the_definition(rng):
    grams = np.stack([A @ A.T for A in (rng.normal(size=(9, d)) + 1 for d in (3, 5, 2))])
    result = hsic_unbiased(grams)
    for i in range(3):
        for j in range(3):
            assert result[i, j] == pytest.approx(song(grams[i], grams[j]), rel=1e-10)


@pytest.mark.parametrize("offset", [0, 1e3])
def test_one_block_is_exact_unbiased_cka(rng, offset):
    X, Y = related(rng, 50)
    result = blocked_similarity([{"x": X + offset, "y": Y - offset}], [("x", "y"), ("x", "x")])
    assert result["x", "y"].cka == pytest.approx(linear_cka(X, Y, "unbiased"), abs=1e-9)
    assert result["x", "x"].cka == pytest.approx(1)
    assert np.isnan(result["x", "y"].leave_one_out).all()


def test_numerators_and_denominators_are_averaged_apart_by_rows_and_left_out_in_turn(rng):
    X, Y = related(rng, 60)
    shards = [{"x": X[at], "y": Y[at]} for at in (slice(0, 30), slice(30, 50), slice(50, 60))]
    result = blocked_similarity(shards, [("x", "y")])["x", "y"]

    def by_hand(shards):
        sums = np.zeros(3)
        for shard in shards:
            K, L = (shard[key] @ shard[key].T for key in "xy")
            sums += len(K) * np.array([song(K, L), song(K, K), song(L, L)])
        return sums[0] / np.sqrt(sums[1] * sums[2])

    assert result.cka == pytest.approx(by_hand(shards), rel=1e-9)
    replicates = [by_hand(shards[:g] + shards[g + 1 :]) for g in range(3)]
    np.testing.assert_allclose(result.leave_one_out, replicates, rtol=1e-9)


@pytest.mark.parametrize("size", [1e4, 1e5, 1e8])
def test_one_image_of_any_size_leaves_the_values_without_its_block_exact(rng, size):
    X, Y = related(rng, 60)
    exact = blocked_similarity(blocks_of(X[20:], Y[20:], 20), [("x", "y")])["x", "y"].cka
    X[7] = size * rng.normal(size=12)
    result = blocked_similarity(blocks_of(X, Y, 20), [("x", "y")])["x", "y"]
    assert result.leave_one_out[0] == pytest.approx(exact, rel=1e-12)


def test_rbf_gram_matrix_is_scikit_learns(rng):
    X, _ = related(rng, 30)
    distances = np.linalg.norm(X[:, None] - X[None], axis=2)[np.triu_indices(30, k=1)]
    gamma = 1 / (2 * (0.7 * np.median(distances)) ** 2)
    np.testing.assert_allclose(
        rbf_kernel(0.7 * np.median(row_distances(X)))(X), sklearn_rbf(X, gamma=gamma), rtol=1e-10
    )


def rbf_cka_of_blocks(shards, bandwidth):
    """Compute RBF CKA of x and y with sigma `bandwidth` times the median distance of rows of one shard, by a loop."""
    kernels = []
    for key in "xy":
        apart = [np.linalg.norm(a - b) for shard in shards for a, b in itertools.combinations(shard[key], 2)]
        kernels.append(rbf_kernel(bandwidth * np.median(apart)))
    grams = [np.stack([kernel(shard[key]) for kernel, key in zip(kernels, "xy", strict=True)]) for shard in shards]
    hsic, magnitudes = (np.stack([of(gram) for gram in grams]) for of in (hsic_unbiased, magnitude))
    return cka_of_blocks(hsic, magnitudes, np.array([len(shard["x"]) for shard in shards]))[0][0, 1]


def test_rbf_cka_has_the_median_distance_of_all_shards_as_its_bandwidth_in_any_order(rng):
    X, Y = related(rng, 120)
    X[:40] *= 5  # the first shard is spread more widely than the others
    shards = blocks_of(X, Y, 40)
    result = blocked_similarity(shards, [("x", "y")], kernel="rbf")["x", "y"]
    assert result.cka == pytest.approx(rbf_cka_of_blocks(shards, 1), rel=1e-12)
    backwards = blocked_similarity(iter(shards[::-1]), [("x", "y")], kernel="rbf")["x", "y"]
    assert backwards.cka == pytest.approx(result.cka, rel=1e-12)
    np.testing.assert_allclose(backwards.leave_one_out[::-1], result.leave_one_out, rtol=1e-12)


def test_rbf_cka_of_a_side_with_equal_images_has_a_value_or_a_reason(rng):
    """Equal images of one shard, more than half of its distances, do not matter; those of all shards leave no sigma."""
    X, Y = related(rng, 120)
    X[:32] = X[0]
    first = blocked_similarity(blocks_of(X, Y, 40), [("x", "y")], kernel="rbf")["x", "y"]
    assert np.isfinite(first.cka) and first.undefined == ""
    one_hot = np.tile(np.eye(120)[0], (120, 1))
    one_hot[::9] = np.eye(120)[1]
    result = blocked_similarity(blocks_of(one_hot, Y, 40), [("x", "y"), ("y", "x")], kernel="rbf")
    reason = "x: the median distance of two images of a shard is 0, so the kernel has no bandwidth: most are equal"
    assert [np.isnan(each.cka) and each.undefined for each in result.values()] == [reason, reason]
    assert blocked_similarity(blocks_of(one_hot, Y, 40), [("x", "y")])["x", "y"].undefined == ""


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_the_size_of_the_features_and_of_which_shard_changes_no_value_of_blocks(rng, kernel):
    X, Y = related(rng, 120)
    X[:40] *= 1e-3
    shards = blocks_of(X, Y, 40)
    huge = [{"x": shard["x"] * 2.0**400, "y": shard["y"]} for shard in shards]
    expected = blocked_similarity(shards, [("x", "y")], kernel=kernel)["x", "y"].cka
    assert blocked_similarity(huge, [("x", "y")], kernel=kernel)["x", "y"].cka == pytest.approx(expected, rel=1e-12)
    grown = [{"x": shard["x"] * 10.0 ** (90 * g), "y": shard["y"]} for g, shard in enumerate(shards)]
    assert np.isfinite(blocked_similarity(grown, [("x", "y")], kernel=kernel)["x", "y"].cka)


def test_rbf_of_wide_bandwidth_is_linear(rng):
    """Kornblith et al. 2019: RBF CKA approaches linear CKA as the bandwidth grows."""
    X, Y = related(rng, 120)
    wide = rbf_cka_of_blocks(blocks_of(X, Y, 40), 200)
    assert wide == pytest.approx(blocked_similarity(blocks_of(X, Y, 40), [("x", "y")])["x", "y"].cka, abs=1e-3)


def test_rbf_sees_what_linear_can_not(rng):
    """y = |x| has no linear trace of x, which is symmetric."""
    X = rng.normal(size=(1000, 1))
    Y = np.abs(X)
    shards = blocks_of(X, Y, 100)
    assert abs(blocked_similarity(shards, [("x", "y")])["x", "y"].cka) < 0.05
    assert rbf_cka_of_blocks(shards, 0.3) > 0.3


def test_unrelated_rows_are_zero_within_three_standard_errors_whatever_the_block(rng):
    X, Y = rng.normal(size=(960, 40)), rng.normal(size=(960, 30))
    for size in (16, 96):
        for kernel in ("linear", "rbf"):
            result = blocked_similarity(blocks_of(X, Y, size), [("x", "y")], kernel=kernel)["x", "y"].estimate
            assert abs(result.value) < 3 * result.se < 0.1


def test_the_standard_error_is_near_the_exact_ones(rng):
    """Blocks of 40 of 400 images see a tenth of all pairs of images; over many sets the spread is little more."""
    exact, blocked, errors = [], [], []
    mixing = rng.normal(size=(5, 12)), rng.normal(size=(5, 7))
    for _ in range(150):
        shared = rng.normal(size=(400, 5))
        X, Y = (shared @ A + 2 * rng.normal(size=(400, A.shape[1])) for A in mixing)
        result = blocked_similarity(blocks_of(X, Y, 40), [("x", "y")])["x", "y"]
        exact.append(linear_cka(X, Y, "unbiased"))
        blocked.append(result.cka)
        errors.append(result.estimate.se)
    assert np.mean(blocked) == pytest.approx(np.mean(exact), abs=0.01)
    assert 1.0 < np.std(blocked) / np.std(exact) < 1.6
    assert np.mean(errors) == pytest.approx(np.std(blocked), rel=0.2)


def test_a_constant_representation_is_nan(rng):
    X, Y = related(rng, 40)
    for kernel in ("linear", "rbf"):
        result = blocked_similarity(blocks_of(X, np.ones_like(Y), 20), [("x", "y")], kernel=kernel)["x", "y"]
        assert np.isnan(result.cka) and np.isnan(result.leave_one_out).all()
        assert result.undefined == "y: constant: every image has the same representation"


def test_float32_rows_agree_to_the_precision_of_float32(rng):
    X, Y = related(rng, 80, dx=300)
    fine = blocked_similarity(blocks_of(X, Y, 40), [("x", "y")])["x", "y"].cka
    X, Y = (rows.astype(np.float32) for rows in (X + 100, Y))
    assert linear_kernel(X).dtype == np.float32
    assert blocked_similarity(blocks_of(X, Y, 40), [("x", "y")])["x", "y"].cka == pytest.approx(fine, abs=1e-5)


def test_bad_input_is_one_clear_error(rng):
    X, Y = related(rng, 10)
    with pytest.raises(DataError, match=r"^a shard must have at least 4 rows, got 3 in shard 1\. Use larger shards\.$"):
        blocked_similarity([{"x": X}, {"x": X[:3]}], [("x", "x")])
    with pytest.raises(DataError, match=r"^row counts must be equal in shard 0, got x 10, y 9\. Give every network"):
        blocked_similarity([{"x": X, "y": Y[:9]}], [("x", "y")])
    with pytest.raises(DataError, match=r"^CKA requires at least 1 shard, got 0\."):
        blocked_similarity([], [("x", "y")])
    with pytest.raises(SettingsError, match=r"^unknown kernel 'rbg'; did you mean 'rbf'\?$"):
        blocked_similarity([{"x": X}], [("x", "x")], kernel="rbg")
