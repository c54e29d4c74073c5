"""Canonical correlations (Hotelling 1936). n = images, d = features, r = directions kept of a side.

Computed as cosines of the principal angles between the spans of two sets of centred features, from orthonormal bases
(Björck & Golub 1973, Math. Comp. 27:579-594). No covariance is inverted: that would square the condition number of the
features.
"""

import numpy as np

from netsim.similarity.measures._rows import centred
from netsim.similarity.rows import moderate


def directions(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an orthonormal basis (n, r) of the span of the centred features, and its singular values (r,).

    Singular values are in descending order, and r is the rank. A direction smaller than the rounding error of the
    features, in the precision of their dtype, does not count: features that depend linearly on others in float32 have
    such directions, and each would weigh as much as any other.
    """
    from scipy.linalg import svd

    rows = moderate(X)
    if min(rows.shape) == 0:
        return np.zeros((len(rows), 0)), np.zeros(0)
    basis, sizes, _ = svd(centred(rows), full_matrices=False, overwrite_a=True)
    rounding = np.finfo(rows.dtype).eps * np.linalg.norm(rows.astype(np.float64))
    kept = sizes > max(rounding, np.finfo(np.float64).eps * max(rows.shape) * sizes[0])
    return basis[:, kept], sizes[kept]


def determined(x: np.ndarray, y: np.ndarray) -> bool:
    """Return True if the correlations of two bases (n, r) depend on the images.

    Centred, both spans lie in n - 1 dimensions; they share at least r_x + r_y - (n - 1) of them, whatever the images.
    """
    return min(x.shape[1], y.shape[1]) > 0 and x.shape[1] + y.shape[1] < len(x)


def mean_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Compute the mean of the min(r_x, r_y) canonical correlations of two bases (n, r); NaN unless `determined`."""
    from scipy.linalg import svdvals

    return float(svdvals(x.T @ y).mean()) if determined(x, y) else float("nan")
