"""Errors of mean similarity over networks, not only over images.

M = networks, K = groups, G = shards.

A matrix of similarities has two samples behind it: images, of which the jackknife deletes one shard at a time, and
networks, of which a cell has two. Cells that share a network vary together, so their mean is far less certain than
M (M - 1) independent numbers would make it. Networks of one `group` (one architecture trained from several seeds) are
not independent of each other either: then a whole group is left out at a time, and only cells between groups count.

The error over networks is the jackknife that leaves out one group with all its rows and columns,
sqrt((K - 1) / K sum_k (theta_-k - mean)^2), with Student's t of K - 1 degrees of freedom. It is right where similarity
depends on each network, and rather too large where it depends on pairs of them, because what belongs to a pair leaves
with either of its groups (Efron and Stein 1981 prove such a jackknife too large; the factor (K - 2) / (2 K) of Snijders
and Borgatti 1999 is right for pairs alone, and too small by half for networks). `benchmarks/coverage.py` measures it:
95 to 96 % where networks matter, 99 % where only pairs do. Subtracting an estimate of what pairs are counted twice
brought the last to 98.5 %, but others to 93.5 %, so nothing is subtracted.

Sources: Arvesen 1969, Jackknifing U-statistics, Annals of Mathematical Statistics 40, 2076-2100; Efron and Stein 1981,
The jackknife estimate of variance, Annals of Statistics 9, 586-596; Snijders and Borgatti 1999, Non-parametric standard
errors and tests for network statistics, Connections 22, 161-170; for two samples at once, Cameron, Gelbach and Miller
2011, Robust inference with multiway clustering, Journal of Business and Economic Statistics 29, 238-249.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.similarity.uncertainty import Estimate, jackknife_se, plain

Labels = Sequence[str] | Sequence[int] | np.ndarray


@dataclass(frozen=True)
class CrossedEstimate:
    """A value with its error over images, over networks, and over both.

    Attributes
    ----------
    value : float
        The value, of all images and networks.
    images : Estimate
        Spread over other images, seen by the same networks; G - 1 degrees of freedom.
    networks : Estimate
        Spread over other networks (other groups, where there are replicates) that see the same images; K - 1 degrees of
        freedom, or one less than there are units of what was left out. NaN where fewer than 3 groups have cells.
    total : Estimate
        Spread over other images and other networks at once. The degrees of freedom are the fewer of the two.
    """

    value: float
    images: Estimate
    networks: Estimate
    total: Estimate

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values: the value, and for each error `se`, `interval` and `df`."""
        errors = {name: getattr(self, name) for name in ("images", "networks", "total")}
        return {"value": plain(self.value)} | {
            name: {"se": plain(each.se), "interval": plain(list(each.interval)), "df": each.df}
            for name, each in errors.items()
        }


@dataclass(frozen=True)
class Decomposition:
    """Parts of the variance of a mean between groups, as standard errors, and the spread of one cell over seeds.

    Attributes
    ----------
    architectures, seeds, images : float
        Standard error that the mean would have if only architectures, only training seeds within each architecture, or
        only images were drawn again. `architectures` squared + `seeds` squared is the variance over networks, unless
        the seeds alone explain more than that. NaN where an architecture has one training seed only, in which case
        `architectures` cannot be told from `seeds`.
    cell_sd : float
        Standard deviation of a single cell between architectures over training seeds of both its networks, with what
        images add to single cells; NaN likewise.
    """

    architectures: float
    seeds: float
    images: float
    cell_sd: float

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return {name: plain(getattr(self, name)) for name in ("architectures", "seeds", "images", "cell_sd")}


def between_groups(counted: np.ndarray, groups: Labels) -> np.ndarray:
    """Select the counted cells (M, M) of two networks of different groups.

    Examples
    --------
    >>> between_groups(~np.eye(3, dtype=bool), ["vgg", "vgg", "resnet"]).astype(int).tolist()
    [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    """
    labels = _labels(groups, len(counted))
    return np.asarray(counted) & (labels[:, None] != labels)


