"""PWCCA: canonical correlations weighted by how much of X each accounts for. n = images, c = canonical variates."""

import numpy as np

from netsim.similarity.measures import measure
from netsim.similarity.measures._canonical import determined, directions
from netsim.similarity.measures._rows import centred


@measure(
    title="Projection-weighted CCA (weights of the row's network)",
    reference="Morcos et al. 2018, NeurIPS (arXiv:1806.05759), section 3",
    images=5000,
    symmetric=False,
)
def pwcca(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute the mean of the min(rank) canonical correlations of X (n, d) and Y (n, d'), weighted by X.

    The weights are sum_j |<h_i, x_j>|, where h_i are the canonical variates of X and x_j its features, so pwcca(Y, X)
    differs. The published code (google/svcca, pwcca.py) differs: it takes the side with fewer features, leaves out the
    whitening in the variates of its weights, adds the features' means back to them before it makes them orthonormal,
    and does not centre the x_j. Invertible linear maps of Y, shifts of either side, and a common scale or another order
    of X's features do not change it; a rotation of X does, because it changes the terms of the weights.

    Returns
    -------
    float
        In [0, 1]; 1 if one side is a linear function of the other. Above 0 for unrelated rows. NaN if a side is
        constant, or the ranks add up to n or more.
    """
    from scipy.linalg import svd

    x, y = directions(X)[0], directions(Y)[0]
    if not determined(x, y):
        return float("nan")
    turn, correlations, _ = svd(x.T @ y, full_matrices=False)
    weights = np.abs((x @ turn).T @ centred(X)).sum(axis=1)  # (c,)
    return float(np.average(correlations, weights=weights))
