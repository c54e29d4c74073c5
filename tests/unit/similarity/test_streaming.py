"""Sums over a stream of shards must equal those of all rows at once, in either space and for any blocks."""

from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest

from netsim.similarity import streaming
from netsim.similarity.cka import similarity
from netsim.similarity.streaming import (
    cheaper_space,
    multiplications,
    pair_hsic,
)
from unit.similarity.definitions import (
    errors_of,
    related,
    shard_cka,
    slow_cka,
    split,
)

SPACES = ("gram", "feature")


@pytest.mark.parametrize("offset", [0, 1e3])
@pytest.mark.parametrize(("dx", "dy"), [(12, 7), (45, 30), (90, 60)])
def test_gram_and_feature_space_agree_with_the_definition_below_and_above_as_many_rows_as_features(
    rng, space, small_tiles, dx, dy, offset
):
    """59 rows of uneven, drifting shards: fewer than dx + dy, about as many, more. One shard is empty."""
    X, Y = related(rng, 59, dx, dy)
    shards = split(X + offset, Y - offset, (20, 1, 9, 0, 4, 25))
    for at in (20, 30):
        X[at:] += offset / 3
    result = shard_cka(shards)
    for estimator, value, replicates in (
        ("biased", result.cka, result.leave_one_out),
        ("unbiased", result.cka_unbiased, result.leave_one_out_unbiased),
    ):
        assert value == pytest.approx(slow_cka(shards_of(shards, 0), shards_of(shards, 1), estimator), abs=1e-9)
        for g in range(6):
            rest = shards[:g] + shards[g + 1 :]
            exact = slow_cka(shards_of(rest, 0), shards_of(rest, 1), estimator)
            assert replicates[g] == pytest.approx(exact, abs=1e-9)


def shards_of(shards, side):
    rows = np.concatenate([shard[side] for shard in shards])
    return rows - rows.mean(axis=0)  # a large offset would drown the definitions in rounding error


@pytest.mark.parametrize("size", [1e4, 1e5, 1e8, 1e60, 1e200])
@pytest.mark.parametrize("sides", ["x", "y", "xy"])
def test_one_image_of_any_size_leaves_the_values_without_its_shard_exact(rng, space, small_tiles, size, sides):
    """Subtracting the shard from the sums would leave 1 % of error at 1e4, and nothing but rounding at 1e5."""
    X, Y = related(rng, 60)
    exact = [slow_cka(X[20:], Y[20:], estimator) for estimator in ("biased", "unbiased")]
    for side, rows in zip("xy", (X, Y), strict=True):
        if side in sides:
            rows[7] = size * rng.normal(size=rows.shape[1])
    result = shard_cka(split(X, Y, (20, 20, 20)))
    assert [result.leave_one_out[0], result.leave_one_out_unbiased[0]] == pytest.approx(exact, abs=1e-10)
    assert np.isfinite(result.leave_one_out).all() and result.undefined_error == ""


def test_sums_of_ordinary_shards_are_those_of_the_difference_and_have_its_bits(rng, monkeypatch):
    """What is summed anew are shards that dominate, so values that stores have of other images stay as they are."""
    X, Y = related(rng, 80, dx=30)
    X[:10] *= 7  # almost a third of the images are much larger, which is still ordinary
    pairs = [("x", "x"), ("x", "y")]
    shards = [{"x": X[at : at + 10], "y": Y[at : at + 10]} for at in range(0, 80, 10)]
    anew = pair_hsic(shards, pairs)
    monkeypatch.setattr(streaming, "CANCELLATION", 0)
    subtracted = pair_hsic(shards, pairs)
    for pair in pairs:
        for name in ("n", "square", "q", "tx", "ty"):
            np.testing.assert_array_equal(getattr(anew[pair], name), getattr(subtracted[pair], name), strict=True)


def test_a_dominant_image_changes_the_bits_of_no_pair_it_is_not_in(rng):
    """Whoever else is in the call, and whichever of them have images that dominate."""
    networks = {name: rng.normal(size=(60, width)) for name, width in (("a", 12), ("b", 90), ("c", 7), ("d", 40))}
    networks["b"][3] *= 1e6
    networks["c"][31] *= 1e9
    shards = [{name: rows[at : at + 20] for name, rows in networks.items()} for at in range(0, 60, 20)]
    every = list(combinations_with_replacement(networks, 2))
    together, backwards = pair_hsic(shards, every), pair_hsic(shards, every[::-1])
    for pair in every:
        alone = pair_hsic([{name: shard[name] for name in pair} for shard in shards], [pair])[pair]
        for other in (together[pair], backwards[pair]):
            for field in ("n", "square", "q", "tx", "ty"):
                np.testing.assert_array_equal(getattr(alone, field), getattr(other, field), strict=True)


