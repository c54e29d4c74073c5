"""SVCCA: mean canonical correlation of the principal directions only."""

import numpy as np

from netsim.similarity.measures import measure
from netsim.similarity.measures._canonical import directions, mean_correlation

VARIANCE = 0.99
"""Share of each side's variance that the kept directions carry: the fewest directions that carry it are kept."""


@measure(
    title="SVCCA (99 % of variance)", reference="Raghu et al. 2017, NeurIPS (arXiv:1706.05806), section 2", images=5000
)
def svcca(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute the mean canonical correlation of the first principal directions of X (n, d) and Y (n, d').

    Each side keeps the fewest directions that carry 99 % of its variance. Rotation, shift and one scale per side do not
    change it; other linear maps do, because they change the principal directions.

    Returns
    -------
    float
        In [0, 1]; 1 if the directions of one side are linear functions of those of the other. Above 0 for unrelated
        rows: squared correlations are max(kept) / (n - 1) on average. NaN if a side is constant, or the directions
        kept of both sides add up to n or more.
    """
    return mean_correlation(_principal(X), _principal(Y))


def _principal(X: np.ndarray) -> np.ndarray:
    basis, sizes = directions(X)
    carried = np.cumsum(sizes**2)
    return basis[:, : 1 + np.count_nonzero(carried < VARIANCE * carried[-1])] if len(sizes) else basis
