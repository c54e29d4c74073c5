"""Mutual nearest neighbours by hand, and the law of sets drawn at random."""

import numpy as np
import pytest
from scipy import stats

from netsim.similarity.measures.knn_jaccard import knn_jaccard
from netsim.similarity.measures.mutual_knn import mutual_knn


def test_clusters_of_eleven_are_their_own_neighbours(rng):
    """An image is not its own neighbour: the other ten of its cluster are, in X and in Y."""
    centres = np.repeat(np.eye(4), 11, axis=0)
    X, Y = (100 * centres + rng.normal(size=centres.shape) for _ in range(2))
    assert mutual_knn(X, Y) == knn_jaccard(X, Y) == 1
    halfway = np.roll(Y, 11 // 2, axis=0)  # 6 images of each cluster stay, 5 are in the next
    assert mutual_knn(X, halfway) == pytest.approx((6 * 5 + 5 * 4) / (11 * 10))


def test_neighbours_of_unrelated_rows_are_shared_as_often_as_drawn_at_random(rng):
    n, k = 300, 10
    X, Y = rng.normal(size=(n, 15)), rng.normal(size=(n, 20))
    shared = stats.hypergeom(n - 1, k, k)
    assert mutual_knn(X, Y) == pytest.approx(shared.mean() / k, abs=0.01)
    assert shared.mean() / k == pytest.approx(k / (n - 1))
    assert knn_jaccard(X, Y) == pytest.approx(shared.expect(lambda s: s / (2 * k - s)), abs=0.006)