def test_gram_and_feature_space_give_the_same_to_1e_10(rng):
    shards = [{"a": rng.normal(size=(n, 40)), "b": rng.normal(size=(n, 25)) ** 3} for n in (30, 8, 41)]
    pairs = [("a", "a"), ("a", "b"), ("b", "b")]
    gram, feature = (pair_hsic(shards, pairs, space=space) for space in SPACES)
    for pair in pairs:
        for name in ("n", "square", "q", "tx", "ty"):
            np.testing.assert_allclose(getattr(gram[pair], name), getattr(feature[pair], name), rtol=1e-10)


def test_sums_are_those_of_the_rows_taken_one_by_one(rng, space, small_tiles):
    X, Y = related(rng, 20)
    sums = pair_hsic([[X[:6], Y[:6]], [X[6:], Y[6:]]], [(0, 1)])[0, 1]
    for entry, kept in enumerate((slice(None), slice(6, None), slice(6))):
        x, y = (side[kept] - side[kept].mean(axis=0) for side in (X, Y))
        k, l = [row @ row for row in x], [row @ row for row in y]  # noqa: E741 (the letter of the formulas)
        expected = [len(x), np.square(x.T @ y).sum(), np.dot(k, l), sum(k), sum(l)]
        actual = [getattr(sums, name)[entry] for name in ("n", "square", "q", "tx", "ty")]
        np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_the_cheaper_space_is_gram_for_few_rows():
    assert cheaper_space(300, 100, 60) == "gram"
    assert cheaper_space(500, 100, 60) == "feature"


def test_costs_count_multiplications():
    widths, pairs = {"a": 100, "b": 60, "unused": 7}, [("a", "a"), ("a", "b")]
    assert multiplications(10, widths, pairs) == 10 * 10 * (100 + 60) // 2
    symmetric_once, products_twice = 10_000 * 100 * 100 * 3 // 2, 10_000 * 100 * 60 * 2  # each with the second pass
    assert multiplications(10_000, widths, pairs) == symmetric_once + products_twice
    both = [("a", "a"), ("c", "c")]
    assert multiplications(1000, {"a": 100, "c": 900}, both) == 1000 * 100 * 100 * 3 // 2 + 1000 * 1000 * 900 // 2


@pytest.mark.parametrize("sizes", [(32,) * 40, (700, 30, 0, 1, 550, 20)])
def test_the_sums_of_a_pair_have_the_same_bits_whoever_else_is_in_the_call(rng, sizes):
    """Widths are such that some pairs are computed in Gram and some in feature space, and blocks are cut otherwise."""
    n, widths = sum(sizes), {"narrow": 12, "wide": 700, "mid": 90, "wider": 1100}
    networks = {name: rng.normal(size=(n, width)).astype(np.float32) for name, width in widths.items()}
    ends = np.cumsum((0, *sizes))
    shards = [{name: rows[a:b] for name, rows in networks.items()} for a, b in pairwise(ends)]
    every = list(combinations_with_replacement(widths, 2))
    spaces = {cheaper_space(n, widths[x], widths[y]) for x, y in every}
    together, backwards = pair_hsic(shards, every), pair_hsic(shards, every[::-1])
    assert spaces == {"gram", "feature"}
    for pair in every:
        alone = pair_hsic([{name: shard[name] for name in pair} for shard in shards], [pair])[pair]
        for other in (together[pair], backwards[pair]):
            for field in ("n", "square", "q", "tx", "ty"):
                np.testing.assert_array_equal(getattr(alone, field), getattr(other, field), strict=True)


def test_how_many_tiles_fit_into_memory_changes_no_bit(rng, monkeypatch):
    shards = [dict(zip("xy", related(rng, 60, 300, 200), strict=True)) for _ in range(40)]
    pairs = [("x", "x"), ("x", "y"), ("y", "y")]
    at_once = pair_hsic(shards, pairs, space="gram")
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 1)
    one_by_one = pair_hsic(shards, pairs, space="gram")
    for pair in pairs:
        np.testing.assert_array_equal(at_once[pair].square, one_by_one[pair].square)


def test_shards_are_read_when_needed_and_give_the_same_bits(rng, space, small_tiles):
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
