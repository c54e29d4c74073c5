"""Influence of single images on linear CKA. n = images, d = features.

Source: Davari et al. 2023, Reliability of CKA as a Similarity Measure in Deep Learning, ICLR, arXiv:2210.16156, shows
that moving one image far out can give CKA almost any value. The influence function used here is the derivative of CKA
in the weight of an image (Hampel 1974, JASA 69, 383-393).
"""

import numpy as np

from netsim.similarity.hsic import ROUNDING, validate_enough_rows
from netsim.similarity.measures._rows import centred
from netsim.similarity.rows import Rows, precision, validate_rows, validate_same_rows, without_rounding

MUCH = 0.1
"""Share of all influence above which a single image is warned of."""

BLOCK = 500
"""Images whose Gram matrices are in memory at a time."""


def image_influence(X: Rows, Y: Rows) -> np.ndarray:
    """Compute the influence of each image on biased linear CKA, by how much CKA grows with its weight.

    ``IF_i = CKA (2 x'C_xy y / |C_xy|^2 - x'C_xx x / |C_xx|^2 - y'C_yy y / |C_yy|^2)`` for the rows x and y of image i,
    each centred at its mean, with C_xy = X'Y and so on. To first order in 1/n, it is CKA minus CKA without the image.

    Parameters
    ----------
    X, Y : array or tensor, (n, d) and (n, d')
        Real numbers, one row per image, the same n >= 4 images in the same order.

    Returns
    -------
    numpy.ndarray
        (n,), in units of CKA. Positive for images that make the sides look alike; the sum is 0. Shifts, rotations and a
        common scale of either side do not change it. NaN if a side is constant but for the rounding of its dtype.

    Raises
    ------
    DataError
        Fewer than 4 rows, row counts that differ, values that are complex, masked or not finite, or arrays that are
        not (n, d).

    References
    ----------
    Davari et al. 2023, Reliability of CKA as a Similarity Measure in Deep Learning, ICLR, arXiv:2210.16156, theorem 1.
    Hampel 1974, The Influence Curve and Its Role in Robust Estimation, JASA 69, 383-393.

    Examples
    --------
    >>> import numpy as np
    >>> from netsim.similarity.influence import image_influence
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(2, 200, 10))
    >>> X[7] = Y[7] = 30
    >>> influence = image_influence(X, Y)
    >>> int(influence.argmax()), bool(abs(influence.sum()) < 1e-9)
    (7, True)
    """
    sides = {"X": validate_rows(X, "X"), "Y": validate_rows(Y, "Y")}
    validate_same_rows(sides, where="")
    validate_enough_rows(len(sides["X"]), "in X and Y")
    x, y = (
        centred(without_rounding(rows, precision(given))) for rows, given in zip(sides.values(), (X, Y), strict=True)
    )
    of_xy, of_xx, of_yy = _parts(x, y)
    xy, xx, yy = (float(part.sum()) for part in (of_xy, of_xx, of_yy))
    if not (xx > 0 and yy > 0):
        return np.full(len(x), np.nan)
    return (2 * of_xy - xy * (of_xx / xx + of_yy / yy)) / (np.sqrt(xx) * np.sqrt(yy))


def largest_share(influence: np.ndarray) -> float:
    """Return the share of one image, the largest, in the sum of the absolute influences (n,) of all images.

    In [1/n, 1]. NaN where the influences are, or are 0 but for rounding, as those of a network with itself.

    Examples
    --------
    >>> largest_share(np.array([0.01, -0.03, 0.02]))
    0.5
    """
    sizes = np.abs(influence)
    return float(sizes.max() / sizes.sum()) if sizes.sum() > ROUNDING else float("nan")


def _parts(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Split |X'Y|^2, |X'X|^2 and |Y'Y|^2 into the parts of images, such as x'C_xy y: (3, n).

    From features or from Gram matrices, whichever takes fewer multiplications.
    """
    (n, d), e = x.shape, y.shape[1]
    if 2 * (d * e + d * d + e * e) <= n * (d + e):
        return np.stack([np.vecdot(a @ (a.T @ b), b) for a, b in ((x, y), (x, x), (y, y))])
    parts = np.empty((3, n))
    for start in range(0, n, BLOCK):
        block = slice(start, start + BLOCK)
        K, L = x[block] @ x.T, y[block] @ y.T
        parts[:, block] = [np.vecdot(a, b) for a, b in ((K, L), (K, K), (L, L))]
    return parts
