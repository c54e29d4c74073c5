"""Any measure, for every cell of both matrices of a run, with errors and null values. M = networks, K = resamples.

Not part of a sweep's settings: a measure is a function of what the store holds, so it can be asked for at any time, and
asking changes nothing that is there. A unit of work is a row of a matrix by one measure:

    measures/<measure>/<row>/value       (M,)     by observer; NaN where it is undefined, or stands in another row
    measures/<measure>/<row>/resampled   (M, K)   the same with each shard left out, or on random halves of the images
    measures/<measure>/<row>/null        (M, 5)   the same with one side's images permuted

Halves and permutations are the same for all cells, so errors of means and of differences allow for shared images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.results.matrices import off_diagonal
from netsim.settings import SweepSettings
from netsim.similarity.measures import Measure, find_measure
from netsim.similarity.uncertainty import Estimate, half_sampling, jackknife, plain
from netsim.store import provenance
from netsim.store.arrays import ArraySpec
from netsim.store.layout import NATURAL, Networks, row_parts, rows
from netsim.store.metadata import MeasureMetadata
from netsim.store.run import Run
from netsim.store.stages import Stage

# Work ----------------------------------------------------------------------------------------------------------------


# One cell ------------------------------------------------------------------------------------------------------------


# What was found ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeasuredMatrix:
    """One measure on one kind of set. Arrays (M, M), row = through; the diagonal is a network with itself."""

    value: np.ndarray
    se: np.ndarray
    null: np.ndarray  # mean over permutations
    mean: Estimate  # over cells off the diagonal
    null_mean: float


@dataclass(frozen=True)
class Measured:
    """What a measure found. `natural` and `difference` are None for one that holds two sets against each other."""

    name: str
    title: str
    source: str
    natural: MeasuredMatrix | None
    inverted: MeasuredMatrix
    difference: Estimate | None  # natural minus inverted, paired


def load_measured(run: Run) -> dict[str, Measured]:
    """Every measure that is complete in the store, by name.

    Raises StoreError if one was computed from representations that are no longer those in the store.
    """
    done = {name for name, _ in run.done("measure")}
    names = sorted({name.partition("/")[0] for name in done})
    inverted_rows = [row for row in rows(run.settings) if row_parts(row)[0] != NATURAL]
    natural_rows = [row for row in rows(run.settings) if row_parts(row)[0] == NATURAL]
    found = {}
    for name in names:
        if not all(f"{name}/{row}" in done for row in inverted_rows):
            continue
        facts = MeasureMetadata.of(run.record("measure", f"{name}/{inverted_rows[0]}"))
        there = [row for row in natural_rows if f"{name}/{row}" in done]
        if there and len(there) < len(natural_rows):
            continue
        found[name] = _measured(run, name, facts, there, inverted_rows)
    return found


def _measured(run: Run, name: str, facts: MeasureMetadata, natural: list[str], inverted: list[str]) -> Measured:
    before = _stacked(run, name, natural) if natural else None
    if before and facts.symmetric:
        before = _mirrored(before)
    after = _stacked(run, name, inverted)
    streams = facts.streams
    return Measured(
        name=name,
        title=facts.title,
        source=facts.source,
        natural=_matrix(before, streams) if before else None,
        inverted=_matrix(after, streams),
        difference=_mean({kind: before[kind] - after[kind] for kind in after}, streams) if before else None,
    )


def _stacked(run: Run, name: str, of: list[str]) -> dict[str, np.ndarray]:
    records = [(row, run.record("measure", f"{name}/{row}")) for row in of]
    known = provenance.dependency_records(run, ((record.stage, record.name, record.shard) for _, record in records))
    for _, record in records:
        provenance.check_origin(run, record, known)
    return {
        kind: np.stack([run.read(record, f"measures/{name}/{row}/{kind}") for row, record in records])
        for kind in ("value", "resampled", "null")
    }


def _mirrored(cells: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cells that stand in the row of the other network, filled in."""
    m = len(cells["value"])
    below = np.tril(np.ones((m, m), dtype=bool), k=-1) & np.isnan(cells["value"])
    below &= np.isnan(cells["resampled"]).all(axis=2) & np.isnan(cells["null"]).all(axis=2)
    return {
        kind: np.where(below.reshape(m, m, *[1] * (own.ndim - 2)), own.swapaxes(0, 1), own)
        for kind, own in cells.items()
    }


