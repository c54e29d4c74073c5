"""Procrustes similarity: closeness of two representations after rotation, shift and scale. n = images, d = features."""

import numpy as np

from netsim.similarity.measures import measure
from netsim.similarity.measures._rows import centred


@measure(
    title="Procrustes similarity",
    reference="Ding et al. 2021, NeurIPS (arXiv:2108.01661), section 2; Williams et al. 2021 (arXiv:2110.14739)",
    images=1000,
)
def procrustes(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute the nuclear norm of X^T Y, for X (n, d) and Y (n, d') centred and scaled to Frobenius norm 1.

    Equals 1 - D^2/2 for the Procrustes distance D; the disparity of scipy.spatial.procrustes is 1 minus its square.
    Rotation, reflection, shift and one scale per side do not change it.

    Returns
    -------
    float
        In [0, 1]; 1 if X and Y are equal up to these. Above 0 for unrelated rows: about 8 / (3 pi) sqrt(d/n) for
        d = d' isotropic features, and close to 1 for n < d. NaN if a side is constant, as a single image is.
    """
    from scipy.linalg import svdvals

    x, y = _reduced(centred(X)), _reduced(centred(Y))
    scale = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    return float(svdvals(x.T @ y).sum() / scale) if scale > 0 else float("nan")


def _reduced(rows: np.ndarray) -> np.ndarray:
    """Rotate rows (n, d) to (n, min(n, d)): n images span no more, and the cost of an SVD is cubic in the width."""
    return np.asarray(np.linalg.qr(rows.T, mode="r")).T if rows.shape[1] > len(rows) else rows
