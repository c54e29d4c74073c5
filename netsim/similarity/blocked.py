"""CKA by the U-statistic of blocks of images, for any kernel. n = rows of a block, d = features, M networks, G blocks.

HSIC_1 (Song et al. 2012, JMLR 13, eq. 5) of a block is unbiased for HSIC of all images. Averaged over blocks, numerator
and denominators each for itself (Nguyen et al. 2021, arXiv:2010.15327, eq. 3), it gives

    CKA = mean HSIC_1(K, L) / sqrt(mean HSIC_1(K, K) mean HSIC_1(L, L))

Each shard is a block. Compared with the exact value of `netsim.similarity.cka` it takes n d multiplications a row, not
about d d' a pair, leaves out shards for nothing, and needs no features: Gram matrices of any kernel do. It is
noisier, as it never sees images of different shards together; docs/measures.md has by how much.
Averages of CKA itself over blocks are something else, and wrong: 0.53 for 0.16 at 16 rows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.spatial.distance import pdist, squareform

from netsim.errors import DataError, SettingsError, nearest
from netsim.similarity.hsic import FEWEST_ROWS, ROUNDING
from netsim.similarity.streaming import Pair, ShardSource, validate_rows, validate_same_rows
from netsim.similarity.uncertainty import Estimate, jackknife

Kernel = Callable[[np.ndarray], np.ndarray]
"""Rows (n, d) -> Gram matrix (n, n), symmetric."""


@dataclass(frozen=True)
class BlockedSimilarity:
    """CKA of a pair over all blocks, and with each block left out (G,). May be below 0; NaN where it is undefined."""

    cka: float
    left_out: np.ndarray

    @property
    def estimate(self) -> Estimate:
        return jackknife(self.cka, self.left_out)


def blocked_similarity(
    shards: Iterable[ShardSource],
    pairs: Iterable[Pair],
    *,
    kernel: Literal["linear", "rbf"] = "linear",
    bandwidth: float = 1.0,
) -> dict[Pair, BlockedSimilarity]:
    """Unbiased CKA of every pair, each shard a block of its own; one look at each shard. See the module for what it is.

    `kernel` "rbf" is exp(-|x - y|^2 / (2 sigma^2)), sigma = `bandwidth` times the median distance of two rows of the
    network's first shard. Shards of unequal size count by their rows.

    Raises SettingsError for another kernel or a bandwidth not above 0; DataError for no shard, one of fewer than 4
    rows, row counts that differ, values not finite.
    """
    _check_kernel(kernel, bandwidth)
    pairs = list(dict.fromkeys(pairs))
    keys = list(dict.fromkeys(key for pair in pairs for key in pair))
    kernels: dict[Any, Kernel] = {}
    weights, values, magnitudes = [], [], []
    for index, source in enumerate(shards):
        rows = _read(source, keys, index)
        if not kernels:
            kernels = {key: linear_kernel if kernel == "linear" else rbf_kernel(rows[key], bandwidth) for key in keys}
        weights.append(len(rows[keys[0]]))
        grams = np.stack([kernels[key](own) for key, own in rows.items()])
        values.append(hsic_unbiased(grams))
        magnitudes.append(magnitude(grams))
    if not values:
        raise DataError("no shards; give at least one")
    whole, left_out = cka_of_blocks(np.stack(values), np.stack(magnitudes), np.array(weights))
    at = {key: index for index, key in enumerate(keys)}
    return {(x, y): BlockedSimilarity(float(whole[at[x], at[y]]), left_out[:, at[x], at[y]]) for x, y in pairs}


def hsic_unbiased(grams: np.ndarray) -> np.ndarray:
    """HSIC_1 of every two of the Gram matrices (M, n, n) -> (M, M), in float64."""
    networks, n, _ = grams.shape
    grams = grams.astype(np.float64)
    grams[:, np.arange(n), np.arange(n)] = 0
    flat, rows = grams.reshape(networks, -1), grams.sum(axis=2)
    totals = rows.sum(axis=1)
    found = flat @ flat.T + np.outer(totals, totals) / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ rows.T
    return found / (n * (n - 3))


def magnitude(grams: np.ndarray) -> np.ndarray:
    """(M, n, n) -> (M,): what HSIC_1 of a Gram matrix with itself is taken from, and its rounding error relative to."""
    return np.square(grams, dtype=np.float64).mean(axis=(1, 2))


def cka_of_blocks(hsic: np.ndarray, magnitudes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CKA (M, M), and with each block left out (G, M, M), from HSIC_1 (G, M, M), magnitudes (G, M) and rows (G,)."""
    parts = weights[:, None, None] * hsic
    total = parts.sum(axis=0)
    least = ROUNDING * (weights @ magnitudes)  # (M,) what is less is rounding error
    left_out = _ratio(total - parts, least)
    return _ratio(total, least), left_out if len(parts) > 1 else np.full_like(left_out, np.nan)


def linear_kernel(rows: np.ndarray) -> np.ndarray:
    """Gram matrix of rows about their mean: a shift changes nothing but rounding. In the precision of the rows."""
    centred = rows - rows[0]
    centred -= centred.mean(axis=0)
    return centred @ centred.T


def rbf_kernel(sample: np.ndarray, bandwidth: float) -> Kernel:
    """exp(-|x - y|^2 / (2 sigma^2)), sigma = bandwidth times the median distance of two rows of the sample (n, d).

    Kornblith et al. 2019, section 4. A constant sample has no distances: its kernel is constant too.
    """
    sigma = bandwidth * float(np.median(pdist(sample)))

    def kernel(rows: np.ndarray) -> np.ndarray:
        if sigma == 0:
            return np.ones((len(rows), len(rows)))
        return np.exp(-squareform(pdist(rows, "sqeuclidean")) / (2 * sigma**2))

    return kernel


def _ratio(hsic: np.ndarray, least: np.ndarray) -> np.ndarray:
    """(..., M, M) HSIC -> CKA, NaN where a network's own is not above `least` (M,)."""
    own = np.diagonal(hsic, axis1=-2, axis2=-1)
    scale = np.sqrt(np.where(own > least, own, np.nan))
    return hsic / (scale[..., :, None] * scale[..., None, :])


def _read(source: ShardSource, keys: Sequence[Any], index: int) -> dict[Any, np.ndarray]:
    shard: Any = source() if callable(source) else source
    rows = {key: validate_rows(shard[key], f"{key!r} in shard {index}") for key in keys}
    validate_same_rows(rows, where=f" in shard {index}")
    if len(rows[keys[0]]) < FEWEST_ROWS:
        raise DataError(
            f"{len(rows[keys[0]])} rows in shard {index}; the U-statistic of a block needs at least {FEWEST_ROWS}"
        )
    return rows


def _check_kernel(kernel: str, bandwidth: float) -> None:
    if kernel not in ("linear", "rbf"):
        raise SettingsError(f"no kernel {kernel!r}{nearest(str(kernel), ('linear', 'rbf'))}")
    if not bandwidth > 0:
        raise SettingsError(f"bandwidth is {bandwidth!r}; it is a factor of the median distance, above 0")