def within_groups(counted: np.ndarray, groups: Labels) -> np.ndarray:
    """Select the counted cells (M, M) of two networks of one group.

    Examples
    --------
    >>> within_groups(~np.eye(3, dtype=bool), ["vgg", "vgg", "resnet"]).astype(int).tolist()
    [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    labels = _labels(groups, len(counted))
    return np.asarray(counted) & (labels[:, None] == labels)


def mean_between_groups(
    cells: np.ndarray, replicates: np.ndarray, counted: np.ndarray, groups: Labels
) -> CrossedEstimate:
    """Average the counted cells of two networks of different groups, with errors over images and over networks.

    Parameters
    ----------
    cells
        Similarities (M, M), any real numbers; a NaN among the counted ones makes the result NaN.
    replicates
        The same without each shard of images, (M, M, G).
    counted
        Cells that count, (M, M); the diagonal never does.
    groups
        Label of each network, (M,). Without replicates of one architecture, M different ones.

    Returns
    -------
    CrossedEstimate
        With K - 1 degrees of freedom over networks.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    References
    ----------
    Arvesen 1969; see the module.

    Examples
    --------
    Four networks whose similarity depends on the networks alone, on four shards that agree:

    >>> quality = np.array([0.1, 0.2, 0.3, 0.4])
    >>> cells = quality[:, None] + quality
    >>> mean = mean_between_groups(cells, np.repeat(cells[..., None], 4, -1), ~np.eye(4, dtype=bool), "abcd")
    >>> round(mean.value, 3), round(mean.networks.se, 3), mean.networks.df, round(mean.images.se, 3)
    (0.5, 0.129, 3, 0.0)
    """
    table = joined(cells, replicates, counted, square=True)
    codes = _codes(groups, len(table))
    return crossed_jackknife(_leave_out(table, between_groups(counted, groups), codes))


def line_means(
    cells: np.ndarray, replicates: np.ndarray, counted: np.ndarray, groups: Labels
) -> tuple[CrossedEstimate, ...]:
    """Average the counted cells of each row of (L, C) similarities, over other networks in the columns.

    The network of a row is not drawn again: the error belongs to this network as it is, and not to its architecture.
    Transpose everything for the means of columns.

    Parameters
    ----------
    cells, replicates, counted
        As for `mean_between_groups`, of shapes (L, C), (L, C, G) and (L, C).
    groups
        Label of the network of each column, (C,); a group is left out as a whole.

    Returns
    -------
    tuple of CrossedEstimate
        L estimates, with one degree of freedom less over networks than there are groups with counted cells in the row.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    References
    ----------
    Efron 1982, The jackknife, the bootstrap and other resampling plans, ch. 3. For groups of one network each, the
    standard error is that of a mean of independent values, s / sqrt(m).

    Examples
    --------
    >>> cells = np.array([[1.0, 0.2, 0.4, 0.6]])
    >>> (row,) = line_means(cells, np.repeat(cells[..., None], 4, -1), np.array([[False, True, True, True]]), "abcd")
    >>> round(row.value, 3), round(row.networks.se, 3), row.networks.df
    (0.4, 0.115, 2)
    """
    table = joined(cells, replicates, counted)
    codes = _codes(groups, counted.shape[1])
    rows = []
    for values, chosen in zip(table, np.asarray(counted), strict=True):
        keeps = [chosen, *(chosen & (codes != unit) for unit in np.unique(codes[chosen]))]
        rows.append(crossed_jackknife(np.stack([_mean(values, keep) for keep in keeps])))
    return tuple(rows)


def ceiling(cells: np.ndarray, replicates: np.ndarray, counted: np.ndarray, groups: Labels) -> CrossedEstimate:
    """Average the counted cells of two networks of one group: what another training seed alone leaves of similarity.

    A similarity between architectures can hardly be above it, so 0.2 means much where the ceiling is 0.3, and little
    where it is 0.9.

    Parameters
    ----------
    cells, replicates, counted, groups
        As for `mean_between_groups`. Networks with equal weights must not be counted.

    Returns
    -------
    CrossedEstimate
        NaN without two networks of one group. Over networks, whole groups with replicates are left out; where only one
        group has any, its networks are, and the error then says nothing of other architectures.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    References
    ----------
    See the module.

    Examples
    --------
    >>> cells = np.array([[1.0, 0.6, 0.2, 0.2], [0.6, 1.0, 0.2, 0.2], [0.2, 0.2, 1.0, 0.4], [0.2, 0.2, 0.4, 1.0]])
    >>> same = ceiling(cells, np.repeat(cells[..., None], 4, -1), ~np.eye(4, dtype=bool), ["a", "a", "b", "b"])
    >>> round(same.value, 3), round(same.networks.se, 3), same.networks.df
    (0.5, 0.1, 1)
    """
    table = joined(cells, replicates, counted, square=True)
    inside, codes = within_groups(counted, groups), _codes(groups, len(table))
    only_one = len(np.unique(codes[inside.any(axis=1)])) == 1  # its networks are then the sample
    return crossed_jackknife(_leave_out(table, inside, np.arange(len(table)) if only_one else codes))


def normalized(
    cells: np.ndarray,
    replicates: np.ndarray,
    counted: np.ndarray,
    groups: Labels,
    *,
    control: np.ndarray | None = None,
    control_replicates: np.ndarray | None = None,
) -> CrossedEstimate:
    """Place the mean between groups on a scale from the control (0) to the ceiling of its groups (1).

    Parameters
    ----------
    cells, replicates, counted, groups
        As for `mean_between_groups`.
    control
        What each cell would be without inversion or without similarity, (M, M); without it, 0.
    control_replicates
        The same without each shard, (M, M, G); without it, the control has no error.

    Returns
    -------
    CrossedEstimate
        (mean - control) / (ceiling - control). It is NaN without two networks of one group, and may be above 1 or below
        0. Its error over networks is the plain jackknife over groups, which is rather too large, and NaN where only one
        group has replicates.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    References
    ----------
    Efron 1982, The jackknife, the bootstrap and other resampling plans, ch. 3: the jackknife of a ratio leaves the same
    out of both its parts.

    Examples
    --------
    >>> cells = np.array([[1.0, 0.6, 0.2, 0.2], [0.6, 1.0, 0.2, 0.2], [0.2, 0.2, 1.0, 0.4], [0.2, 0.2, 0.4, 1.0]])
    >>> shown = normalized(cells, np.repeat(cells[..., None], 4, -1), ~np.eye(4, dtype=bool), ["a", "a", "b", "b"])
    >>> round(shown.value, 3)
    0.4
    """
    table = joined(cells, replicates, counted, square=True)
    codes = _codes(groups, len(table))
    floors = np.zeros_like(cells) if control is None else np.asarray(control, dtype=np.float64)
    without = (
        np.repeat(floors[..., None], replicates.shape[-1], -1) if control_replicates is None else control_replicates
    )
    low = joined(floors, without, counted, square=True)
    outside, inside = between_groups(counted, groups), within_groups(counted, groups)
    every = np.ones(len(table), dtype=bool)
    value, floor = (_leave_out(each, outside, codes, every) for each in (table, low))
    top = _leave_out(table, inside, codes, every)
    with np.errstate(divide="ignore", invalid="ignore"):
        return crossed_jackknife((value - floor) / (top - floor))


def decompose(cells: np.ndarray, replicates: np.ndarray, counted: np.ndarray, groups: Labels) -> Decomposition:
    """Split the variance of the mean between groups into architectures, training seeds and images.

    The part of seeds is that of means over blocks (two groups, r x r' cells, both directions averaged): networks are
    left out one at a time within their group, with the weights of blocks kept, and what a pair of networks has beyond
    both (the two-way residual of its block) is counted once instead of twice, as in the variance over networks. For
    groups of equal size it is the nested analysis of variance.

    Parameters
    ----------
    cells, replicates, counted, groups
        As for `mean_between_groups`.

    Returns
    -------
    Decomposition
        `seeds`, `architectures` and `cell_sd` are NaN unless every group has two networks or more and all cells
        between groups count.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    References
    ----------
    Searle, Casella, McCulloch 1992, Variance components, ch. 4: expected mean squares of two-way crossed and of nested
    random effects. See the module for cells with two networks.

    Examples
    --------
    >>> effect = np.repeat([0.1, 0.2, 0.3, 0.4], 2) + np.tile([-0.01, 0.01], 4)
    >>> cells = effect[:, None] + effect
    >>> parts = decompose(cells, np.repeat(cells[..., None], 4, -1), ~np.eye(8, dtype=bool), list("aabbccdd"))
    >>> round(parts.architectures, 3), round(parts.seeds, 3), round(parts.cell_sd, 3)
    (0.129, 0.01, 0.02)
    """
    mean = mean_between_groups(cells, replicates, counted, groups)
    codes = _codes(groups, len(cells))
    sizes, outside = np.bincount(codes), between_groups(counted, groups)
    whole = outside.sum() == len(codes) ** 2 - np.square(sizes).sum() and np.isfinite(cells[outside]).all()
    if len(sizes) < 2 or sizes.min() < 2 or not whole:
        return Decomposition(np.nan, np.nan, mean.images.se, np.nan)
    seeds, cell = _seed_variances(np.asarray(cells, dtype=np.float64), codes)
    architectures = np.sqrt(max(mean.networks.se**2 - seeds, 0)) if np.isfinite(mean.networks.se) else np.nan
    return Decomposition(float(architectures), float(np.sqrt(seeds)), mean.images.se, float(np.sqrt(cell)))


def crossed_jackknife(table: np.ndarray) -> CrossedEstimate:
    """Return a value with errors over both samples, from its values with units of either or both left out.

    Parameters
    ----------
    table
        Any statistic, (1 + U, 1 + G): of all networks in the first row, then without each unit of networks; of all
        images in the first column, then without each shard.

    Returns
    -------
    CrossedEstimate
        The variance of `total` is that over images plus that over networks minus what both count: the variance of
        their interaction.

    References
    ----------
    Cameron, Gelbach and Miller 2011, sec. 2, with jackknife variances in place of sandwich ones.

    Examples
    --------
    Independent errors of both samples add:

    >>> table = np.add.outer([0.0, -0.1, 0.1], [0.5, 0.4, 0.6])
    >>> both = crossed_jackknife(table)
    >>> round(both.networks.se, 3), round(both.images.se, 3), round(both.total.se, 3)
    (0.1, 0.1, 0.141)
    """
    table = np.asarray(table, dtype=np.float64)
    value, units, shards = float(table[0, 0]), len(table) - 1, table.shape[1] - 1
    images, networks = float(jackknife_se(table[0, 1:])), float(jackknife_se(table[1:, 0]))
    both = table[1:, 1:] - table[1:, 1:].mean(axis=1, keepdims=True) if units else np.full((1, shards), np.nan)
    shared = (shards - 1) / shards * float(np.square(jackknife_se(both)).sum())
    total = images**2 + networks**2 - shared
    total = max(total, images**2, networks**2) if np.isfinite(total) else np.nan
    df = max(units - 1, 0)
    return CrossedEstimate(
        value,
        Estimate(value, images, shards - 1),
        Estimate(value, networks, df),
        Estimate(value, float(np.sqrt(total)), min(df, shards - 1)),
    )


# ---- parts ------------------------------------------------------------------------------------------------------


def joined(cells: np.ndarray, replicates: np.ndarray, counted: np.ndarray, *, square: bool = False) -> np.ndarray:
    """Join values and replicates along the last axis, (L, C, 1 + G), after checking their shapes."""
    values, without = (np.asarray(each, dtype=np.float64) for each in (cells, replicates))
    if values.ndim != 2 or (square and values.shape[0] != values.shape[1]):
        shape = "(M, M)" if square else "(L, C)"
        raise ValueError(f"cells must be {shape}, got {values.shape}. Pass one matrix, without observers.")
    if np.shape(counted) != values.shape:
        raise ValueError(f"counted must be {values.shape} like cells, got {np.shape(counted)}. Mask the same matrix.")
    if without.shape[:-1] != values.shape:
        raise ValueError(
            f"replicates must be {values.shape} and a last axis of shards, got {without.shape}. "
            f"Move the axis of shards to the end."
        )
    return np.concatenate([values[..., None], without], axis=-1)


def _labels(groups: Labels, networks: int) -> np.ndarray:
    labels = np.array(list(groups))
    if labels.shape != (networks,):
        raise ValueError(f"groups must have {networks} labels, got {len(labels)}. Give every network one.")
    return labels


def _codes(groups: Labels, networks: int) -> np.ndarray:
    """Replace labels by numbers from 0."""
    return np.unique(_labels(groups, networks), return_inverse=True)[1]


def _mean(table: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Average the cells to keep, (1 + G,); NaN if there is none."""
    chosen = table[keep]
    return chosen.mean(axis=0) if len(chosen) else np.full(table.shape[-1], np.nan)


def _leave_out(
    table: np.ndarray, counted: np.ndarray, codes: np.ndarray, networks: np.ndarray | None = None
) -> np.ndarray:
    """Average the counted cells, then those without each group: (1 + U, 1 + G).

    Groups are those of `networks`, (M,); by default of networks that have a counted cell.
    """
    chosen = counted.any(axis=0) | counted.any(axis=1) if networks is None else networks
    without = [counted & (codes != unit)[:, None] & (codes != unit) for unit in np.unique(codes[chosen])]
    return np.stack([_mean(table, keep) for keep in (counted, *without)])


def _seed_variances(cells: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Estimate the variance over seeds of the mean between groups, and of one cell.

    All blocks are complete. Their weights are their numbers of cells.
    """
    indices = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    total = len(codes) ** 2 - sum(len(index) ** 2 for index in indices)
    by_network, once, single = np.zeros(len(codes)), 0.0, []
    for k, rows in enumerate(indices):
        for columns in indices[k + 1 :]:
            weight = 2 * len(rows) * len(columns) / total
            block, mirrored = cells[np.ix_(rows, columns)], cells[np.ix_(columns, rows)].T
            both = (block + mirrored) / 2
            by_network[rows] += weight * both.mean(axis=1)
            by_network[columns] += weight * both.mean(axis=0)
            once += weight**2 * _block(both)[2] / both.size
            single += [sum(_block(one)[:3]) for one in (block, mirrored)]
    seeds = sum(float(np.var(by_network[index], ddof=1)) / len(index) for index in indices)
    return max(seeds - once, once), max(float(np.mean(single)), 0.0)


def _block(values: np.ndarray) -> tuple[float, float, float]:
    """Return variance components of a two-way table (r, c) with one value a cell: of rows, of columns, residual."""
    rows, columns = values.shape
    of_rows, of_columns = values.mean(axis=1), values.mean(axis=0)
    residual = values - of_rows[:, None] - of_columns + values.mean()
    within = float(np.square(residual).sum() / ((rows - 1) * (columns - 1)))
    return float(of_rows.var(ddof=1) - within / columns), float(of_columns.var(ddof=1) - within / rows), within
