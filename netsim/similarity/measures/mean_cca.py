"""Mean canonical correlation: how much of the linear content of one representation is linear in the other."""

import numpy as np

from netsim.similarity.measures import measure
from netsim.similarity.measures._canonical import directions, mean_correlation


@measure(
    title="Mean canonical correlation",
    reference="Hotelling 1936, Biometrika 28:321-377; Björck & Golub 1973, Math. Comp. 27:579-594",
    images=5000,
)
def mean_cca(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute the mean of the min(rank) canonical correlations of X (n, d) and Y (n, d').

    Invertible linear maps and shifts of either side do not change it, so a direction of little variance counts as much
    as any other.

    Returns
    -------
    float
        In [0, 1]; 1 if one side is a linear function of the other. Above 0 for unrelated rows: their squared
        correlations are max(d, d') / (n - 1) on average. NaN if a side is constant, or the ranks add up to n or more:
        some correlations are then 1 whatever the images. Errors are estimated on half of the images, which must exceed
        the sum of the ranks too.
    """
    return mean_correlation(directions(X)[0], directions(Y)[0])
