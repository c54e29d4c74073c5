"""Mutual nearest neighbours: do two networks place the same images close together? k = 10 neighbours."""

import numpy as np

from netsim.similarity.measures import measure
from netsim.similarity.measures._neighbours import K, shared_neighbours


@measure(
    title="Mutual nearest neighbours (cosine, k = 10)",
    reference="Huh et al. 2024, ICML (arXiv:2405.07987), appendix A",
    images=2000,
)
def mutual_knn(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute the mean share of an image's k = 10 nearest neighbours in X (n, d) that are so in Y (n, d') too.

    Neighbours are nearest by cosine similarity; the image itself is excluded. Of images tied for the last places, each
    counts by its chance when ties are broken at random, on both sides independently, so that the order of images does
    not matter. Rotations, and a scale of each image, do not change it; a shift does, because the cosine is of features
    about 0.

    Returns
    -------
    float
        In [0, 1]; 1 if all neighbours are the same and none are tied. With ties it is below 1 even for equal sides: for
        one-hot rows, whose neighbours are any of their class of m images, it is k / (m - 1). k / (n - 1) for unrelated
        rows, with ties too, so values of different n are not comparable. NaN if all images of a side lie in one
        direction, if an image is represented by zeros, or if n <= k + 1, where all others are neighbours.
    """
    shared = shared_neighbours(X, Y)
    return float("nan") if shared is None else float((shared / K).mean())
