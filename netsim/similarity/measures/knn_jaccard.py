"""Jaccard index of nearest neighbours: `mutual_knn`, with what is not shared counted from both sides."""

import numpy as np

from netsim.similarity.measures import measure
from netsim.similarity.measures._neighbours import K, shared_neighbours


@measure(
    title="Jaccard index of nearest neighbours (cosine, k = 10)",
    source="Wang et al. 2020, IEEE TKDE, 'Instability of network embedding'; as in ReSi (arXiv:2408.00531)",
    images=2000,
)
def knn_jaccard(X: np.ndarray, Y: np.ndarray) -> float:
    """Mean over images of |A and B| / |A or B|, A and B the k = 10 nearest neighbours in X (n, d) and in Y (n, d').

    Nearest by cosine similarity, the image itself excluded. In [0, 1]; 1 if all neighbours are the same; about
    k / (2 (n - 1)) for unrelated rows, so values of different n do not compare. Rotations, and a scale of each image,
    do not change it; a shift does. NaN where `mutual_knn` is.
    """
    shared = shared_neighbours(X, Y)
    return float("nan") if shared is None else float((shared / (2 * K - shared)).mean())
