"""Both CKA matrices of a run, by estimator, from the sums in its store. E estimators, M networks, G shards.

The unit of every error is the image: a jackknife deletes one shard of images from all cells at once, so errors of means
and differences allow for cells that share images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netsim.results.twins import counted_cells, counted_mean
from netsim.similarity.cka import PairSimilarity, pair_similarities
from netsim.similarity.hsic import Estimator, Hsic
from netsim.similarity.streaming import Pair
from netsim.similarity.uncertainty import Estimate, jackknife
from netsim.storage.concurrency import concurrently
from netsim.store import layout
from netsim.store.layout import NATURAL, inverted
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
        (E, M, M); NaN where undefined.
    leave_one_out
        (E, M, M, G), CKA without each shard.
    floor
        (M, M), mean of the biased estimator over all permutations of one side's rows: what it gives for unrelated
        representations of these spectra (`netsim.similarity.hsic.null_floor`).
    undefined
        (E, M, M), the reason where a value is undefined, else "".
    counted
        (M, M), the cells that means are taken over: those of two networks with different weights.
    """

    cka: np.ndarray
    leave_one_out: np.ndarray
    floor: np.ndarray
    undefined: np.ndarray
    counted: np.ndarray

    def mean(self, estimator: Estimator) -> Estimate:
        """Average the cells that count."""
        e = ESTIMATORS.index(estimator)
        value, replicates = (counted_mean(cells[e], self.counted) for cells in (self.cka, self.leave_one_out))
        return jackknife(float(value), replicates)

    def rows(self, estimator: Estimator) -> list[Estimate]:
        """Average the cells of each row that count."""
        return [jackknife(*row) for row in zip(*self._row_means(estimator), strict=True)]

    def row_differences(self, estimator: Estimator) -> dict[tuple[int, int], Estimate]:
        """Subtract the mean of each later row from that of each earlier one, paired: all rows share their pairs.

        Rows of networks with equal weights are not compared.
        """
        values, replicates = self._row_means(estimator)
        return {
            (int(i), int(j)): jackknife(values[i] - values[j], replicates[i] - replicates[j])
            for i, j in np.argwhere(np.triu(self.counted))
        }

    def _row_means(self, estimator: Estimator) -> tuple[np.ndarray, np.ndarray]:
        """Average the cells of each row that count: over all shards (M,), and without each shard (M, G)."""
        e = ESTIMATORS.index(estimator)
        values, replicates = (
            np.stack([counted_mean(row, counted) for row, counted in zip(cells[e], self.counted, strict=True)])
            for cells in (self.cka, self.leave_one_out)
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


def row_sums(run: Run, row: str) -> dict[tuple[str, str], Hsic]:
    """Read the sums behind one row of a matrix, by model pair."""
    record, pairs = run.record("aggregate", row), run.settings.pairs
    n = np.array([pairs.count, *[pairs.count - pairs.shard_size] * pairs.shards])
    moments = run.read(record, layout.moments_path(row))
    model_pairs = layout.row_pairs(run.settings.names, row)
    return {pair: Hsic(n, *sums) for pair, sums in zip(model_pairs, moments, strict=True)}


def natural_cells(run: Run) -> Cells:
    """Compute CKA of every model pair on natural images."""
    names = run.settings.names
    every = concurrently(lambda name: row_sums(run, f"{NATURAL}/{name}"), names)
    sums = {pair: value for row in every for pair, value in row.items()}
    pairs = [[(x, y) if (x, y) in sums else (y, x) for y in names] for x in names]
    return _cells(run, [pair_similarities(sums, row) for row in pairs], pairs)


def inverted_cells(run: Run) -> Cells:
    """Compute CKA on inverted images, each row from the sums over its own set."""
    names = run.settings.names
    pairs = [[(through, observer) for observer in names] for through in names]
    rows = zip(concurrently(lambda name: row_sums(run, inverted(name)), names), pairs, strict=True)
    return _cells(run, [pair_similarities(sums, row) for sums, row in rows], pairs)


def counted(run: Run) -> np.ndarray:
    """Select the cells (M, M) of a run that means are taken over."""
    return counted_cells([weights_hash(run, name) for name in run.settings.names])


def _cells(
    run: Run, similarities: Sequence[Mapping[Pair, PairSimilarity]], pairs: Sequence[Sequence[tuple[str, str]]]
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
        undefined=stack("undefined_unbiased", "undefined"),
        counted=counted(run),
    )


def _one_for_itself(values: np.ndarray, itself: np.ndarray) -> np.ndarray:
    """Make a network's similarity to itself 1, not 1 up to rounding; NaN stays where its representation is constant."""
    return np.where(np.isnan(values), np.nan, np.where(itself, 1.0, values))
