"""CKA by the U-statistic of blocks of images, for any kernel. n = rows of a block, d = features, M networks, G blocks.

HSIC_1 (Song et al. 2012, JMLR 13, eq. 5) of a block is unbiased for HSIC of all images. Numerator and denominators are
averaged over blocks separately (Nguyen et al. 2021, arXiv:2010.15327, eq. 3):

    CKA = mean HSIC_1(K, L) / sqrt(mean HSIC_1(K, K) mean HSIC_1(L, L))

Each shard is a block. Compared with the exact value of `netsim.similarity.cka`, this takes n d multiplications per row
instead of about d d' per pair, gives leave-one-out replicates for free, and requires only Gram matrices, of any
kernel, instead of features. It is noisier, because it never compares images of different shards;
docs/concepts/errors.md has by how much. The average of CKA itself over blocks would
be wrong: 0.53 instead of 0.16 at 16 rows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from netsim.errors import DataError, SettingsError, nearest
from netsim.similarity.hsic import MIN_ROWS, ROUNDING
from netsim.similarity.rows import Extent, precision, validate_rows, validate_same_rows
from netsim.similarity.streaming import CANCELLATION, Pair, ShardSource
from netsim.similarity.uncertainty import Estimate, jackknife

Kernel = Callable[[np.ndarray], np.ndarray]
"""Function from rows (n, d) to a symmetric Gram matrix (n, n)."""


@dataclass(frozen=True)
class BlockedSimilarity:
    """Unbiased CKA of a pair over all blocks, with leave-one-out replicates.

    Attributes
    ----------
    cka : float
        CKA over all blocks. May be below 0; NaN where undefined.
    leave_one_out : array (G,)
        CKA without each block; NaN for a single block.
    undefined : str
        Which network makes `cka` undefined, and why; "" where it is defined.
    """

    cka: float
    leave_one_out: np.ndarray
    undefined: str = ""

    @property
    def estimate(self) -> Estimate:
        """CKA with its jackknife standard error."""
        return jackknife(self.cka, self.leave_one_out)


def blocked_similarity(
    shards: Iterable[ShardSource],
    pairs: Iterable[Pair],
    *,
    kernel: Literal["linear", "rbf"] = "linear",
) -> dict[Pair, BlockedSimilarity]:
    """Compute unbiased CKA of every pair, each shard a block, in two passes over the shards.

    Parameters
    ----------
    shards
        Shards as in `netsim.similarity.cka.similarity`. Shards of unequal size are weighted by their rows.
    pairs
        Pairs of networks.
    kernel
        "rbf" is exp(-|x - y|^2 / (2 sigma^2)), where sigma is the median distance of two rows of the network in the
        same shard, over all shards. It does not depend on the order of shards or of rows.

    Raises
    ------
    SettingsError
        Unknown kernel.
    DataError
        No shard, a shard of fewer than 4 rows, row counts that differ, or values that are not finite.
    """
    _validate_kernel(kernel)
    pairs = list(dict.fromkeys(pairs))
    keys = list(dict.fromkeys(key for pair in pairs for key in pair))
    sources = list(shards)
    if not sources:
        raise DataError("CKA requires at least 1 shard, got 0. Pass at least one.")
    surveys = {key: _Survey(distances=kernel == "rbf") for key in keys}
    for index, source in enumerate(sources):
        for key, (rows, spacing) in _read(source, keys, index).items():
            surveys[key].add(rows, spacing)
    kernels = {key: survey.kernel() for key, survey in surveys.items()}
    weights, values, magnitudes = [], [], []
    for index, source in enumerate(sources):
        shard = {key: rows for key, (rows, _) in _read(source, keys, index).items()}
        weights.append(len(shard[keys[0]]))
        grams = np.stack([kernels[key](rows) for key, rows in shard.items()])
        values.append(hsic_unbiased(grams))
        magnitudes.append(magnitude(grams))
    varies = np.array([not survey.undefined for survey in surveys.values()])
    whole, leave_one_out = cka_of_blocks(np.stack(values) * varies, np.stack(magnitudes), np.array(weights))
    position = {key: index for index, key in enumerate(keys)}
    cells = {(x, y): (..., position[x], position[y]) for x, y in pairs}
    reasons = {key: survey.undefined for key, survey in surveys.items()} | {
        key: "HSIC of the network with itself is not positive: too few images differ; use more images"
        for key in keys
        if not surveys[key].undefined and np.isnan(whole[position[key], position[key]])
    }
    return {
        pair: BlockedSimilarity(
            float(whole[cell]),
            leave_one_out[cell],
            "; ".join(f"{key}: {reasons[key]}" for key in dict.fromkeys(pair) if reasons[key]),
        )
        for pair, cell in cells.items()
    }


class _Survey:
    """Range and distances of a network's rows, on which its kernel depends."""

    def __init__(self, *, distances: bool) -> None:
        self._extent = Extent()
        self._distances: list[np.ndarray] | None = [] if distances else None

    def add(self, rows: np.ndarray, spacing: float) -> None:
        """Add the rows (n, d) of a shard, whose numbers have this relative spacing."""
        self._extent.add(rows, spacing)
        if self._distances is not None:
            self._distances.append(row_distances(rows))

    @property
    def undefined(self) -> str:
        """Why the network has no CKA with this kernel; "" if it has."""
        if self._extent.constant:
            return "constant: every image has the same representation"
        if self._distances is not None and self._sigma == 0:
            return "the median distance of two images of a shard is 0, so the kernel has no bandwidth: most are equal"
        return ""

    @property
    def _sigma(self) -> float:
        return float(np.median(np.concatenate(self._distances or [])))

    def kernel(self) -> Kernel:
        """Return the kernel; rows are first divided by a power of two if their products would overflow or vanish."""
        exponent = self._extent.exponent
        if self._distances is None:
            return _scaled(linear_kernel, exponent)
        return _scaled(rbf_kernel(float(np.ldexp(self._sigma, -exponent))), exponent)


