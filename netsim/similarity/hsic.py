"""HSIC of pairs of representations from sums over rows, CKA from three HSICs, and the floor of the biased estimator.

Letters, for rows x, y of two representations of the same n images, each centred at its mean:

    k = |x|^2,  l = |y|^2,  C = X^T Y,  T_x = sum k,  T_y = sum l,  Q = sum k l

    biased    H = |C|^2                                                         Kornblith et al. 2019, arXiv:1905.00414
    unbiased  H = |C|^2 - n/(n-2) Q + T_x T_y / ((n-1)(n-2)) = n(n-3) HSIC_1    Song et al. 2012, JMLR 13, eq. 5
    CKA = H(X, Y) / sqrt(H(X, X) H(Y, Y))

The second line is Song's U-statistic for linear kernels, without an n x n matrix; the tests compare the two.
The average of CKA over batches is a different quantity (0.53 instead of 0.16 at batch size 16) and is not provided.
"""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from netsim.errors import DataError, SettingsError, nearest

Estimator = Literal["biased", "unbiased"]
EstimatorName = Literal["biased", "unbiased", "debiased"]
ESTIMATORS: tuple[Estimator, ...] = ("biased", "unbiased")

ALIASES: dict[str, Estimator] = {"debiased": "unbiased"}
"""Other names of an estimator: "debiased CKA" is what most papers call the unbiased one."""

MIN_ROWS = 4
"""Fewest rows with a value: the unbiased estimator divides by n - 3."""

ROUNDING = 1e-12
"""Relative size, compared with the sums it was computed from, below which a value is rounding error."""

SLACK = 1e-9
"""Relative rounding error that |C_xx|^2 and T_x^2 may have together; they are equal for rows along one direction."""


@dataclass(frozen=True, eq=False)
class Hsic:
    """Sums of a pair of representations, over all rows and without each shard.

    A network paired with itself is the case Y = X. Where no row remains, as without the only shard, n is 0.

    Attributes
    ----------
    n, square, q, tx, ty : arrays (1 + G,)
        Number of rows, |C|^2, Q, T_x and T_y. Entry 0 covers all rows, entry 1 + s all rows but those of shard s. A
        network's rows may be scaled in one entry otherwise than in another, but are so in all of its pairs.
    """

    n: np.ndarray
    square: np.ndarray
    q: np.ndarray
    tx: np.ndarray
    ty: np.ndarray

    def with_entry(self, entry: int, rest: "Hsic") -> "Hsic":
        """Return these sums with one entry replaced by the sums of `rest` over all of its rows."""
        replaced = {each.name: getattr(self, each.name).copy() for each in fields(self)}
        for name, values in replaced.items():
            values[entry] = getattr(rest, name)[0]
        return Hsic(**replaced)

    def value(self, estimator: EstimatorName) -> np.ndarray:
        """Return H, (1 + G,): n(n-3) times Song's HSIC_1, or (n-1)^2 times the biased HSIC. NaN below 4 rows."""
        estimator = validate_estimator(estimator)
        n = np.where(self.n < MIN_ROWS, np.nan, self.n)
        if estimator == "biased":
            return self.square + 0 * n
        return self.square - n / (n - 2) * self.q + self.tx * self.ty / ((n - 1) * (n - 2))

    def self_value(self, estimator: EstimatorName) -> np.ndarray:
        """Return H(X, X), (1 + G,); NaN where it leaves CKA undefined.

        That is where X is constant, or H does not exceed 0 by more than rounding error. The unbiased H(X, X) is at or
        below 0 if, for example, only a single row differs from the others.
        """
        value = self.value(estimator)
        return np.where(self._constant | ~(value > ROUNDING * self.square), np.nan, value)

    @property
    def _constant(self) -> np.ndarray:
        """True where no variance is left, or only the rounding error of sums: |C_xx|^2 is at most T_x^2 of any rows."""
        return ~((self.tx > 0) & (self.square <= (1 + SLACK) * self.tx * self.ty))

    def why_undefined(self, estimator: EstimatorName, entry: int = 0) -> str:
        """Explain why H(X, X) is undefined, over all rows or in another entry; "" if it is defined."""
        if np.isfinite(self.self_value(estimator)[entry]):
            return ""
        if self.n[entry] < MIN_ROWS:
            return f"CKA requires at least {MIN_ROWS} images, got {self.n[entry]}"
        if self._constant[entry]:
            return "constant: every image has the same representation"
        return "the unbiased H(X, X) is not positive: too few images differ; use more images"


def cka(cross: Hsic, self_x: Hsic, self_y: Hsic, estimator: EstimatorName = "biased") -> np.ndarray:
    """Compute CKA = H(X, Y) / sqrt(H(X, X) H(Y, Y)), (1 + G,). NaN where a self term is undefined; never clamped."""
    assert np.array_equal(cross.n, self_x.n) and np.array_equal(cross.n, self_y.n), "sums over different rows"
    # two roots, not the root of the product: that overflows at the largest float32 features
    return cross.value(estimator) / (np.sqrt(self_x.self_value(estimator)) * np.sqrt(self_y.self_value(estimator)))


def participation_ratio(self_x: Hsic) -> np.ndarray:
    """Compute (tr S)^2 / tr(S^2) of the *sample* covariance S: roughly, how many directions carry the variance.

    Between 1 and min(d, n - 1), (1 + G,). Smaller than the ratio r of the population: about n r / (n + r). NaN for a
    constant representation.
    """
    return self_x.tx * self_x.ty / self_x.self_value("biased")


def null_floor(self_x: Hsic, self_y: Hsic) -> np.ndarray:
    """Compute the exact mean of biased CKA over all permutations of Y's rows: T_x T_y / ((n-1) |C_xx| |C_yy|).

    In sample participation ratios, sqrt(r_x r_y) / (n-1); in those of the population, which are larger, about
    sqrt(r_x r_y / ((n + r_x)(n + r_y))). It is 0.17 for n = 10,000 and d = 2048 isotropic features. Biased values
    close to it carry no information. (1 + G,); NaN if a side is constant.
    """
    return np.sqrt(participation_ratio(self_x)) * np.sqrt(participation_ratio(self_y)) / (self_x.n - 1)


def validate_estimator(estimator: str) -> Estimator:
    """Return the estimator of this name or alias.

    Raises
    ------
    SettingsError
        Unless it is one of `ESTIMATORS` or "debiased", which is "unbiased".

    Examples
    --------
    >>> validate_estimator("debiased")
    'unbiased'
    """
    known: dict[str, Estimator] = {each: each for each in ESTIMATORS} | ALIASES
    if not isinstance(estimator, str) or estimator not in known:
        raise SettingsError(f"unknown estimator {estimator!r}{nearest(str(estimator), known)}")
    return known[estimator]


def validate_enough_rows(n: int, where: str) -> None:
    """Raise DataError if `n` rows are too few for CKA; `where` tells the user where they were counted."""
    if n < MIN_ROWS:
        raise DataError(f"CKA requires at least {MIN_ROWS} rows, got {n} {where}. Use more images.")
