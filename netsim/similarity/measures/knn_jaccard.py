"""Jaccard index of nearest neighbours: like `mutual_knn`, relative to the union of both neighbour sets."""

import numpy as np

from netsim.similarity.measures import measure
from netsim.similarity.measures._neighbours import K, shared_neighbours


@measure(
    title="Jaccard index of nearest neighbours (cosine, k = 10)",
    reference="Wang et al. 2020, IEEE TKDE, 'Instability of network embedding'; as in ReSi (arXiv:2408.00531)",
    images=2000,
)
def knn_jaccard(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute the mean over images of |A and B| / |A or B|, the Jaccard index of two sets of neighbours.

    A and B are the k = 10 nearest neighbours of the image in X (n, d) and in Y (n, d'). They are nearest by cosine
    similarity; the image itself is excluded, and of tied images |A and B| is the mean as in `mutual_knn`. Rotations,
    and a scale of each image, do not change it; a shift does.

    Returns
    -------
    float
        In [0, 1]; 1 if all neighbours are the same and none are tied. About k / (2 (n - 1)) for unrelated rows, so
        values of different n are not comparable. NaN where `mutual_knn` is NaN.
    """
    shared = shared_neighbours(X, Y)
    return float("nan") if shared is None else float((shared / (2 * K - shared)).mean())
