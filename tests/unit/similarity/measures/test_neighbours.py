"""Neighbours in common against sorting one by one, and when they are undefined."""

import numpy as np
import pytest

from netsim.similarity.measures._neighbours import K, shared_neighbours
from netsim.similarity.measures.knn_jaccard import knn_jaccard
from netsim.similarity.measures.mutual_knn import mutual_knn
from unit.similarity.measures.examples import (
    neighbour_sets,
    related,
)


def test_shared_neighbours_are_counted_image_by_image(rng):
    X, Y = rng.normal(size=(40, 6)), rng.normal(size=(40, 4))
    expected = [len(a & b) for a, b in zip(neighbour_sets(X), neighbour_sets(Y), strict=True)]
    assert shared_neighbours(X, Y).tolist() == expected
    assert shared_neighbours(X, X).tolist() == [K] * 40


def test_neighbours_in_common_are_counted_one_by_one(rng):
    X, Y = related(rng, 60)
    X, Y = X + 0.1 * rng.normal(size=X.shape), Y + 0.1 * rng.normal(size=Y.shape)
    pairs = list(zip(neighbour_sets(X), neighbour_sets(Y), strict=True))
    assert mutual_knn(X, Y) == pytest.approx(np.mean([len(a & b) / 10 for a, b in pairs]), abs=1e-12)
    assert knn_jaccard(X, Y) == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in pairs]), abs=1e-12)


def tied_shares(X, Y, rng, draws):
    """Break ties at random with noise far below every difference, on each side anew, and average over draws."""
    noisy = [[side + 1e-7 * rng.normal(size=side.shape) for side in (X, Y)] for _ in range(draws)]
    return np.mean([[len(a & b) for a, b in zip(*map(neighbour_sets, sides), strict=True)] for sides in noisy], axis=0)


def test_tied_neighbours_count_by_their_chance_when_ties_are_broken_at_random(rng):
    """Small whole numbers: many images are the same or equally near."""
    X, Y = rng.integers(1, 3, size=(40, 3)).astype(float), rng.integers(1, 3, size=(40, 4)).astype(float)
    Y[:, :2] = X[:, :2]
    expected = tied_shares(X, Y, rng, 600)
    assert shared_neighbours(X, Y) == pytest.approx(expected, abs=0.4)
    assert shared_neighbours(X, Y).mean() == pytest.approx(expected.mean(), abs=0.05)


def test_neighbours_of_one_hot_rows_are_any_of_their_class():
    """Two one-hot sides of 5 classes of 21 images: each of the other 20 of a class is a neighbour half of the time."""
    X = np.repeat(np.eye(5), 21, axis=0)
    assert mutual_knn(X, X) == pytest.approx(10 / 20)
    shuffled = np.random.default_rng(0).permutation(105)
    unrelated = [mutual_knn(X, np.random.default_rng(seed).permutation(X)) for seed in range(30)]
    assert mutual_knn(X[shuffled], X[shuffled]) == pytest.approx(10 / 20)
    assert np.mean(unrelated) == pytest.approx(10 / 104, abs=0.005)


@pytest.mark.parametrize("measure", [mutual_knn, knn_jaccard])
def test_neighbours_do_not_depend_on_the_order_of_images(rng, measure):
    """With ties inside a side and across the edge of what is computed at a time."""
    X, Y = rng.integers(0, 3, size=(700, 4)) + 1.0, rng.integers(0, 3, size=(700, 3)) + 1.0
    order = rng.permutation(700)
    assert measure(X[order], Y[order]) == pytest.approx(measure(X, Y), rel=1e-12)
    assert measure(Y, X) == pytest.approx(measure(X, Y), rel=1e-12)


def test_neighbours_are_nan_where_all_others_are_neighbours(rng):
    X, Y = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    assert 0 < mutual_knn(X, Y) < 1 and 0 < knn_jaccard(X, Y) < 1
    assert np.isnan(mutual_knn(X[:11], Y[:11])) and np.isnan(knn_jaccard(X[:11], Y[:11]))


def test_neighbours_are_nan_where_an_image_is_represented_by_zeros(rng):
    """The neighbours of such an image would be the first in order, on both sides."""
    X, Y = rng.normal(size=(2, 50, 4))
    Y[7] = 0
    assert np.isnan(mutual_knn(X, Y)) and np.isnan(knn_jaccard(Y, X))


def test_neighbours_are_nan_where_all_images_lie_in_one_direction(rng):
    X, Y = np.outer(rng.uniform(1, 2, size=50), [0.1, 0.2, 0.7]), rng.normal(size=(50, 3))
    assert np.isnan(mutual_knn(X, Y)) and np.isnan(knn_jaccard(Y, X))
