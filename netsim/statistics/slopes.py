"""Similarity as a function of robustness: means by eps, slopes, and robust against standard networks.

M = networks, A = architectures, K = levels of eps, G = shards.

Similarity is averaged over training seeds first: a block (a, b, k, l) is the mean of cells of a network of architecture
a at level k and one of another architecture b at level l. All blocks of a mean count alike, so an architecture that was
trained more often weighs no more.

A slope is that of least squares over the levels of eps with a constant for each ordered pair of architectures. If every
architecture has every level, it is that of a line through the K means. If not, a level that lacks an architecture does
not bend it, because each pair is only compared with itself.

Architectures are the sample of networks: the error over networks leaves out one architecture with all its networks, as
`netsim.statistics.networks` does for means, and everything said there of the jackknife holds here.

Sources: Jones et al. 2022, https://proceedings.mlr.press/v180/jones22a.html, whose claim is that similarity rises with
eps; Wooldridge 2010, Econometric analysis of cross section and panel data, sec. 10.5, for the constants of pairs
(the within estimator); Arvesen 1969 for the errors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.similarity.uncertainty import plain
from netsim.statistics.networks import CrossedEstimate, Labels, crossed_jackknife, joined

FEWEST = 2
"""Least number of architectures, and of levels of eps."""


@dataclass(frozen=True)
class ByEps:
    """Similarity of networks of different architectures, by the eps that they were trained with.

    Attributes
    ----------
    eps : tuple of float
        The K levels, ascending.
    architectures : tuple of str
        Their A labels, in the order in which they come first.
    cross : tuple of tuple of CrossedEstimate
        (K, K): mean over pairs of architectures of the similarity of a network of level k (row) and one of level l
        (column). Not symmetric where the matrix is not.
    rows : dict of tuple of CrossedEstimate
        Architecture -> (K,): mean of its rows at level k over networks of other architectures at the same level. The
        error over networks is over the others, for this architecture as it was trained.
    slope : CrossedEstimate
        Change of similarity for each unit of eps that both networks have.
    slopes : dict of CrossedEstimate
        Architecture -> the same of its rows, with errors as those of `rows`.
    asymmetry : CrossedEstimate
        Mean over pairs of architectures, and over all levels but the lowest, of the similarity of a robust row and a
        standard column minus that of the standard row and the robust column.
    asymmetries : tuple of CrossedEstimate
        (K - 1,): the same of each level.
    """

    eps: tuple[float, ...]
    architectures: tuple[str, ...]
    cross: tuple[tuple[CrossedEstimate, ...], ...]
    rows: dict[str, tuple[CrossedEstimate, ...]]
    slope: CrossedEstimate
    slopes: dict[str, CrossedEstimate]
    asymmetry: CrossedEstimate
    asymmetries: tuple[CrossedEstimate, ...]

    @property
    def same(self) -> tuple[CrossedEstimate, ...]:
        """Mean over pairs of architectures of two networks of the same level: (K,)."""
        return tuple(row[k] for k, row in enumerate(self.cross))

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return {
            "eps": list(self.eps),
            "same": [each.to_json() for each in self.same],
            "cross": [[each.to_json() for each in row] for row in self.cross],
            "rows": {name: [each.to_json() for each in row] for name, row in self.rows.items()},
            "slope": _tested(self.slope),
            "slopes": {name: _tested(each) for name, each in self.slopes.items()},
            "asymmetry": _tested(self.asymmetry),
            "asymmetries": [_tested(each) for each in self.asymmetries],
        }


def similarity_by_eps(
    cells: np.ndarray, replicates: np.ndarray, counted: np.ndarray, architectures: Labels, eps: Sequence[float]
) -> ByEps:
    """Average similarities by the eps of both networks, and fit slopes, with errors over images and over networks.

    Parameters
    ----------
    cells
        Similarities (M, M), row = through, column = observer; any real numbers. A NaN among the counted ones makes
        what it belongs to NaN.
    replicates
        The same without each shard of images, (M, M, G).
    counted
        Cells that count, (M, M). Those of two networks of one architecture never do.
    architectures
        Label of each network, (M,).
    eps
        The distance that each network was trained to withstand, (M,); 0 for a standard network.

    Returns
    -------
    ByEps
        Errors over networks are NaN for fewer than 3 architectures, and of `rows` and `slopes` for fewer than 3 others.

    Raises
    ------
    ValueError
        If the shapes do not fit together, or there are fewer than 2 architectures or levels of eps.

    References
    ----------
    Jones et al. 2022, fig. 4, for the curve; see the module for slopes and errors.

    Examples
    --------
    Three architectures, standard and at eps 2, whose similarity rises by 0.1 for each unit of eps:

    >>> names, eps = ["vgg", "vgg", "resnet", "resnet", "densenet", "densenet"], [0, 2, 0, 2, 0, 2]
    >>> cells = 0.2 + 0.05 * np.add.outer(eps, eps)
    >>> similar = similarity_by_eps(cells, np.repeat(cells[..., None], 4, -1), ~np.eye(6, dtype=bool), names, eps)
    >>> [round(mean.value, 3) for mean in similar.same], round(similar.slope.value, 3)
    ([0.2, 0.4], 0.1)
    >>> round(similar.cross[1][0].value, 3), round(similar.asymmetry.value, 3), similar.slope.networks.df
    (0.3, 0.0, 2)
    """
    blocks = _blocks(joined(cells, replicates, counted, square=True), np.asarray(counted), architectures, eps)
    levels, names = range(len(blocks.eps)), range(len(blocks.architectures))
    against = blocks.against_standard()
    return ByEps(
        eps=blocks.eps,
        architectures=blocks.architectures,
        cross=tuple(tuple(_crossed(_mean, *blocks.between(k, other)) for other in levels) for k in levels),
        rows={
            blocks.architectures[a]: tuple(_crossed(_mean, *blocks.between(k, k), row=a) for k in levels) for a in names
        },
        slope=_crossed(blocks.slope, *blocks.same()),
        slopes={blocks.architectures[a]: _crossed(blocks.slope, *blocks.same(), row=a) for a in names},
        asymmetry=_crossed(_mean, *against),
        asymmetries=tuple(_crossed(_mean, *(part[:, :, k] for part in against)) for k in range(len(levels) - 1)),
    )


# ---- parts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Blocks:
    """Mean similarities of pairs of architectures: `values` (A, A, K, K, 1 + G), where `present` (A, A, K, K)."""

    values: np.ndarray
    present: np.ndarray
    architectures: tuple[str, ...]
    eps: tuple[float, ...]

    def between(self, k: int, other: int) -> tuple[np.ndarray, np.ndarray]:
        """Select the blocks of two levels: (A, A, 1 + G) and (A, A)."""
        return self.values[:, :, k, other], self.present[:, :, k, other]

    def same(self) -> tuple[np.ndarray, np.ndarray]:
        """Select the blocks of two networks of the same level: (A, A, K, 1 + G) and (A, A, K)."""
        k = np.arange(len(self.eps))
        return self.values[:, :, k, k], self.present[:, :, k, k]

    def against_standard(self) -> tuple[np.ndarray, np.ndarray]:
        """Subtract (standard, robust) from (robust, standard): (A, A, K - 1, 1 + G) and (A, A, K - 1)."""
        mirrored, both = self.values[:, :, 0, 1:].swapaxes(0, 1), self.present[:, :, 0, 1:].swapaxes(0, 1)
        return self.values[:, :, 1:, 0] - mirrored, self.present[:, :, 1:, 0] & both

    def slope(self, values: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Fit a slope with a constant for each pair: blocks (A, A, K, 1 + G) -> (1 + G,)."""
        eps = np.where(present, self.eps, 0)
        centre = eps.sum(axis=-1, keepdims=True) / np.maximum(present.sum(axis=-1, keepdims=True), 1)
        x = np.where(present, self.eps - centre, 0)[..., None]
        total = np.square(x).sum()
        fitted = (x * np.where(present[..., None], values, 0)).sum(axis=(0, 1, 2))
        return fitted / total if total else np.full(values.shape[-1], np.nan)


