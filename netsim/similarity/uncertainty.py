"""How far a value may be from what all images would give. G = shards.

Images are the unit: an error here says how a value would vary over other images, not over networks trained again.
Where shards can be left out (`jackknife`), that is done; what is computed from all images at once takes random halves
(`half_sampling`). A bootstrap would be wrong for similarity: images drawn twice look alike, which gave 0.026 for 0 at
n = 400 with an interval that excluded 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special  # scipy.stats takes a second to import, in every worker

LEVEL = 0.95
"""Of the intervals: the share of experiments whose interval holds the value of all images."""


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error, and the degrees of freedom that the error itself was estimated with."""

    value: float
    se: float
    df: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval: value -+ t(df) se. NaN where the error is unknown."""
        half = float(half_width(np.asarray(self.se), self.df))
        return self.value - half, self.value + half

    @property
    def p_value(self) -> float:
        """Two-sided, of the value being 0: how often chance alone gives as much (t test). NaN if the error is not > 0.

        Many tests at once find something: multiply by their number (Bonferroni), or use scipy's
        false_discovery_control.
        """
        if not (self.se > 0 and self.df > 0):
            return float("nan")
        return float(2 * special.stdtr(self.df, -abs(self.value) / self.se))

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for what is undefined, as JSON has no NaN."""
        numbers = {"value": self.value, "se": self.se, "interval": list(self.interval), "p_value": self.p_value}
        return {name: plain(number) for name, number in numbers.items()}


def plain(value: Any) -> Any:
    """A number, or nested lists of them, for JSON, which has no NaN: None where it is not finite."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if np.isfinite(value) else None


def half_width(se: np.ndarray, df: int) -> np.ndarray:
    """Half the 95 % interval of values with these standard errors: t(df) se, any shape."""
    return se * (special.stdtrit(df, (1 + LEVEL) / 2) if df > 0 else np.nan)


def jackknife(value: float, left_out: np.ndarray) -> Estimate:
    """A value with the error of its delete-one-shard values (G,)."""
    return Estimate(float(value), float(jackknife_se(left_out)), len(left_out) - 1)


def half_sampling(value: float, halves: np.ndarray) -> Estimate:
    """A value with the error of its values on random halves of the images (K,), drawn without replacement.

    Half of n images without replacement spread about the value of all n as those spread about the truth: for a mean
    (1 - 1/2) s^2 / (n/2) = s^2 / n (Politis, Romano, Wolf 1999, Subsampling, ch. 2). What a measure is biased by with
    few images shifts all halves alike and does not count.
    """
    halves = np.asarray(halves, dtype=np.float64)
    return Estimate(float(value), float(halves.std(ddof=1)), len(halves) - 1)


def jackknife_se(left_out: np.ndarray) -> np.ndarray:
    """Standard error from delete-one-shard values (G, ...) -> (...): sqrt((G-1)/G sum (v - mean v)^2). Efron 1982.

    For shards of equal size. NaN for a single shard.
    """
    left_out = np.asarray(left_out, dtype=np.float64)
    shards = len(left_out)
    if shards < 2:
        return np.full(left_out.shape[1:], np.nan)
    return np.sqrt((shards - 1) / shards * np.square(left_out - left_out.mean(axis=0)).sum(axis=0))
