"""Results of a run that is not finished: the cells that can be computed already, over all pairs, and what is missing.

M = networks, C = M + those that only observe.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.results.matrices import SETS, column_names, row_names, sums_of
from netsim.similarity.cka import pair_similarities
from netsim.similarity.hsic import Hsic
from netsim.similarity.streaming import Pair
from netsim.similarity.uncertainty import jackknife_se
from netsim.store import layout
from netsim.store.layout import NATURAL
from netsim.store.run import Run
from netsim.store.stages import REPORT
from netsim.store.status import StageStatus, status


@dataclass(frozen=True)
class PartialMatrix:
    """Unbiased CKA and its standard error (M, C), row = through; `available` marks the cells that can be computed."""

    cka: np.ndarray
    se: np.ndarray
    available: np.ndarray

    @property
    def complete(self) -> np.ndarray:
        """The rows (M,) that have all of their cells."""
        return np.asarray(self.available.all(axis=1))


@dataclass(frozen=True)
class PartialResults:
    """Results of a run that is not finished, as far as they are there.

    Attributes
    ----------
    networks, observers
        Names of the networks that are inverted and look, and of those that only look.
    n
        Number of pairs of every cell that is there.
    stages
        Progress of every stage but the report.
    matrices
        Both matrices, by name.
    """

    networks: tuple[str, ...]
    observers: tuple[str, ...]
    n: int
    stages: tuple[StageStatus, ...]
    matrices: Mapping[str, PartialMatrix]

    @property
    def everyone(self) -> tuple[str, ...]:
        """All networks that look: the columns of both matrices."""
        return (*self.networks, *self.observers)

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object, whose `finished` is false; cells that are not there are null."""
        return {
            "finished": False,
            "networks": list(self.networks),
            "observers": list(self.observers),
            "n": self.n,
            "stages": [stage.to_json() for stage in self.stages],
            **{
                name: {"cka_unbiased": _with_null(matrix.cka), "se_unbiased": _with_null(matrix.se)}
                for name, matrix in self.matrices.items()
            },
        }


def load_partial(run: Run) -> PartialResults:
    """Read what a run has of its results, finished or not."""
    sums = sums_of(run)
    names = [tuple(member.name for member in some) for some in (run.settings.members, run.settings.observing)]
    return PartialResults(
        networks=names[0],
        observers=names[1],
        n=run.settings.pairs.count,
        stages=tuple(stage for stage in status(run) if stage.name != REPORT.name),
        matrices={name: _matrix(run, sums, name) for name in SETS},
    )


def _matrix(run: Run, sums: Mapping[str, Mapping[Pair, Hsic]], name: str) -> PartialMatrix:
    """Compute the cells of a matrix whose sums are there."""
    rows, columns = row_names(run), column_names(run)
    identities = run.sweep.identities(run.sweep.columns)
    cka, se = np.full((2, len(rows), len(columns)), np.nan)
    available = np.zeros(cka.shape, bool)
    for i, x in enumerate(rows):
        row = sums.get(NATURAL if name == "natural" else layout.inverted(x), {})
        for j, y in enumerate(columns):
            pair = layout.cell(f"{NATURAL}/{x}", y, identities) if name == "natural" else (x, y)
            if row.keys() >= {pair, (x, x), (y, y)}:
                available[i, j] = True
                similarity = pair_similarities(row, [pair])[pair]
                cka[i, j] = 1.0 if x == y else similarity.cka_unbiased
                se[i, j] = 0.0 if x == y else jackknife_se(similarity.leave_one_out_unbiased)
    return PartialMatrix(cka, se, available)


def _with_null(values: np.ndarray) -> list[list[float | None]]:
    return [[float(value) if np.isfinite(value) else None for value in row] for row in values]
