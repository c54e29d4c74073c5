"""HSIC of pairs of representations from sums over rows, CKA from three HSICs, and the floor of the biased estimator.

Letters, for rows x, y of two representations of the same n images, each centred at its mean:

    k = |x|^2,  l = |y|^2,  C = X^T Y,  T_x = sum k,  T_y = sum l,  Q = sum k l

    biased    H = |C|^2                                                         Kornblith et al. 2019, arXiv:1905.00414
    unbiased  H = |C|^2 - n/(n-2) Q + T_x T_y / ((n-1)(n-2)) = n(n-3) HSIC_1    Song et al. 2012, JMLR 13, eq. 5
    CKA = H(X, Y) / sqrt(H(X, X) H(Y, Y))

The second line is Song's U-statistic for linear kernels, without an n x n matrix; the tests hold both together.
Averages of CKA over batches are something else (0.53 for 0.16 at batch 16) and are not offered.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from netsim.errors import DataError, SettingsError, nearest

Estimator = Literal["biased", "unbiased"]
ESTIMATORS: tuple[Estimator, ...] = ("biased", "unbiased")

FEWEST_ROWS = 4  # the unbiased estimator divides by n - 3
ROUNDING = 1e-12  # what is smaller than this part of the sums it was taken from is rounding error, not signal


@dataclass(frozen=True, eq=False)
class Hsic:
    """The sums of a pair over all rows, and over all rows but one shard's. Arrays are (1 + G,): whole, then left out.

    A network with itself is the case Y = X. Where no row is left, as with a single shard, n is 0.
    """

    n: np.ndarray
    square: np.ndarray  # |C|^2
    q: np.ndarray  # Q
    tx: np.ndarray  # T_x
    ty: np.ndarray  # T_y

    def value(self, estimator: Estimator) -> np.ndarray:
        """H, (1 + G,): n(n-3) times Song's HSIC_1, or (n-1)^2 times the biased HSIC. NaN for fewer than 4 rows."""
        validate_estimator(estimator)
        n = np.where(self.n < FEWEST_ROWS, np.nan, self.n)
        if estimator == "biased":
            return self.square + 0 * n
        return self.square - n / (n - 2) * self.q + self.tx * self.ty / ((n - 1) * (n - 2))

    def self_value(self, estimator: Estimator) -> np.ndarray:
        """H(X, X), NaN where X is constant, or H not above 0 by more than rounding: then CKA is undefined.

        Unbiased H(X, X) is at or below 0 when a single row differs from the others, say: nothing repeats.
        """
        value = self.value(estimator)
        return np.where(self._constant | ~(value > ROUNDING * self.square), np.nan, value)

    @property
    def _constant(self) -> np.ndarray:
        return self.tx <= ROUNDING * self.tx[0]

    def why_undefined(self, estimator: Estimator) -> str:
        """Why a network with itself has no H over all rows, or "" if it has."""
        if np.isfinite(self.self_value(estimator)[0]):
            return ""
        if self.n[0] < FEWEST_ROWS:
            return f"{self.n[0]} images are fewer than {FEWEST_ROWS}"
        if self._constant[0]:
            return "constant: every image has the same representation"
        return "the unbiased H(X, X) is not above 0: too few images differ, take more"


def cka(cross: Hsic, self_x: Hsic, self_y: Hsic, estimator: Estimator = "biased") -> np.ndarray:
    """H(X, Y) / sqrt(H(X, X) H(Y, Y)), (1 + G,); NaN where a self term is undefined, never clamped."""
    assert np.array_equal(cross.n, self_x.n) and np.array_equal(cross.n, self_y.n), "sums over different rows"
    # two roots, not the root of the product: that overflows at the largest float32 features
    return cross.value(estimator) / (np.sqrt(self_x.self_value(estimator)) * np.sqrt(self_y.self_value(estimator)))


def participation_ratio(own: Hsic) -> np.ndarray:
    """(tr S)^2 / tr(S^2) of the *sample* covariance S: about how many directions carry the variance; 1 to min(d, n-1).

    Smaller than that of the population, r: about n r / (n + r). NaN for a constant representation.
    """
    return own.tx * own.ty / own.self_value("biased")


def null_floor(self_x: Hsic, self_y: Hsic) -> np.ndarray:
    """What biased CKA is on average over all permutations of Y's rows: T_x T_y / ((n-1) |C_xx| |C_yy|), exactly.

    In sample participation ratios sqrt(r_x r_y) / (n-1); in those of the population, which are larger, about
    sqrt(r_x r_y / ((n + r_x)(n + r_y))). 0.17 at n = 10,000 and d = 2048 isotropic features. Biased values close to
    it tell nothing. NaN if a side is constant.
    """
    return np.sqrt(participation_ratio(self_x)) * np.sqrt(participation_ratio(self_y)) / (self_x.n - 1)


def validate_estimator(estimator: str) -> None:
    if estimator not in ESTIMATORS:
        raise SettingsError(f"no estimator {estimator!r}{nearest(str(estimator), ESTIMATORS)}")


def validate_enough_rows(n: int, where: str) -> None:
    if n < FEWEST_ROWS:
        raise DataError(f"{n} rows {where}; CKA needs at least {FEWEST_ROWS}: take more images")
