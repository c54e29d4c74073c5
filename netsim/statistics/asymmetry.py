"""Asymmetry of a matrix: images inverted through A and seen by B against those inverted through B and seen by A.

M = networks, K = pairs of networks, G = shards. Both cells of a pair are computed without the same shards, so what
images do to both is no difference (paired).

Source: Jones et al. 2022, https://proceedings.mlr.press/v180/jones22a.html, whose third claim is that rows and columns
of the inverted matrix differ. They give no errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.similarity.uncertainty import Estimate, jackknife, plain
from netsim.statistics.multiple import holm
from netsim.statistics.networks import CrossedEstimate, Labels, between_groups, line_means


@dataclass(frozen=True)
class Asymmetry:
    """Differences of mirrored cells, and of each network's row and column.

    Attributes
    ----------
    pairs : dict
        (i, j) with i < j -> M_ij - M_ji, of networks with different weights. Errors are over images, with G - 1 degrees
        of freedom.
    pair_p : dict
        (i, j) -> p-value adjusted by Holm's method for all K pairs; NaN where undefined.
    networks : tuple of CrossedEstimate
        For each network, the mean of its row minus that of its column. Positive: others are more similar to it on
        images inverted through it than it is to them on theirs. These differences have the sum 0 over a complete
        matrix. The error over networks is over the others, for this network as it is.
    network_p : tuple of float
        p-value of each, over images, adjusted by Holm's method for all M networks.
    """

    pairs: dict[tuple[int, int], Estimate]
    pair_p: dict[tuple[int, int], float]
    networks: tuple[CrossedEstimate, ...]
    network_p: tuple[float, ...]

    def largest(self, count: int = 3) -> list[tuple[int, int]]:
        """Return the pairs of largest absolute difference, largest first, as (i, j) so that M_ij > M_ji."""
        defined = [pair for pair, each in self.pairs.items() if np.isfinite(each.value)]
        ordered = sorted(defined, key=lambda pair: -abs(self.pairs[pair].value))[:count]
        return [(i, j) if self.pairs[i, j].value >= 0 else (j, i) for i, j in ordered]

    def difference(self, i: int, j: int) -> Estimate:
        """Return M_ij - M_ji of either order."""
        if (i, j) in self.pairs:
            return self.pairs[i, j]
        mirrored = self.pairs[j, i]
        return Estimate(-mirrored.value, mirrored.se, mirrored.df)

    def adjusted(self, i: int, j: int) -> float:
        """Return the adjusted p-value of a pair in either order."""
        return self.pair_p[min(i, j), max(i, j)]

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Convert to plain values, with the networks' names (M,)."""
        return {
            "pairs": [
                {"through": names[i], "observer": names[j]} | each.to_json() | {"p_holm": plain(self.pair_p[i, j])}
                for (i, j), each in self.pairs.items()
            ],
            "row_minus_column": {
                name: each.to_json() | {"p_value": plain(each.images.p_value), "p_holm": plain(p)}
                for name, each, p in zip(names, self.networks, self.network_p, strict=True)
            },
        }


def asymmetry(cells: np.ndarray, replicates: np.ndarray, counted: np.ndarray, groups: Labels) -> Asymmetry:
    """Test whether mirrored cells of a matrix differ, and each network's row from its column.

    Parameters
    ----------
    cells
        Similarities (M, M), row = through, column = observer; any real numbers.
    replicates
        The same without each shard of images, (M, M, G).
    counted
        Cells of two networks with different weights, (M, M), the diagonal not among them. A pair is tested if both of
        its cells count.
    groups
        Label of each network, (M,). Rows and columns are averaged over networks of other groups.

    Returns
    -------
    Asymmetry
        Differences with errors, t tests with G - 1 degrees of freedom, and p-values adjusted by Holm's method within
        all pairs, and within all networks.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    References
    ----------
    Jones et al. 2022, sec. 4; Holm 1979 for the adjustment.

    Examples
    --------
    >>> shards = np.random.default_rng(0).normal(0.5, 0.01, (3, 3, 8))
    >>> shards[0, 1] += 0.2
    >>> cells = shards.mean(axis=-1)
    >>> differences = asymmetry(cells, (8 * cells[..., None] - shards) / 7, ~np.eye(3, dtype=bool), "abc")
    >>> differences.largest(1), round(differences.pairs[0, 1].value, 1), differences.pair_p[0, 1] < 0.001
    ([(0, 1)], 0.2, True)
    """
    outside = between_groups(counted, groups)
    rows = line_means(cells - cells.T, replicates - replicates.swapaxes(0, 1), outside & outside.T, groups)
    both = np.asarray(counted) & np.asarray(counted).T
    pairs = {
        (int(i), int(j)): jackknife(cells[i, j] - cells[j, i], replicates[i, j] - replicates[j, i])
        for i, j in np.argwhere(np.triu(both, 1))
    }
    adjusted = holm([each.p_value for each in pairs.values()])
    by_network = holm([each.images.p_value for each in rows])
    return Asymmetry(pairs, dict(zip(pairs, adjusted.tolist(), strict=True)), rows, tuple(float(p) for p in by_network))
