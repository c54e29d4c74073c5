"""Procrustes similarity: how close two representations come by rotation, shift and scale. n = images, d = features."""

import numpy as np
from scipy.linalg import svdvals

from netsim.similarity.measures import measure
from netsim.similarity.measures._rows import centred


@measure(
    title="Procrustes similarity",
    source="Ding et al. 2021, NeurIPS (arXiv:2108.01661), section 2; Williams et al. 2021 (arXiv:2110.14739)",
    images=1000,
)
def procrustes(X: np.ndarray, Y: np.ndarray) -> float:
    """Nuclear norm of X^T Y, for X (n, d) and Y (n, d') centred and scaled to Frobenius norm 1.

    In [0, 1]; 1 if X and Y are equal up to rotation, reflection, shift and one scale a side, which do not change it.
    1 - d^2/2 of the Procrustes distance d; scipy.spatial.procrustes gives 1 - (the same)^2 as disparity.
    Above 0 for unrelated rows: about 8 / (3 pi) sqrt(d/n) for d = d' isotropic features, and close to 1 for n < d.
    NaN if a side is constant, as a single image is.
    """
    x, y = _within_n(centred(X)), _within_n(centred(Y))
    scale = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    return float(svdvals(x.T @ y).sum() / scale) if scale > 0 else float("nan")


def _within_n(rows: np.ndarray) -> np.ndarray:
    """(n, d) -> (n, min(n, d)), a rotation of the rows: n images span no more, and an SVD costs its width cubed."""
    return np.asarray(np.linalg.qr(rows.T, mode="r")).T if rows.shape[1] > len(rows) else rows
