"""Nearest neighbours of images, and how many two representations share. n = images, d = features, K = neighbours."""

import numpy as np

from netsim.similarity.hsic import ROUNDING
from netsim.similarity.rows import moderate

K = 10
"""Neighbours of an image."""

ROWS = 500
"""Images whose neighbours are sought at a time: n x n numbers need not be in memory at once."""


def shared_neighbours(X: np.ndarray, Y: np.ndarray) -> np.ndarray | None:
    """Count how many of its K nearest neighbours each image has in both X (n, d) and Y (n, d'): (n,), 0 to K.

    Where images are tied for the last places among the K, the count is its mean over all ways to break the ties, on
    each side independently: the limit of a little noise. It does not depend on the order of images.

    None where neighbours are undefined: all images lie in one direction, an image is represented by zeros, or there
    are so few images that all others are neighbours.
    """
    if len(X) <= K + 1:
        return None
    x, y = _directions(X), _directions(Y)
    if x is None or y is None:
        return None
    parts = [slice(start, start + ROWS) for start in range(0, len(X), ROWS)]
    return np.concatenate([(_chances(x, part) * _chances(y, part)).sum(axis=1) for part in parts])


def _directions(X: np.ndarray) -> np.ndarray | None:
    """Return the rows (n, d) at length 1; None if all are the same direction, or a row of zeros has none."""
    rows = moderate(np.asarray(X, dtype=np.float64))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not lengths.all():
        return None
    unit = rows / lengths
    return None if np.ptp(unit, axis=0).max(initial=0) <= ROUNDING else unit


def _chances(unit: np.ndarray, part: slice) -> np.ndarray:
    """Return the chance of each image to be among the K nearest to those of a part, ties broken at random: (b, n).

    Nearest by cosine similarity; similarities that differ by rounding only are tied. Each row adds up to K.
    """
    nearness = unit[part] @ unit.T
    b = np.arange(len(nearness))
    nearness[b, b + part.start] = -np.inf  # no image is its own neighbour
    last = np.partition(nearness, -K, axis=1)[:, -K, None]
    surely = nearness > last + ROUNDING
    tied = np.abs(nearness - last) <= ROUNDING
    places = K - surely.sum(axis=1, keepdims=True)
    return surely + tied * (places / tied.sum(axis=1, keepdims=True))
