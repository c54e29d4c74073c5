"""Pairs: labels differ, targets are all different, and pair 7 is pair 7 in every run."""

import hashlib
from itertools import combinations

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

import netsim.images.pairs
from netsim.errors import DataError, SettingsError
from netsim.images.pairs import _draw_class, draw_pairs

LABELS = np.arange(100) * 7 % 10


def columns(pairs):
    return np.stack([pairs.seed, pairs.target, pairs.seed_label, pairs.target_label])


@pytest.mark.parametrize("labels", [LABELS, np.r_[np.zeros(99, int), 1], np.array([5, -2, 5, 5]), np.arange(50)])
def test_labels_always_differ_and_targets_are_all_different(labels):
    for rng_seed in range(20):
        pairs = draw_pairs(labels, len(labels), rng_seed=rng_seed)
        assert len(pairs) == len(labels)
        assert (pairs.seed_label != pairs.target_label).all()
        assert sorted(pairs.target) == list(range(len(labels)))
        np.testing.assert_array_equal(labels[pairs.seed], pairs.seed_label)
        np.testing.assert_array_equal(labels[pairs.target], pairs.target_label)
        assert columns(pairs).dtype == np.int64


def test_a_longer_draw_keeps_the_pairs_of_a_shorter_one_and_any_piece_can_be_drawn_alone():
    everything = columns(draw_pairs(LABELS, 100, rng_seed=3))
    np.testing.assert_array_equal(columns(draw_pairs(LABELS, 13, rng_seed=3)), everything[:, :13])
    np.testing.assert_array_equal(columns(draw_pairs(LABELS, 13, rng_seed=3, start=40)), everything[:, 40:53])
    np.testing.assert_array_equal(columns(draw_pairs(LABELS, 1, rng_seed=3, start=99)), everything[:, 99:])


def test_the_first_seed_is_even_over_all_images_of_another_label():
    """The obvious twin is the rule itself: each image of another label is drawn equally often."""
    labels = np.array([0, 1, 0, 2, 1, 3, 3])
    counts = np.zeros((7, 7))
    for rng_seed in range(1500):
        pairs = draw_pairs(labels, 4, rng_seed=rng_seed)
        counts[pairs.target[0], pairs.seed[0]] += 1
    allowed = labels[:, None] != labels[None, :]
    expected = counts.sum(axis=1, keepdims=True) * allowed / allowed.sum(axis=1, keepdims=True)
    assert (counts[~allowed] == 0).all()
    assert (np.abs(counts - expected)[allowed] < 4 * np.sqrt(expected[allowed])).all()


def most_different_seeds(labels: np.ndarray, targets: np.ndarray) -> int:
    """Count the different seeds that the targets could have at best, by matching."""
    return int((maximum_bipartite_matching(csr_array(labels[targets][:, None] != labels[None, :])) >= 0).sum())