def _blocks(table: np.ndarray, counted: np.ndarray, architectures: Labels, eps: Sequence[float]) -> _Blocks:
    """Average cells (M, M, 1 + G) over training seeds."""
    labels, radii = list(map(str, architectures)), np.asarray(eps, dtype=np.float64)
    for name, given in (("architectures", labels), ("eps", radii)):
        if len(given) != len(table):
            raise ValueError(f"{name} must have {len(table)} entries, got {len(given)}. Give every network one.")
    kinds, levels = tuple(dict.fromkeys(labels)), np.unique(radii)
    for name, among in (("architectures", kinds), ("levels of eps", levels)):
        if len(among) < FEWEST:
            raise ValueError(f"there must be {FEWEST} {name} or more, got {len(among)}. Add networks.")
    kind, level = np.array([kinds.index(label) for label in labels]), np.searchsorted(levels, radii)
    i, j = np.nonzero(counted & (kind[:, None] != kind))
    at = kind[i], kind[j], level[i], level[j]
    shape = len(kinds), len(kinds), len(levels), len(levels)
    sums, counts = np.zeros((*shape, table.shape[-1])), np.zeros(shape)
    np.add.at(sums, at, table[i, j])
    np.add.at(counts, at, 1)
    return _Blocks(sums / np.maximum(counts, 1)[..., None], counts > 0, kinds, tuple(levels.tolist()))


def _mean(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Average blocks (A, A, ..., 1 + G); NaN if there is none."""
    chosen = values[present]
    return chosen.mean(axis=0) if len(chosen) else np.full(values.shape[-1], np.nan)


def _crossed(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    values: np.ndarray,
    present: np.ndarray,
    *,
    row: int | None = None,
) -> CrossedEstimate:
    """Compute a statistic of blocks, and without each architecture: of all rows, or of one, which is never left out."""
    kept = present.copy()
    if row is not None:
        kept[np.arange(len(kept)) != row] = False
    rows, columns = np.nonzero(kept)[:2]
    units = np.unique(columns if row is not None else np.concatenate([rows, columns])).tolist()
    masks = [kept, *(_without(kept, unit) for unit in units)]
    return crossed_jackknife(np.stack([statistic(values, mask) for mask in masks]))


def _without(present: np.ndarray, unit: int) -> np.ndarray:
    kept = present.copy()
    kept[unit] = kept[:, unit] = False
    return kept


def _tested(estimate: CrossedEstimate) -> dict[str, Any]:
    """Convert a difference or a slope to plain values, with the p-value of both errors."""
    return estimate.to_json() | {"p_value": plain(estimate.total.p_value)}
