"""Intervals for sweeps that look at their results as they grow, and stop when these are known. G = shards.

Who looks after every shard, and stops at the first interval that pleases, is misled by the usual interval: it covers in
95 % of the looks, and not in 95 % of the sweeps that stopped. Two rules keep their word, each for its own question:

*   **A test** (two rows differ, or are equivalent) stops at what the estimate is. Its interval must hold at all looks
    at once: a confidence sequence. For shards whose values are normal, the ratio of likelihoods of the t statistic,
    mixed over effects delta = mean / standard deviation drawn from N(0, g), is a test martingale under the hypothesis
    whatever the standard deviation,

        R_G = (1 + G g)^(-1/2) ((1 + u) / (1 + u / (1 + G g)))^(G/2),   u = t^2 / (G - 1),

    so that it ever reaches 1 / alpha with probability alpha at most (Ville). Solved for t, it is a multiple of the
    standard error. With many shards it is the asymptotic confidence sequence of the normal mixture, which holds for any
    statistic that is asymptotically a mean over shards with a consistent variance; CKA, its means and their differences
    are such functions of U-statistics of degree 2 to 4, and the jackknife estimates their variance.
*   **A width** (known to -+ h) stops at what the standard error is, and not at what the estimate is. These are
    independent for a mean of normal values, so that only standard errors that are too small by chance mislead.
    Student's t of `WIDTH_LEVEL` instead of 95 % makes up for them: it covers in 95 % of the stops, whatever the spread.

Sources: Wang and Ramdas 2025, Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance,
Sequential Analysis 44, arXiv:2310.03722; Lindon, Ham, Tingley and Bojinov 2022, Anytime-valid linear models, arXiv:
2210.08589; Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, Time-uniform central limit theory and asymptotic
confidence sequences, Annals of Statistics 52, 2613-2640, arXiv:2103.06476; for a width, Chow and Robbins 1965, On the
asymptotic theory of fixed-width sequential confidence intervals, Annals of Mathematical Statistics 36, 457-462, and
Starr 1966, The performance of a sequential procedure for the fixed-width interval estimation of the mean, ibid. 37,
36-50. `benchmarks/until.py` measures both on CKA.
"""

from collections.abc import Iterator

import numpy as np

from netsim.similarity.uncertainty import ENOUGH_SHARDS, LEVEL, Estimate

FIRST_LOOK = ENOUGH_SHARDS
"""Shards at the first look: fewer hardly tell the standard error."""

STEP = 8
"""A look follows when the shards are more by one in so many: each look reads the representations of all of them."""

TARGET = 16
"""Shards for which a confidence sequence is made narrow. Fixed, so that sweeps may be extended beyond their plan."""

WIDTH_LEVEL = 0.97
"""Level of Student's t with which a width is measured; the interval of a sweep that stopped at it covers in 95 %."""


def looks(shards: int) -> Iterator[int]:
    """Yield the numbers of shards at which a sweep of at most `shards` looks at its results; the last is `shards`.

    Examples
    --------
    >>> list(looks(32))
    [8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 27, 30, 32]
    """
    look = FIRST_LOOK
    while look < shards:
        yield look
        look += max(1, look // STEP)
    yield shards


def anytime_interval(estimate: Estimate) -> tuple[float, float]:
    """Return a 95 % interval that holds at all looks at once, so that it may decide when to stop.

    Parameters
    ----------
    estimate
        A value with its jackknife error over shards.

    Returns
    -------
    tuple of float
        Its ends; infinite with so few shards that every value is possible, NaN where the error is unknown.

    References
    ----------
    Wang and Ramdas 2025, arXiv:2310.03722, the t-test martingale of a Gaussian mixture; module docstring.

    Examples
    --------
    >>> from netsim.similarity.uncertainty import Estimate
    >>> low, high = anytime_interval(Estimate(0.25, 0.01, df=15))
    >>> round(low, 3), round(high, 3)
    (0.215, 0.285)
    """
    return _around(estimate, float(anytime_factor(estimate.df + 1)))


def width_interval(estimate: Estimate) -> tuple[float, float]:
    """Return a 95 % interval that holds where a sweep stops because it is narrow, whatever its value.

    Parameters
    ----------
    estimate
        A value with its jackknife error over shards.

    Returns
    -------
    tuple of float
        Its ends; NaN where the error is unknown.

    References
    ----------
    Chow and Robbins 1965, with Student's t of `WIDTH_LEVEL`; module docstring.

    Examples
    --------
    >>> from netsim.similarity.uncertainty import Estimate
    >>> low, high = width_interval(Estimate(0.25, 0.01, df=15))
    >>> round(low, 3), round(high, 3)
    (0.226, 0.274)
    """
    return _around(estimate, float(width_factor(estimate.df + 1)))


def anytime_factor(shards: np.ndarray | int) -> np.ndarray:
    """Compute half the width of `anytime_interval` in standard errors, for numbers of shards of any shape."""
    shards = np.asarray(shards, dtype=np.float64)
    alpha = 1 - LEVEL
    spread = 1 + shards * _effect_variance(alpha)
    # R = 1 / alpha where (1 + u) / (1 + u / spread) = bound
    bound = (np.sqrt(spread) / alpha) ** (2 / shards)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.where(bound < spread, (bound - 1) / (1 - bound / spread), np.inf)
        return np.sqrt((shards - 1) * u)


def width_factor(shards: np.ndarray | int) -> np.ndarray:
    """Compute half the width of `width_interval` in standard errors, for numbers of shards of any shape."""
    from scipy import special

    return special.stdtrit(np.asarray(shards, dtype=np.float64) - 1, (1 + WIDTH_LEVEL) / 2)


def _effect_variance(alpha: float) -> float:
    """Return the variance g of effects for which the interval is narrowest at `TARGET` shards, but for a few percent.

    Source: Waudby-Smith et al. 2024, arXiv:2103.06476, eq. 29: rho^2.
    """
    log = -2 * np.log(alpha)
    return float((log + np.log(log + 1)) / TARGET)


def _around(estimate: Estimate, factor: float) -> tuple[float, float]:
    half = factor * estimate.se
    return estimate.value - half, estimate.value + half