def _matrix(cells: dict[str, np.ndarray], streams: bool) -> MeasuredMatrix:
    error = jackknife if streams else half_sampling
    se = [error(value, own).se for value, own in zip(cells["value"].ravel(), _flat(cells["resampled"]), strict=True)]
    null = cells["null"].mean(axis=-1)
    return MeasuredMatrix(
        value=cells["value"],
        se=np.array(se).reshape(cells["value"].shape),
        null=null,
        mean=_mean(cells, streams),
        null_mean=float(off_diagonal(null).mean()),
    )


def _flat(cells: np.ndarray) -> np.ndarray:
    return cells.reshape(-1, cells.shape[-1])


def _mean(cells: dict[str, np.ndarray], streams: bool) -> Estimate:
    error = jackknife if streams else half_sampling
    return error(float(off_diagonal(cells["value"]).mean()), off_diagonal(cells["resampled"]).mean(axis=0))


def measured_json(measured: dict[str, Measured]) -> dict[str, Any]:
    """What `netsim results --json` prints under "measures"."""
    return {
        name: {
            "title": found.title,
            "source": found.source,
            "natural": _matrix_json(found.natural) if found.natural else None,
            "inverted": _matrix_json(found.inverted),
            "difference": found.difference.to_json() if found.difference else None,
        }
        for name, found in measured.items()
    }


def _matrix_json(matrix: MeasuredMatrix) -> dict[str, Any]:
    cells = {name: plain(getattr(matrix, name).tolist()) for name in ("value", "se", "null")}
    return cells | {"mean": matrix.mean.to_json(), "null_mean": plain(matrix.null_mean)}


HALVES = 20
"""Random halves for the error of a measure that does not stream."""


NULLS = 5
"""Permutations for the null value, which is a mean: where nothing is shared, they spread little."""


def measure_stage(names: Sequence[str]) -> Stage:
    """The work of some measures, each named as `netsim.similarity.measures.find_measure` takes it.

    Raises SettingsError for a measure that is not there.
    """
    found = {name: find_measure(name) for name in names}

    def shards(settings: SweepSettings) -> dict[str, int]:
        return {f"{name}/{row}": 1 for name, measure in found.items() for row in rows_of(measure, rows(settings))}

    def arrays(settings: SweepSettings, _network: Networks) -> list[ArraySpec]:
        return [
            spec
            for name, measure in found.items()
            for row in rows_of(measure, rows(settings))
            for spec in measure_arrays(settings, name, measure, row)
        ]

    return Stage("measure", "Rows measured", shards, arrays=arrays)


def rows_of(measure: Measure, every: Sequence[str]) -> list[str]:
    """STIR and its like hold an inverted set against the natural one: they have no natural row."""
    return [row for row in every if measure.takes != "two sets" or row_parts(row)[0] != NATURAL]


def measure_arrays(settings: SweepSettings, name: str, measure: Measure, row: str) -> list[ArraySpec]:
    m, k = len(settings.names), settings.pairs.shards if measure.streams else HALVES
    path, observers = f"measures/{name}/{row}", {"observer": settings.names}
    return [
        ArraySpec(f"{path}/value", (m,), "float64", ("observer",), observers),
        ArraySpec(f"{path}/resampled", (m, k), "float64", ("observer", "resample"), observers),
        ArraySpec(f"{path}/null", (m, NULLS), "float64", ("observer", "permutation"), observers),
    ]
