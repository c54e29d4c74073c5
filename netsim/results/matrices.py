"""Both CKA matrices of a run, by estimator, from the sums in its store. E estimators, M networks, G shards.

The unit of every error is the image: a jackknife deletes one shard of images from all cells at once, so errors of means
and differences allow for cells that share images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.similarity.cka import PairSimilarity, pair_similarities
from netsim.similarity.hsic import Estimator, Hsic
from netsim.similarity.uncertainty import Estimate, jackknife
from netsim.store import layout
from netsim.store.layout import NATURAL, inverted
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
    """

    cka: np.ndarray
    leave_one_out: np.ndarray
    floor: np.ndarray
    undefined: np.ndarray

    def mean(self, estimator: Estimator) -> Estimate:
        """Average the cells off the diagonal."""
        e = ESTIMATORS.index(estimator)
        return jackknife(off_diagonal(self.cka[e]).mean(), off_diagonal(self.leave_one_out[e]).mean(axis=0))

    def rows(self, estimator: Estimator) -> list[Estimate]:
        """Average each row without its diagonal."""
        return [jackknife(*row) for row in zip(*self._row_means(estimator), strict=True)]

    def row_differences(self, estimator: Estimator) -> dict[tuple[int, int], Estimate]:
        """Subtract the mean of each later row from that of each earlier one, paired: all rows share their pairs."""
        values, replicates = self._row_means(estimator)
        return {
            (int(i), int(j)): jackknife(values[i] - values[j], replicates[i] - replicates[j])
            for i, j in zip(*np.triu_indices(len(values), k=1), strict=True)
        }

    def _row_means(self, estimator: Estimator) -> tuple[np.ndarray, np.ndarray]:
        """Average each row without the diagonal: over all shards (M,), and without each shard (M, G)."""
        e, m = ESTIMATORS.index(estimator), self.cka.shape[-1]
        value, replicates = off_diagonal(self.cka[e]), off_diagonal(self.leave_one_out[e])
        return value.reshape(m, m - 1).mean(axis=1), replicates.reshape(m, m - 1, -1).mean(axis=1)

    def minus(self, other: "Cells") -> "Cells":
        """Subtract cell by cell, paired: both sets come from the same pairs."""
        return Cells(
            self.cka - other.cka, self.leave_one_out - other.leave_one_out, self.floor - other.floor, self.undefined
        )


def off_diagonal(cells: np.ndarray) -> np.ndarray:
    """Drop the diagonal of the first two axes: (M, M, ...) -> (M(M-1), ...)."""
    return cells[~np.eye(len(cells), dtype=bool)]


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
    sums = {pair: value for name in names for pair, value in row_sums(run, f"{NATURAL}/{name}").items()}
    pairs = [(x, y) if (x, y) in sums else (y, x) for x in names for y in names]
    return _cells(pair_similarities(sums, pairs), pairs, shape=(len(names), len(names)))


def inverted_cells(run: Run) -> Cells:
    """Compute CKA on inverted images, each row from the sums over its own set."""
    names, rows = run.settings.names, []
    for through in names:
        pairs = [(through, observer) for observer in names]
        rows.append(_cells(pair_similarities(row_sums(run, inverted(through)), pairs), pairs, shape=(len(names),)))
    return Cells(
        cka=np.stack([row.cka for row in rows], axis=1),
        leave_one_out=np.stack([row.leave_one_out for row in rows], axis=1),
        floor=np.stack([row.floor for row in rows]),
        undefined=np.stack([row.undefined for row in rows], axis=1),
    )


def _cells(
    similarities: dict[tuple[Any, Any], PairSimilarity], pairs: Sequence[tuple[str, str]], *, shape: tuple[int, ...]
) -> Cells:
    cells = [(similarities[pair], pair[0] == pair[1]) for pair in pairs]

    def stack(unbiased: str, biased: str) -> np.ndarray:
        stacked = np.array(
            [[_of_itself(getattr(pair, name), same) for pair, same in cells] for name in (unbiased, biased)]
        )
        return stacked.reshape(len(ESTIMATORS), *shape, *stacked.shape[2:])

    reasons = [[pair.undefined_unbiased for pair, _ in cells], [pair.undefined for pair, _ in cells]]
    return Cells(
        cka=stack("cka_unbiased", "cka"),
        leave_one_out=stack("leave_one_out_unbiased", "leave_one_out"),
        floor=np.array([pair.floor for pair, _ in cells]).reshape(shape),
        undefined=np.array(reasons).reshape(len(ESTIMATORS), *shape),
    )


def _of_itself(value: Any, same: bool) -> np.ndarray:
    """Make a network's similarity to itself 1, not 1 up to rounding; NaN stays where its representation is constant."""
    return np.where(np.isnan(value), np.nan, 1.0 if same else value)
