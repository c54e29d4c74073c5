"""Representational similarity analysis: do two networks find the same images dissimilar? n = images, d = features."""

from collections.abc import Callable
from typing import Any

import numpy as np

from netsim.similarity.hsic import ROUNDING
from netsim.similarity.measures import measure
from netsim.similarity.rows import moderate

KRIEGESKORTE_2008 = "Kriegeskorte et al. 2008, Front. Syst. Neurosci. 2:4"


@measure(title="RSA, Pearson", reference=KRIEGESKORTE_2008, images=1000)
def rsa_pearson(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute the Pearson correlation of the dissimilarities of all pairs of images in X (n, d) and Y (n, d').

    The dissimilarity of two images is 1 - the Pearson correlation of their features. A shift and a scale of one
    image's features do not change it, nor does the order of features; a rotation does, and so does a common shift of
    all images, because features are compared within an image.

    Returns
    -------
    float
        In [-1, 1]; 1 if dissimilarities are equal up to one scale and shift, about 0 for unrelated rows. NaN where an
        image's features are all equal, because they correlate with nothing (always for d = 1), and where all pairs of
        images are equally dissimilar.
    """
    from scipy.stats import pearsonr

    return _correlation(pearsonr, X, Y)


@measure(title="RSA, Spearman", reference=KRIEGESKORTE_2008, images=1000)
def rsa_spearman(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute the Spearman (rank) correlation of the dissimilarities that `rsa_pearson` compares.

    Returns
    -------
    float
        In [-1, 1]; 1 if dissimilarities are in the same order. NaN where `rsa_pearson` is NaN.
    """
    from scipy.stats import spearmanr

    return _correlation(spearmanr, X, Y)


def _correlation(correlate: Callable[..., Any], X: np.ndarray, Y: np.ndarray) -> float:
    if len(X) < 3:  # at most one pair of images
        return float("nan")
    x, y = _dissimilarities(X), _dissimilarities(Y)
    if not (_vary(x) and _vary(y)):
        return float("nan")
    return float(correlate(x, y).statistic)


def _dissimilarities(rows: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import pdist

    with np.errstate(invalid="ignore", divide="ignore"):  # an image whose features are all equal
        return pdist(moderate(np.asarray(rows, dtype=np.float64)), "correlation")


def _vary(dissimilarities: np.ndarray) -> bool:
    """Return True if all are finite and they differ by more than rounding error."""
    return bool(np.isfinite(dissimilarities).all() and np.ptp(dissimilarities) > ROUNDING)
