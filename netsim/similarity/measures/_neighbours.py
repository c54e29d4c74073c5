"""Nearest neighbours of images, and how many two representations share. n = images, d = features, K = neighbours."""

import numpy as np

from netsim.similarity.hsic import ROUNDING
from netsim.similarity.rows import moderate

K = 10
"""Neighbours of an image."""


def shared_neighbours(X: np.ndarray, Y: np.ndarray) -> np.ndarray | None:
    """Count how many of its K nearest neighbours each image has in both X (n, d) and Y (n, d'): (n,), 0 to K.

    None where neighbours are undefined: all images lie in one direction, an image is represented by zeros, or there
    are so few images that all others are neighbours.
    """
    if len(X) <= K + 1:
        return None
    x, y = _neighbours(X), _neighbours(Y)
    return None if x is None or y is None else (x[:, :, None] == y[:, None, :]).sum(axis=(1, 2))


def _neighbours(X: np.ndarray) -> np.ndarray | None:
    """Return the K images of largest cosine similarity to each, itself excluded, (n, K); None if all are equally near.

    All are equally near to an image that is represented by zeros, too: its neighbours would be the first in order.
    """
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    unit = normalize(moderate(np.asarray(X, dtype=np.float64)))
    if np.ptp(unit, axis=0).max(initial=0) <= ROUNDING or not unit.any(axis=1).all():
        return None
    return NearestNeighbors(n_neighbors=K, metric="cosine").fit(unit).kneighbors(return_distance=False)
