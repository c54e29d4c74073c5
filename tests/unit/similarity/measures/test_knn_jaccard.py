"""Jaccard index of nearest neighbours: by hand, and bounded by the share of mutual neighbours."""

import numpy as np
import pytest

from netsim.similarity.measures.knn_jaccard import knn_jaccard
from netsim.similarity.measures.mutual_knn import mutual_knn
from unit.similarity.measures.examples import (
    related,
)


def test_knn_jaccard_by_hand():
    """Two clusters of 11 images; the first images of both swap places on one side and share no neighbour."""
    rng = np.random.default_rng(1)
    centres = np.repeat(np.eye(2), 11, axis=0)
    X, Y = (100 * centres + rng.normal(size=centres.shape) for _ in range(2))
    swapped = Y[[11, *range(1, 11), 0, *range(12, 22)]]  # the first image of each cluster has the other's place
    alone, others = 0 / 20, 9 / 11  # of the ten neighbours nine stay
    assert knn_jaccard(X, Y) == 1
    assert knn_jaccard(X, swapped) == pytest.approx((2 * alone + 20 * others) / 22)


def test_knn_jaccard_is_at_most_the_share_of_mutual_neighbours(rng):
    X, Y = related(rng, 60)
    X, Y = X + 0.1 * rng.normal(size=X.shape), Y + 0.1 * rng.normal(size=Y.shape)
    share = mutual_knn(X, Y)
    assert share / (2 - share) <= knn_jaccard(X, Y) <= share  # s / (2 - s) is convex in the share of each image
