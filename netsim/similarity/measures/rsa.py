"""Representational similarity analysis: do two networks find the same images unlike each other? n = images."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from scipy.spatial.distance import pdist

from netsim.similarity.hsic import ROUNDING
from netsim.similarity.measures import measure

SOURCE = "Kriegeskorte et al. 2008, Front. Syst. Neurosci. 2:4"


@measure(title="RSA, Pearson", source=SOURCE, images=1000)
def rsa_pearson(X: np.ndarray, Y: np.ndarray) -> float:
    """Pearson correlation of the dissimilarities of all pairs of images in X (n, d) and Y (n, d').

    The dissimilarity of two images is 1 - the Pearson correlation of their features. In [-1, 1]; 1 = equal up to one
    scale and shift of dissimilarities; about 0 for unrelated rows. NaN where an image's features are all equal, as it
    correlates with nothing, and where all images are equally unlike each other; always for d = 1.
    A shift and a scale of one image's features change nothing, nor does the order of features; a rotation does, and a
    shift of all images, as features are compared within an image.
    """
    return _correlation(stats.pearsonr, X, Y)


@measure(title="RSA, Spearman", source=SOURCE, images=1000)
def rsa_spearman(X: np.ndarray, Y: np.ndarray) -> float:
    """The same by ranks: 1 = the same order of dissimilarities. In [-1, 1]; NaN as for `rsa_pearson`."""
    return _correlation(stats.spearmanr, X, Y)


def _correlation(correlate: Callable[..., Any], X: np.ndarray, Y: np.ndarray) -> float:
    if len(X) < 3:  # a single pair of images
        return float("nan")
    x, y = _dissimilarities(X), _dissimilarities(Y)
    if not (_vary(x) and _vary(y)):
        return float("nan")
    return float(correlate(x, y).statistic)


def _dissimilarities(rows: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):  # an image whose features are all equal
        return pdist(np.asarray(rows, dtype=np.float64), "correlation")


def _vary(dissimilarities: np.ndarray) -> bool:
    """Defined, and different by more than rounding."""
    return bool(np.isfinite(dissimilarities).all() and np.ptp(dissimilarities) > ROUNDING)