@pytest.mark.parametrize("classes", [2, 3, 5, 30])
def test_every_image_is_a_seed_once_unless_most_have_one_label(rng, classes):
    for rng_seed in range(100):
        labels = rng.integers(classes, size=rng.integers(6, 40))
        largest = np.bincount(labels).max()
        if largest == len(labels):
            continue
        pairs = draw_pairs(labels, len(labels), rng_seed=rng_seed)
        assert (pairs.seed_label != pairs.target_label).all()
        if 2 * largest <= len(labels):
            assert len(set(pairs.seed)) == len(labels) == most_different_seeds(labels, pairs.target)
        assert np.bincount(pairs.seed, minlength=len(labels)).max() <= -(-largest // (len(labels) - largest)) + 1


def test_seeds_are_used_again_only_where_no_unused_one_fits():
    """Of 99 images with one label and one with another, the one is the seed of all others."""
    labels = np.r_[np.zeros(99, int), 1]
    pairs = draw_pairs(labels, 100)
    assert (pairs.seed[pairs.target != 99] == 99).all()
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    pairs = draw_pairs(labels, 100)
    for k in range(100):
        unused = np.setdiff1d(np.flatnonzero(labels != pairs.target_label[k]), pairs.seed[:k])
        assert pairs.seed[k] in unused or not len(unused)


def test_seeds_of_a_class_are_even_over_other_classes():
    labels = np.arange(10_000) % 10
    pairs = draw_pairs(labels, 9000)
    counts = np.zeros((10, 10))
    np.add.at(counts, (pairs.target_label, pairs.seed_label), 1)
    assert (np.abs(counts[~np.eye(10, dtype=bool)] - 100) < 50).all()


# ---- pictures


def test_of_the_images_of_one_picture_only_the_first_takes_part():
    """As if the others were not there, at the positions of the whole set."""
    labels, pictures = np.arange(40) % 4, np.r_[np.arange(30), np.arange(10)]
    for rng_seed in range(20):
        pairs = draw_pairs(labels, 30, pictures=pictures, rng_seed=rng_seed)
        np.testing.assert_array_equal(columns(pairs), columns(draw_pairs(labels[:30], 30, rng_seed=rng_seed)))
    pictures = np.r_[np.arange(10), np.arange(30)]  # now the doubles are in the middle
    pairs = draw_pairs(labels, 30, pictures=pictures)
    kept = np.r_[np.arange(10), np.arange(20, 40)]
    assert sorted(pairs.target) == sorted(pairs.seed) == kept.tolist()
    np.testing.assert_array_equal(labels[pairs.target], pairs.target_label)


def test_too_few_pictures_are_refused_and_doubles_counted():
    with pytest.raises(DataError, match="got 90 different pictures in 100 images; draw at most 90 pairs"):
        draw_pairs(LABELS, 100, pictures=np.r_[np.arange(90), np.arange(10)])
    with pytest.raises(DataError, match=r"pictures must have the shape of labels, \(100,\), got \(99,\)"):
        draw_pairs(LABELS, 10, pictures=np.arange(99))
    with pytest.raises(DataError, match="at least 2 different values, got 1 in 4 images"):
        draw_pairs(np.array([0, 0, 0, 0, 1]), 4, pictures=[0, 1, 2, 3, 3])


def test_seeds_of_any_label_are_all_different_and_none_is_its_own_target():
    labels = np.arange(500) % 5
    pictures = np.where(np.arange(500) < 50, np.arange(500) % 25, np.arange(500))  # 25 occur twice
    pairs = draw_pairs(labels, 475, pictures=pictures, seed_labels="any")
    assert len(set(pictures[pairs.seed])) == len(set(pictures[pairs.target])) == 475
    assert (pictures[pairs.seed] != pictures[pairs.target]).all()
    np.testing.assert_array_equal(labels[pairs.seed], pairs.seed_label)
    piece = draw_pairs(labels, 40, pictures=pictures, seed_labels="any", start=100)
    np.testing.assert_array_equal(piece.seed, pairs.seed[100:140])
    others = draw_pairs(labels, 475, pictures=pictures)
    np.testing.assert_array_equal(pairs.target, others.target)


def test_a_label_of_any_seed_says_nothing_about_that_of_its_target():
    """Counts of 25 combinations of labels are those of independent draws; chi squared has 16 degrees of freedom."""
    labels = np.arange(5000) % 5
    statistics = []
    for rng_seed in range(20):
        pairs = draw_pairs(labels, 4000, seed_labels="any", rng_seed=rng_seed)
        counts = np.zeros((5, 5))
        np.add.at(counts, (pairs.seed_label, pairs.target_label), 1)
        expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / 4000
        statistics.append(((counts - expected) ** 2 / expected).sum())
    assert 12 < np.mean(statistics) < 20  # 16 -+ 5 standard errors


def test_labels_of_seeds_are_other_or_any():
    with pytest.raises(SettingsError, match=r"^seed_labels must be other or any, got 'same'$"):
        draw_pairs(np.arange(10), 4, seed_labels="same")


def test_another_rng_seed_gives_other_targets_and_other_seeds():
    one, other = (draw_pairs(LABELS, 100, rng_seed=rng_seed) for rng_seed in (0, 1))
    assert (one.target != other.target).mean() > 0.9
    assert (one.seed != other.seed).mean() > 0.9


@pytest.mark.parametrize("seed_labels", ["other", "any"])
def test_another_draw_gives_the_same_targets_other_seeds(seed_labels):
    labels = np.arange(1000) % 10
    draws = [draw_pairs(labels, 400, rng_seed=3, seed_labels=seed_labels, seed_draw=draw) for draw in range(4)]
    for pairs in draws[1:]:
        np.testing.assert_array_equal(pairs.target, draws[0].target)
        assert len(set(pairs.seed)) == 400
    assert np.mean([(one.seed == other.seed).mean() for one, other in combinations(draws, 2)]) < 0.01
    piece = draw_pairs(labels, 40, rng_seed=3, seed_labels=seed_labels, seed_draw=2, start=100)
    np.testing.assert_array_equal(columns(piece), columns(draws[2])[:, 100:140])


def test_the_seeds_of_another_draw_are_even_over_all_images_of_another_label_whatever_the_first_draw_had():
    labels, counts = np.array([0, 1, 0, 2, 1, 3, 3]), np.zeros((7, 7, 7))
    for rng_seed in range(4000):
        one, other = (draw_pairs(labels, 4, rng_seed=rng_seed, seed_draw=draw) for draw in (0, 1))
        counts[one.target[0], one.seed[0], other.seed[0]] += 1
    allowed = labels[:, None] != labels[None, :]
    both = allowed[:, :, None] & allowed[:, None, :]
    expected = counts.sum(axis=(1, 2), keepdims=True) * both / both.sum(axis=(1, 2), keepdims=True)
    assert (np.abs(counts - expected)[both] < 5 * np.sqrt(expected[both])).all()


def test_the_default_draw_has_the_pairs_that_sweeps_had_before_there_were_others():
    labels = np.random.default_rng(5).integers(7, size=500)
    every = [columns(draw_pairs(labels, 400, rng_seed=9, seed_labels=kind)) for kind in ("other", "any")]
    assert [hashlib.sha256(pairs.tobytes()).hexdigest()[:16] for pairs in every] == [
        "d5e85013e385a222",
        "02c0297c81618c58",
    ]


def test_these_are_the_first_five_pairs_on_every_machine():
    pairs = draw_pairs(LABELS, 5, rng_seed=0)
    assert pairs.target.tolist() == [74, 67, 17, 45, 35]
    assert pairs.seed.tolist() == [0, 32, 64, 63, 91]


def test_a_seed_is_drawn_from_numbers_of_classes_and_not_of_images(monkeypatch):
    """Or else the fifty thousand pairs of ImageNet would take minutes."""
    sizes = []

    def drawn(size, *rest):
        sizes.append(len(size))
        return _draw_class(size, *rest)

    monkeypatch.setattr(netsim.images.pairs, "_draw_class", drawn)
    pairs = draw_pairs(np.arange(3000) % 30, 2000)
    assert len(pairs) == 2000 and len(sizes) <= 2000 and set(sizes) == {30}


def test_more_pairs_than_images_are_refused_with_the_largest_possible_number():
    with pytest.raises(DataError, match="got 100 images; draw at most 100 pairs, or add"):
        draw_pairs(LABELS, 101)
    with pytest.raises(DataError, match="got 100 images; draw at most 10 pairs from pair 90 on"):
        draw_pairs(LABELS, 11, start=90)


def test_unusable_labels_and_ranges_are_refused():
    with pytest.raises(DataError, match="at least 2 different values, got 1 in 100 images"):
        draw_pairs(np.zeros(100, int), 10)
    with pytest.raises(DataError, match="at least 2 different values, got 0 in 0 images"):
        draw_pairs(np.zeros(0, int), 10)
    with pytest.raises(DataError, match=r"whole numbers of shape \(images,\), got float64 of shape \(100,\)"):
        draw_pairs(LABELS / 2, 10)
    with pytest.raises(DataError, match="requires at least 4 pairs, got 3"):
        draw_pairs(LABELS, 3)
    with pytest.raises(SettingsError, match="count must be at least 1, got 0"):
        draw_pairs(LABELS, 0, start=10)
    with pytest.raises(SettingsError, match="start must be at least 0, got -1"):
        draw_pairs(LABELS, 10, start=-1)
    with pytest.raises(SettingsError, match="rng_seed must be 0 to 4294967295, got -1"):
        draw_pairs(LABELS, 10, rng_seed=-1)
    with pytest.raises(SettingsError, match="seed_draw must be 0 to 4294967295, got 4294967296"):
        draw_pairs(LABELS, 10, seed_draw=2**32)
