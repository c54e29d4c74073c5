"""Nearest neighbours of images, and how many two representations share. n = images, d = features, k = neighbours."""

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from netsim.similarity.hsic import ROUNDING

K = 10


def shared_neighbours(X: np.ndarray, Y: np.ndarray) -> np.ndarray | None:
    """How many of its K nearest neighbours each image has in both X (n, d) and Y (n, d'): (n,), 0 to K.

    None where neighbours say nothing: all images in one direction, one without any, or so few that all others are
    neighbours.
    """
    if len(X) <= K + 1:
        return None
    x, y = _neighbours(X), _neighbours(Y)
    return None if x is None or y is None else (x[:, :, None] == y[:, None, :]).sum(axis=(1, 2))


def _neighbours(X: np.ndarray) -> np.ndarray | None:
    """The K images of largest cosine similarity to each, itself excluded, (n, K); None if all are equally near.

    That is so of an image that is represented by zeros, too: its neighbours would be those that come first.
    """
    unit = normalize(np.asarray(X, dtype=np.float64))
    if np.ptp(unit, axis=0).max(initial=0) <= ROUNDING or not unit.any(axis=1).all():
        return None
    return NearestNeighbors(n_neighbors=K, metric="cosine").fit(unit).kneighbors(return_distance=False)
