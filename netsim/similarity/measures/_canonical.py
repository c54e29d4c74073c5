"""Canonical correlations (Hotelling 1936). n = images, d = features, r = directions kept of a side.

As cosines of principal angles between the spans of two sets of centred features, from orthonormal bases (Björck & Golub
1973, Math. Comp. 27:579-594). No covariance is inverted, which would square the condition of the features.
"""

import numpy as np
from scipy.linalg import svd, svdvals

from netsim.similarity.measures._rows import centred


def directions(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal basis (n, r) of the centred features' span, and its singular values (r,), largest first; r = rank.

    A direction smaller than the rounding of the features, in the precision they came in, is none: features that
    depend linearly on others in float32 have some, and each would count as much as any other direction.
    """
    rows = np.asarray(X)
    if min(rows.shape) == 0:
        return np.zeros((len(rows), 0)), np.zeros(0)
    basis, sizes, _ = svd(centred(rows), full_matrices=False, overwrite_a=True)
    rounding = np.finfo(rows.dtype).eps * np.linalg.norm(rows.astype(np.float64))
    kept = sizes > max(rounding, np.finfo(np.float64).eps * max(rows.shape) * sizes[0])
    return basis[:, kept], sizes[kept]


def determined(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the images have a say in the correlations of two bases (n, r).

    Centred, both spans lie in n - 1 dimensions; they meet in at least r_x + r_y - (n - 1) of them, whatever the images.
    """
    return min(x.shape[1], y.shape[1]) > 0 and x.shape[1] + y.shape[1] < len(x)


def mean_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Mean of the min(r_x, r_y) canonical correlations of two orthonormal bases, NaN unless they are `determined`."""
    return float(svdvals(x.T @ y).mean()) if determined(x, y) else float("nan")
