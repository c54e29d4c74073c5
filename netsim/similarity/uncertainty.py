"""Standard errors and intervals of similarity values. G = shards, K = random halves.

The unit of sampling is the image: an error here describes how a value would vary over other images, not over networks
trained again. Values that can be computed without each shard use the `jackknife`; values computed from all images at
once use random halves (`half_sampling`). A bootstrap would be wrong for similarity, because images drawn twice look
alike: it gave 0.026 instead of 0 at n = 400, with an interval that excluded 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
"""Confidence level of all intervals: the share of experiments whose interval covers what it is an interval of."""

FEWEST_SHARDS, ENOUGH_SHARDS = 5, 8
"""Number of shards below which errors are warned of, and from which on they are recommended."""

EXPECTED = "expected value at this n"
"""The quantity that the interval of a biased estimate covers; any other covers the value over all images."""


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error.

    Attributes
    ----------
    value, se : float
        The value and its standard error; NaN where undefined.
    df : int
        Degrees of freedom with which the standard error itself was estimated.
    biased : bool
        True if the expected value at this n is not the value over all images, as for biased CKA. The interval then
        covers the expected value, and no test against 0 has a meaning.
    """

    value: float
    se: float
    df: int
    biased: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval, value -+ t(df) se; of the expected value at this n if `biased`.

        Symmetric about the value, so that an end may be outside the range of the measure. NaN where the error is
        unknown.
        """
        half = float(half_width(np.asarray(self.se), self.df))
        return self.value - half, self.value + half

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the t test that the value is 0. NaN unless the error is positive, and if `biased`.

        Of several tests, adjust the p-values together: `netsim.statistics.multiple.holm`.
        """
        if self.biased or not (self.se > 0 and self.df > 0):
            return float("nan")
        from scipy import special  # scipy.stats takes a second to import, in every worker

        return float(2 * special.stdtr(self.df, -abs(self.value) / self.se))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON; None where undefined, because JSON has no NaN.

        A `biased` estimate has no "p_value", but "interval_of", which says what its interval covers.
        """
        numbers = {"value": self.value, "se": self.se, "interval": list(self.interval)}
        if self.biased:
            return {name: plain(number) for name, number in numbers.items()} | {"interval_of": EXPECTED}
        return {name: plain(number) for name, number in (numbers | {"p_value": self.p_value}).items()}


def plain(value: Any) -> Any:
    """Convert a number, or nested lists of numbers, for JSON, which has no NaN: None where it is not finite."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if np.isfinite(value) else None


def half_width(se: np.ndarray, df: int) -> np.ndarray:
    """Return t(df) se, half the width of the 95 % interval, for standard errors of any shape."""
    from scipy import special

    return se * (special.stdtrit(df, (1 + LEVEL) / 2) if df > 0 else np.nan)


def few_shards(shards: int) -> str:
    """Warn of errors that rest on fewer than `FEWEST_SHARDS` shards; "" for as many or more.

    Examples
    --------
    >>> few_shards(2).partition(":")[0], few_shards(16)
    ('Few shards', '')
    """
    if shards >= FEWEST_SHARDS:
        return ""
    wide, usual = (float(half_width(np.asarray(1.0), count - 1)) for count in (shards, ENOUGH_SHARDS))
    return (
        f"Few shards: standard errors rest on {shards} shards of images, so that 95 % intervals reach {wide:.1f} "
        f"standard errors to either side, instead of {usual:.1f} with {ENOUGH_SHARDS} shards, and the standard errors "
        f"themselves are hardly known. Use at least {ENOUGH_SHARDS} shards: raise pairs.count, or lower "
        f"pairs.shard_size, which requires a new store."
    )


def jackknife(value: float, replicates: np.ndarray, *, biased: bool = False) -> Estimate:
    """Return `value` with the standard error of its leave-one-out replicates (G,); `biased` as in `Estimate`."""
    return Estimate(float(value), float(jackknife_se(replicates)), len(replicates) - 1, biased)


def half_sampling(value: float, halves: np.ndarray, *, biased: bool = False) -> Estimate:
    """Return `value` with the standard error of its values on random halves of the images.

    Values on halves drawn without replacement spread about the value on all n images as those spread about the truth:
    for a mean (1 - 1/2) s^2 / (n/2) = s^2 / n (Politis, Romano, Wolf 1999, Subsampling, ch. 2). The bias of a measure
    on few images shifts all halves alike and does not count.

    Parameters
    ----------
    value
        The value on all images.
    halves
        Values on K random halves, (K,), each drawn without replacement.
    biased
        As in `Estimate`.
    """
    halves = np.asarray(halves, dtype=np.float64)
    return Estimate(float(value), float(halves.std(ddof=1)), len(halves) - 1, biased)


def jackknife_se(replicates: np.ndarray) -> np.ndarray:
    """Compute the jackknife standard error sqrt((G-1)/G sum (v - mean v)^2) of leave-one-out replicates v (Efron 1982).

    Replicates are (G, ...), the result is (...). Valid for shards of equal size; NaN for a single shard.
    """
    replicates = np.asarray(replicates, dtype=np.float64)
    shards = len(replicates)
    if shards < 2:
        return np.full(replicates.shape[1:], np.nan)
    return np.sqrt((shards - 1) / shards * np.square(replicates - replicates.mean(axis=0)).sum(axis=0))
