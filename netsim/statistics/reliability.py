"""Reliability of a value over seeds: how much of its error belongs to the targets, and how much to their seeds.

K = draws of seeds for the same targets, G = shards. The pseudo-value of a shard (Tukey 1958) is what it contributes to
a value: their mean is the jackknife's value, their variance over G the square of its standard error. So shards are the
subjects of an intraclass correlation, and draws are their raters.

With one draw each, N more inversions help most when they have targets of their own: a second draw for the same targets
leaves (1 + ICC) / 2 of the variance of a value, as many new targets leave 1 / 2.

Sources: Shrout and Fleiss 1979, Intraclass correlations: uses in assessing rater reliability, Psychological Bulletin
86, 420-428, case 3; McGraw and Wong 1996, Forming inferences about some intraclass correlation coefficients,
Psychological Methods 1, 30-46, case ICC(C,1), table 7 for the interval. Their ICC(1) would count the difference of the
means of draws as one observation more of what seeds do; without it, all parts are made of the standard errors of each
draw and of their difference.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from netsim.similarity.uncertainty import LEVEL, plain


@dataclass(frozen=True)
class SeedReliability:
    """Parts of the variance of a value over images.

    Attributes
    ----------
    icc : float
        Share of targets in the variance of a value with one seed for each target, at most 1; noise may make it
        negative. NaN where undefined.
    interval : tuple of float
        95 % interval of `icc`, from the F distribution with G - 1 and (G - 1) (K - 1) degrees of freedom.
    targets, seeds : float
        Standard errors that the value would have if only targets, or only the seeds of these targets, were drawn again.
        Their squares add up to the mean squared standard error of all draws, unless `icc` is negative.
    """

    icc: float
    interval: tuple[float, float]
    targets: float
    seeds: float

    @property
    def after_second_draw(self) -> float:
        """Share of the variance that remains if every target gets a second seed; 0.5 remains with twice the targets."""
        return (1 + max(self.icc, 0)) / 2

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values; None where undefined."""
        numbers = {name: plain(getattr(self, name)) for name in ("icc", "targets", "seeds", "after_second_draw")}
        return numbers | {"interval": plain(list(self.interval))}


def seed_reliability(values: ArrayLike, replicates: ArrayLike) -> SeedReliability:
    """Divide the variance of a value over images into targets and seeds, from draws of seeds for the same targets.

    Parameters
    ----------
    values
        The value with each draw of seeds, (K,).
    replicates
        The same without each shard of targets, (K, G); in all draws, shard g has the same targets.

    Returns
    -------
    SeedReliability
        NaN for fewer than 2 shards, or where the value is undefined or does not vary.

    Raises
    ------
    ValueError
        If the shapes do not fit together, or there is one draw only.

    References
    ----------
    Shrout and Fleiss 1979, case 3; McGraw and Wong 1996, table 7. See the module.

    Examples
    --------
    Eight shards whose targets matter three times as much as their seeds:

    >>> targets, seeds = np.tile([-3.0, 3.0], 4), np.repeat([-1.0, 1.0], 4)
    >>> shards = 0.5 + np.stack([targets + seeds, targets - seeds]) / 100
    >>> values = shards.mean(axis=1)
    >>> parts = seed_reliability(values, (8 * values[:, None] - shards) / 7)
    >>> round(parts.icc, 2), round(parts.targets / parts.seeds, 1), round(parts.after_second_draw, 2)
    (0.8, 2.0, 0.9)
    """
    values, replicates = (np.asarray(each, dtype=np.float64) for each in (values, replicates))
    if replicates.ndim != 2 or values.shape != replicates.shape[:1] or len(values) < 2:
        raise ValueError(
            f"values and replicates must be (K,) and (K, G) with K of at least 2, got {values.shape} and "
            f"{replicates.shape}. Give one row for each draw of seeds."
        )
    draws, shards = replicates.shape
    if shards < 2:
        return SeedReliability(np.nan, (np.nan, np.nan), np.nan, np.nan)
    pseudo = shards * values[:, None] - (shards - 1) * replicates
    between, within = _mean_squares(pseudo)
    targets = np.sqrt(max((between - within) / draws, 0) / shards) if np.isfinite(between) else np.nan
    icc, interval = _intraclass_correlation(between, within, subjects=shards, raters=draws)
    return SeedReliability(icc, interval, float(targets), float(np.sqrt(within / shards)))


def _mean_squares(ratings: np.ndarray) -> tuple[float, float]:
    """Return the mean squares of a two-way table (raters, subjects): between subjects, and of the residual."""
    raters, subjects = ratings.shape
    of_subjects, of_raters = ratings.mean(axis=0), ratings.mean(axis=1, keepdims=True)
    residual = ratings - of_subjects - of_raters + ratings.mean()
    within = np.square(residual).sum() / ((raters - 1) * (subjects - 1))
    return float(raters * of_subjects.var(ddof=1)), float(within)


def _intraclass_correlation(
    between: float, within: float, *, subjects: int, raters: int
) -> tuple[float, tuple[float, float]]:
    """Return ICC(C,1) and its interval: (F - 1) / (F + K - 1), of F and of F divided by its quantiles."""
    from scipy import special

    df, more = subjects - 1, (subjects - 1) * (raters - 1)
    quantile = (1 + LEVEL) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        # a = 1 / F, which is 0 where draws agree
        a = np.float64(within) / np.float64(between)
        ends = a * special.fdtri(df, more, quantile), a / special.fdtri(more, df, quantile)
        icc, low, high = (float((1 - each) / (1 + (raters - 1) * each)) for each in (a, *ends))
    return icc, (low, high)
