"""Mutual nearest neighbours: do two networks find the same images alike? k = 10 neighbours."""

import numpy as np

from netsim.similarity.measures import measure
from netsim.similarity.measures._neighbours import K, shared_neighbours


@measure(
    title="Mutual nearest neighbours (cosine, k = 10)",
    source="Huh et al. 2024, ICML (arXiv:2405.07987), appendix A",
    images=2000,
)
def mutual_knn(X: np.ndarray, Y: np.ndarray) -> float:
    """Mean share of an image's k = 10 nearest neighbours in X (n, d) that are so in Y (n, d') too.

    Nearest by cosine similarity, the image itself excluded. In [0, 1]; 1 if all neighbours are the same; k / (n - 1)
    for unrelated rows, so values of different n do not compare. Rotations, and a scale of each image,
    do not change it; a shift does, as the cosine is of features about 0.
    NaN if all images of a side lie in one direction, or one is represented by zeros, or n <= k + 1, where all others
    are neighbours. Of others that are equally near, those that come first count, on both sides.
    """
    shared = shared_neighbours(X, Y)
    return float("nan") if shared is None else float((shared / K).mean())
