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
