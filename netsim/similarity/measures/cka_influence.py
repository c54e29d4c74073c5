"""Influence of the most influential image on linear CKA: does a cell depend on many images or on one? n = images."""

import numpy as np

from netsim.similarity.hsic import MIN_ROWS
from netsim.similarity.influence import image_influence, largest_share
from netsim.similarity.measures import measure


@measure(
    title="Largest influence of one image on CKA (share of all)",
    reference="Davari et al. 2023, ICLR (arXiv:2210.16156), theorem 1; Hampel 1974, JASA 69:383-393",
    images=2000,
)
def cka_influence(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute the share of one image, the largest, in the sum of absolute influences on CKA of X (n, d) and Y (n, d').

    The influence of an image is the derivative of biased CKA in its weight
    (`netsim.similarity.influence.image_influence`, which tells which image it is). This is no similarity: it says how
    far a cell can be trusted. Rotation, shift and scale of either side do not change it.

    Returns
    -------
    float
        In [1/n, 1]; usually a few times 1/n. Above 0.1 one image carries the value, and `netsim results` warns. About
        twice as large on half of the images, so its error says little. NaN if a side is constant, if both are equal up
        to rotation, shift and scale, so that no image changes CKA, or for fewer than 4 images.
    """
    return largest_share(image_influence(X, Y)) if len(X) >= MIN_ROWS else float("nan")
