"""Statistics of a run that take its networks for a sample, computed when they are first used. M = networks.

Everything is of the unbiased estimator. C = M + those that only observe.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from netsim.results.matrices import ESTIMATORS, SETS, Cells
from netsim.results.twins import comparable_cells
from netsim.statistics.asymmetry import Asymmetry, asymmetry
from netsim.statistics.clusters import FEWEST, Clusters, NetworkMap, cluster_networks, map_networks
from netsim.statistics.networks import (
    CrossedEstimate,
    Decomposition,
    between_groups,
    ceiling,
    decompose,
    line_means,
    mean_between_groups,
    normalized,
    within_groups,
)

MEANS = (*SETS, "difference")
"""The sets that have means: both matrices, and natural minus inverted."""

Values = tuple[np.ndarray, np.ndarray]
"""Cells (M, C), and without each shard (M, C, G)."""


@dataclass(frozen=True)
class Inference:
    """Errors over networks, asymmetry, clusters and maps of a run.

    Attributes
    ----------
    networks, observers
        Names of the networks of rows, and of those that only look.
    groups
        Group of every network and observer, (C,): networks of one group are replicates.
    distinct
        Cells (M, C) of two networks with different weights.
    matrices
        Both matrices, by name.
    controls
        The seed-only control of every cell of both, (M, C), and without each shard, (M, C, G): the floor of similarity.
    """

    networks: tuple[str, ...]
    observers: tuple[str, ...]
    groups: tuple[str, ...]
    distinct: np.ndarray
    matrices: Mapping[str, Cells]
    controls: Mapping[str, Values]

    @property
    def inside(self) -> tuple[str, ...]:
        """Group of every network of a row, (M,)."""
        return self.groups[: len(self.networks)]

    @cached_property
    def replicated(self) -> bool:
        """True if two networks with different weights are of one group."""
        return bool(within_groups(self._distinct, self.inside).any())

    @cached_property
    def means(self) -> dict[str, CrossedEstimate]:
        """Set ("natural", "inverted", "difference") -> mean over cells of two networks of different groups."""
        return {name: mean_between_groups(*self._square(name), self._distinct, self.inside) for name in MEANS}

    @cached_property
    def rows(self) -> dict[str, dict[str, CrossedEstimate]]:
        """Set -> network -> mean of its row over networks of other groups."""
        counted = between_groups(self._distinct, self.inside)
        means = {name: line_means(*self._square(name), counted, self.inside) for name in MEANS}
        return {name: dict(zip(self.networks, rows, strict=True)) for name, rows in means.items()}

    @cached_property
    def columns(self) -> dict[str, dict[str, CrossedEstimate]]:
        """Set -> network or observer -> mean of its column over networks of other groups."""
        counted = comparable_cells(self.distinct, self.groups).T
        columns = {}
        for name in MEANS:
            cells, replicates = self._values(name)
            means = line_means(cells.T, replicates.swapaxes(0, 1), counted, self.inside)
            columns[name] = dict(zip((*self.networks, *self.observers), means, strict=True))
        return columns

    @cached_property
    def ceiling(self) -> dict[str, CrossedEstimate]:
        """Set -> mean over cells of two networks of one group; NaN without replicates."""
        return {name: ceiling(*self._square(name), self._distinct, self.inside) for name in SETS}

    @cached_property
    def normalized(self) -> dict[str, CrossedEstimate]:
        """Set -> mean on a scale from the seed-only control (0) to the ceiling (1); NaN without replicates."""
        size = len(self.networks)
        floors = {name: [values[:, :size] for values in self.controls[name]] for name in SETS}
        return {
            name: normalized(
                *self._square(name), self._distinct, self.inside, control=floor, control_replicates=without
            )
            for name, (floor, without) in floors.items()
        }

    @cached_property
    def parts(self) -> dict[str, Decomposition]:
        """Set -> parts of the variance of the mean."""
        return {name: decompose(*self._square(name), self._distinct, self.inside) for name in MEANS}

    @cached_property
    def asymmetry(self) -> Asymmetry:
        """Mirrored cells of the inverted matrix, and rows against columns."""
        return asymmetry(*self._square("inverted"), self._distinct, self.inside)

    @cached_property
    def clusters(self) -> dict[str, tuple[tuple[str, ...], Clusters]]:
        """Set -> networks without undefined cells, and their clusters; without sets of fewer than three of them."""
        return {name: (names, cluster_networks(*values)) for name, (names, values) in self._defined.items()}

    @cached_property
    def maps(self) -> dict[str, tuple[tuple[str, ...], NetworkMap]]:
        """Set -> networks without undefined cells, and a map of them; likewise."""
        return {name: (names, map_networks(*values)) for name, (names, values) in self._defined.items()}

    @property
    def _distinct(self) -> np.ndarray:
        return self.distinct[:, : len(self.networks)]

    def _values(self, name: str) -> Values:
        cells = self.matrices["natural"].minus(self.matrices["inverted"]) if name not in SETS else self.matrices[name]
        e = ESTIMATORS.index("unbiased")
        return cells.cka[e], cells.leave_one_out[e]

    def _square(self, name: str) -> Values:
        cells, replicates = self._values(name)
        m = len(self.networks)
        return cells[:, :m], replicates[:, :m]

    @cached_property
    def _defined(self) -> dict[str, tuple[tuple[str, ...], Values]]:
        """Set -> the networks whose cells are all defined, and these cells."""
        defined = {}
        for name in SETS:
            cells, replicates = self._square(name)
            kept = _defined(np.isfinite(cells) & np.isfinite(replicates).all(axis=-1))
            if len(kept) >= FEWEST:
                cut = np.ix_(kept, kept)
                defined[name] = (tuple(self.networks[index] for index in kept), (cells[cut], replicates[cut]))
        return defined


def _defined(finite: np.ndarray) -> list[int]:
    """List networks whose cells (M, M) with each other are all finite, dropping the worst one first."""
    kept = list(range(len(finite)))
    while kept:
        undefined = (~finite[np.ix_(kept, kept)]).sum(axis=0) + (~finite[np.ix_(kept, kept)]).sum(axis=1)
        if not undefined.any():
            break
        kept.pop(int(undefined.argmax()))
    return kept
