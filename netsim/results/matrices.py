"""Both CKA matrices of a run, by estimator, from the sums in its store.

E estimators, M networks, C = M + those that only observe, G shards.

The unit of every error is the image: a jackknife deletes one shard of images from all cells at once, so errors of means
and differences allow for cells that share images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netsim.results.twins import comparable_cells, counted_cells, counted_mean
from netsim.similarity.cka import PairSimilarity, pair_similarities
from netsim.similarity.hsic import Estimator, EstimatorName, Hsic, validate_estimator
from netsim.similarity.streaming import Pair
from netsim.similarity.uncertainty import Estimate, jackknife
from netsim.storage.concurrency import concurrently
from netsim.store import layout
from netsim.store.coverage import SUMS
from netsim.store.layout import NATURAL
from netsim.store.provenance import weights_hash
from netsim.store.run import Run

ESTIMATORS: tuple[Estimator, ...] = ("unbiased", "biased")
"""In the order of the first axis of `Cells`."""

SETS = ("natural", "inverted")
"""The two matrices."""


@dataclass(frozen=True)
class Cells:
    """CKA of every cell of one matrix; row = through, column = observer.

    Attributes
    ----------
    cka
        (E, M, C); NaN where undefined.
    leave_one_out
        (E, M, C, G), CKA without each shard.
    floor
        (M, C), mean of the biased estimator over all permutations of one side's rows: what it gives for unrelated
        representations of these spectra (`netsim.similarity.hsic.null_floor`).
    undefined
        (E, M, C), the reason where a value or its error is undefined, else "".
    comparable
        (M, C), the cells that can be averaged: those of two networks with different weights and of different groups.
        Means of a matrix and of its rows are over the M networks, without those that only observe.
    """

    cka: np.ndarray
    leave_one_out: np.ndarray
    floor: np.ndarray
    undefined: np.ndarray
    comparable: np.ndarray

    @property
    def _inside(self) -> np.ndarray:
        """The cells (M, M) that means are taken over."""
        return self.comparable[:, : len(self.comparable)]

    def _square(self, estimator: EstimatorName) -> tuple[np.ndarray, np.ndarray]:
        """Select the cells between networks that are inverted: over all shards (M, M), and without each (M, M, G)."""
        e, m = ESTIMATORS.index(validate_estimator(estimator)), len(self.comparable)
        return self.cka[e][:, :m], self.leave_one_out[e][:, :m]

    def mean(self, estimator: EstimatorName) -> Estimate:
        """Average the cells that count."""
        value, replicates = (counted_mean(cells, self._inside) for cells in self._square(estimator))
        return jackknife(float(value), replicates, biased=estimator == "biased")

    def columns(self, estimator: EstimatorName) -> list[Estimate]:
        """Average the cells of each of the C columns that count."""
        e = ESTIMATORS.index(validate_estimator(estimator))
        values, replicates = (
            np.stack([counted_mean(cells[e][:, c], self.comparable[:, c]) for c in range(self.comparable.shape[1])])
            for cells in (self.cka, self.leave_one_out)
        )
        biased = estimator == "biased"
        return [jackknife(*column, biased=biased) for column in zip(values, replicates, strict=True)]

    def rows(self, estimator: EstimatorName) -> list[Estimate]:
        """Average the cells of each row that count."""
        biased = estimator == "biased"
        return [jackknife(*row, biased=biased) for row in zip(*self._row_means(estimator), strict=True)]

    def row_differences(self, estimator: EstimatorName) -> dict[tuple[int, int], Estimate]:
        """Subtract the mean of each later row from that of each earlier one, paired: all rows share their pairs.

        Rows of networks with equal weights, or of one group, are not compared.
        """
        (values, replicates), biased = self._row_means(estimator), estimator == "biased"
        return {
            (int(i), int(j)): jackknife(values[i] - values[j], replicates[i] - replicates[j], biased=biased)
            for i, j in np.argwhere(np.triu(self._inside))
        }

    def _row_means(self, estimator: EstimatorName) -> tuple[np.ndarray, np.ndarray]:
        """Average the cells of each row that count: over all shards (M,), and without each shard (M, G)."""
        values, replicates = (
            np.stack([counted_mean(row, counted) for row, counted in zip(cells, self._inside, strict=True)])
            for cells in self._square(estimator)
        )
        return values, replicates

    def minus(self, other: "Cells") -> "Cells":
        """Subtract cell by cell, paired: both sets come from the same pairs."""
        return replace(
            self,
            cka=self.cka - other.cka,
            leave_one_out=self.leave_one_out - other.leave_one_out,
            floor=self.floor - other.floor,
        )


def matrices(run: Run, sums: Mapping[str, Mapping[Pair, Hsic]] | None = None) -> dict[str, Cells]:
    """Compute CKA of every cell of both matrices of the sweep, by the name of the matrix, from its sums."""
    sums = sums_of(run) if sums is None else sums
    through, observers = row_names(run), column_names(run)
    identities = run.sweep.identities(run.sweep.columns)
    natural = [[layout.cell(f"{NATURAL}/{x}", y, identities) for y in observers] for x in through]
    inverted = [[(x, y) for y in observers] for x in through]
    rows = [pair_similarities(sums[layout.inverted(x)], row) for x, row in zip(through, inverted, strict=True)]
    mask = comparable(run)
    return {
        "natural": _cells([pair_similarities(sums[NATURAL], row) for row in natural], natural, mask),
        "inverted": _cells(rows, inverted, mask),
    }


def row_names(run: Run) -> list[str]:
    """List the networks of the rows, by their names in the store, in the order of the sweep."""
    return [network.name for network in run.sweep.networks]


def column_names(run: Run) -> list[str]:
    """List the networks of the columns likewise: those of the rows, then those that only observe."""
    return [*row_names(run), *(network.name for network in run.sweep.observers)]


def sums_of(run: Run) -> dict[str, dict[Pair, Hsic]]:
    """Read the sums of every model pair of the sweep, by set."""
    settings = run.settings.pairs
    n = np.array([settings.count, *[settings.count - settings.shard_size] * settings.shards])
    covered = SUMS.covered(run, run.done("aggregate"))
    units = sorted({unit for pairs in covered.values() for unit in pairs.values()})
    records = run.records_of(("aggregate", unit, 0) for unit in units)

    def read(unit: str) -> dict[Pair, np.ndarray]:
        moments = run.read(records["aggregate", unit, 0], layout.moments_path(unit))
        return dict(zip(SUMS.of_unit(run, unit), moments, strict=True))

    by_unit = dict(zip(units, concurrently(read, units), strict=True))
    return {
        set_name: {pair: Hsic(n, *by_unit[unit][pair]) for pair, unit in pairs.items()}
        for set_name, pairs in covered.items()
    }


def comparable(run: Run) -> np.ndarray:
    """Select the cells (M, C) of a run that can be averaged."""
    hashes = {name: weights_hash(run, name) for name in run.sweep.columns}
    rows, observers = ([hashes[each.name] for each in some] for some in (run.sweep.networks, run.sweep.observers))
    return comparable_cells(counted_cells(rows, observers), list(groups_of(run).values()))


def groups_of(run: Run) -> dict[str, str]:
    """Map every network and observer, by the name under which the sweep shows it, to its group."""
    return {member.name: member.group for member in (*run.settings.members, *run.settings.observing)}


def _cells(
    similarities: Sequence[Mapping[Pair, PairSimilarity]], pairs: Sequence[Sequence[Pair]], mask: np.ndarray
) -> Cells:
    """Arrange the similarities of a matrix, row by row."""
    cells = [[row[pair] for pair in row_pairs] for row, row_pairs in zip(similarities, pairs, strict=True)]
    itself = np.array([[x == y for x, y in row] for row in pairs])

    def stack(*names: str) -> np.ndarray:
        return np.array([[[getattr(cell, name) for cell in row] for row in cells] for name in names])

    return Cells(
        cka=_one_for_itself(stack("cka_unbiased", "cka"), itself),
        leave_one_out=_one_for_itself(stack("leave_one_out_unbiased", "leave_one_out"), itself[..., None]),
        floor=stack("floor")[0],
        undefined=stack("reason_unbiased", "reason"),
        comparable=mask,
    )


def _one_for_itself(values: np.ndarray, itself: np.ndarray) -> np.ndarray:
    """Make a network's similarity to itself 1, not 1 up to rounding; NaN stays where its representation is constant."""
    return np.where(np.isnan(values), np.nan, np.where(itself, 1.0, values))
