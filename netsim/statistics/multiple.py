"""Adjusted p-values: what a family of several tests is worth. K = tests.

Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70, https://www.jstor.org/stable/4615733.
"""

from collections.abc import Sequence

import numpy as np


def holm(p_values: np.ndarray | Sequence[float]) -> np.ndarray:
    """Adjust p-values for the number of tests by Holm's step-down method.

    Rejecting what is at most alpha keeps the chance of one false rejection or more, in the whole family, at alpha or
    below, however the tests depend on each other. Cells of one matrix share networks and images, so they do depend.

    Parameters
    ----------
    p_values
        (...), K in all, in [0, 1]. A NaN is no test: it stays NaN, and does not count in K.

    Returns
    -------
    numpy.ndarray
        Adjusted p-values of the same shape, in [0, 1] and never below the given ones.

    Raises
    ------
    ValueError
        If a p-value is below 0 or above 1.

    References
    ----------
    Holm 1979, sec. 3: with p(1) <= ... <= p(K), the adjusted value of p(k) is max over j <= k of (K - j + 1) p(j), at
    most 1.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, dtype=np.float64)
    if ((given < 0) | (given > 1)).any():
        wrong = given[(given < 0) | (given > 1)][0]
        raise ValueError(f"p-values must be from 0 to 1, got {wrong:g}. Pass p-values, not test statistics.")
    adjusted = np.full(given.shape, np.nan)
    tested = np.isfinite(given)
    p = given[tested]
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    back = np.empty(len(p))
    back[order] = np.minimum(stepped, 1)
    adjusted[tested] = back
    return adjusted