def _scaled(kernel: Kernel, exponent: int) -> Kernel:
    return (lambda rows: kernel(np.ldexp(rows, -exponent))) if exponent else kernel


def hsic_unbiased(grams: np.ndarray) -> np.ndarray:
    """Compute HSIC_1 of every two Gram matrices in float64: (M, n, n) -> (M, M)."""
    networks, n, _ = grams.shape
    grams = grams.astype(np.float64)
    grams[:, np.arange(n), np.arange(n)] = 0
    flat, rows = grams.reshape(networks, -1), grams.sum(axis=2)
    totals = rows.sum(axis=1)
    scaled = flat @ flat.T + np.outer(totals, totals) / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ rows.T
    return scaled / (n * (n - 3))


def magnitude(grams: np.ndarray) -> np.ndarray:
    """Return the mean square of each Gram matrix, (M, n, n) -> (M,): the scale of the rounding error of its HSIC_1."""
    return np.square(grams, dtype=np.float64).mean(axis=(1, 2))


def cka_of_blocks(hsic: np.ndarray, magnitudes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute CKA (M, M), and CKA without each block (G, M, M), from the statistics of blocks.

    Parameters
    ----------
    hsic, magnitudes
        `hsic_unbiased` (G, M, M) and `magnitude` (G, M) of every block.
    weights
        Rows of every block, (G,).
    """
    parts, scales = weights[:, None, None] * hsic, ROUNDING * weights[:, None] * magnitudes
    total = parts.sum(axis=0)
    value = _ratio(total, scales.sum(axis=0))
    if len(parts) == 1:
        return value, np.full_like(parts, np.nan)
    return value, np.stack([_ratio(_rest(parts, total, g), np.delete(scales, g, axis=0).sum(axis=0)) for g in
                            range(len(parts))])  # fmt: skip


def _rest(parts: np.ndarray, total: np.ndarray, block: int) -> np.ndarray:
    """Sum the blocks (G, M, M) but one; anew for networks of which that one holds all but `CANCELLATION`."""
    rest = total - parts[block]
    dominated = ~(np.diagonal(rest) > CANCELLATION * np.diagonal(total))
    if not dominated.any():
        return rest
    return np.where(dominated[:, None] | dominated, np.delete(parts, block, axis=0).sum(axis=0), rest)


def linear_kernel(rows: np.ndarray) -> np.ndarray:
    """Compute the Gram matrix of rows centred at their mean, in the precision of the rows.

    HSIC does not depend on a shift; centring only reduces rounding error.
    """
    centred = rows - rows[0]
    centred -= centred.mean(axis=0)
    return centred @ centred.T


def rbf_kernel(sigma: float) -> Kernel:
    """Return the Gaussian kernel exp(-|x - y|^2 / (2 sigma^2)); constant for sigma 0, the median of constant rows."""
    from scipy.spatial.distance import pdist, squareform

    def kernel(rows: np.ndarray) -> np.ndarray:
        if sigma == 0:
            return np.ones((len(rows), len(rows)))
        return np.exp(-squareform(pdist(rows, "sqeuclidean")) / (2 * sigma**2))

    return kernel


def row_distances(rows: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances of every two rows (n, d), of any size; their median is sigma.

    That is the bandwidth of Kornblith et al. 2019, section 4, there over all images at once.
    """
    from scipy.spatial.distance import pdist

    extent = Extent()
    extent.add(rows, 0.0)
    scaled = np.ldexp(rows, -extent.exponent) if extent.exponent else rows
    return np.ldexp(pdist(scaled), extent.exponent)


def _ratio(hsic: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """Normalize HSIC (..., M, M) to CKA; NaN where HSIC of a network with itself does not exceed `rounding` (M,)."""
    diagonal = np.diagonal(hsic, axis1=-2, axis2=-1)
    scale = np.sqrt(np.where(diagonal > rounding, diagonal, np.nan))
    return hsic / (scale[..., :, None] * scale[..., None, :])


def _read(source: ShardSource, keys: Sequence[Any], index: int) -> dict[Any, tuple[np.ndarray, float]]:
    """Read the rows of a shard, each with the relative spacing of its numbers."""
    shard: Any = source() if callable(source) else source
    rows = {key: validate_rows(shard[key], f"{key!r} in shard {index}") for key in keys}
    validate_same_rows(rows, where=f" in shard {index}")
    count = len(next(iter(rows.values())))
    if count < MIN_ROWS:
        raise DataError(f"a shard must have at least {MIN_ROWS} rows, got {count} in shard {index}. Use larger shards.")
    return {key: (rows[key], precision(shard[key])) for key in keys}


def _validate_kernel(kernel: str) -> None:
    if kernel not in ("linear", "rbf"):
        raise SettingsError(f"unknown kernel {kernel!r}{nearest(str(kernel), ('linear', 'rbf'))}")
