"""Results of other measures: both matrices by any measure, with errors and null values. M = networks, K = resamples.

Measures are not part of a sweep's settings: they are functions of stored representations, so they can be computed at
any time and change nothing else in the store. A unit of work is one row of a matrix by one measure:

    measures/<measure>/<row>/value       (M,)     by observer; NaN if undefined, or stored in another row (symmetric)
    measures/<measure>/<row>/resampled   (M, K)   values without each shard, or on random halves of the images
    measures/<measure>/<row>/null        (M, 5)   values with one side's images permuted

Halves and permutations are the same for all cells, so errors of means and of differences allow for shared images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.results.matrices import counted
from netsim.results.twins import counted_mean
from netsim.settings import SweepSettings
from netsim.similarity.measures import Measure, find_measure
from netsim.similarity.uncertainty import Estimate, half_sampling, jackknife, plain
from netsim.storage.concurrency import concurrently
from netsim.store import provenance
from netsim.store.arrays import ArraySpec
from netsim.store.layout import NATURAL, Networks, row_parts, rows
from netsim.store.metadata import MeasureMetadata
from netsim.store.run import Run
from netsim.store.stages import Stage

HALVES = 20
"""Number of random halves for the error of a measure that does not stream."""

NULLS = 5
"""Number of permutations averaged for the null value; they spread little where nothing is shared."""


@dataclass(frozen=True)
class MeasuredMatrix:
    """One matrix, natural or inverted, by one measure.

    Attributes
    ----------
    value, se, null
        Values, their standard errors, and their means over permutations, each (M, M); row = through, column =
        observer. The diagonal compares a network with itself.
    mean, null_mean
        Means of `value` and `null` over the cells of two networks with different weights.
    """

    value: np.ndarray
    se: np.ndarray
    null: np.ndarray
    mean: Estimate
    null_mean: float


@dataclass(frozen=True)
class Measured:
    """Results of one measure.

    Attributes
    ----------
    source
        Citation of the measure.
    natural, difference
        The natural matrix, and the mean of natural minus inverted, paired; None for a measure that compares the
        inverted set with the natural one, such as STIR.
    """

    name: str
    title: str
    source: str
    natural: MeasuredMatrix | None
    inverted: MeasuredMatrix
    difference: Estimate | None


def load_measured(run: Run) -> dict[str, Measured]:
    """Read every measure that is complete in the store, by name.

    Raises
    ------
    StoreError
        If values are damaged, or were computed from other representations than the store has now.
    """
    done = {name for name, _ in run.done("measure")}
    names = sorted({name.partition("/")[0] for name in done})
    inverted_rows = [row for row in rows(run.settings) if row_parts(row)[0] != NATURAL]
    natural_rows = [row for row in rows(run.settings) if row_parts(row)[0] == NATURAL]
    complete: dict[str, tuple[MeasureMetadata, list[str]]] = {}
    for name in names:
        if not all(f"{name}/{row}" in done for row in inverted_rows):
            continue
        metadata = MeasureMetadata.of(run.record("measure", f"{name}/{inverted_rows[0]}"))
        natural_done = [row for row in natural_rows if f"{name}/{row}" in done]
        if natural_done and len(natural_done) < len(natural_rows):
            continue
        complete[name] = (metadata, natural_done)
    results = concurrently(lambda name: _measured(run, name, *complete[name], inverted_rows), complete)
    return dict(zip(complete, results, strict=True))


def _measured(run: Run, name: str, metadata: MeasureMetadata, natural: list[str], inverted: list[str]) -> Measured:
    before = _stacked(run, name, natural) if natural else None
    if before and metadata.symmetric:
        before = _mirrored(before)
    after = _stacked(run, name, inverted)
    streams, cells = metadata.streams, counted(run)
    return Measured(
        name=name,
        title=metadata.title,
        source=metadata.source,
        natural=_matrix(before, cells, streams) if before else None,
        inverted=_matrix(after, cells, streams),
        difference=_mean({kind: before[kind] - after[kind] for kind in after}, cells, streams) if before else None,
    )


def _stacked(run: Run, name: str, matrix_rows: list[str]) -> dict[str, np.ndarray]:
    """Read and stack rows into arrays (M, M), (M, M, K) and (M, M, 5)."""
    units = [("measure", f"{name}/{row}", 0) for row in matrix_rows]
    records = run.records_of(units)
    known = provenance.dependency_records(run, units)
    for record in records.values():
        provenance.check_origin(run, record, known)

    def stacked(kind: str) -> np.ndarray:
        return np.stack(concurrently(lambda unit: run.read(records[unit], f"measures/{unit[1]}/{kind}"), units))

    kinds = ("value", "resampled", "null")
    return dict(zip(kinds, concurrently(stacked, kinds), strict=True))


def _mirrored(cells: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fill in the cells of a symmetric measure that are stored in the row of the other network."""
    m = len(cells["value"])
    below = np.tril(np.ones((m, m), dtype=bool), k=-1) & np.isnan(cells["value"])
    below &= np.isnan(cells["resampled"]).all(axis=2) & np.isnan(cells["null"]).all(axis=2)
    return {
        kind: np.where(below.reshape(m, m, *[1] * (values.ndim - 2)), values.swapaxes(0, 1), values)
        for kind, values in cells.items()
    }


def _matrix(cells: dict[str, np.ndarray], counted: np.ndarray, streams: bool) -> MeasuredMatrix:
    estimate = jackknife if streams else half_sampling
    resampled = cells["resampled"].reshape(-1, cells["resampled"].shape[-1])
    se = [estimate(value, values).se for value, values in zip(cells["value"].ravel(), resampled, strict=True)]
    null = cells["null"].mean(axis=-1)
    return MeasuredMatrix(
        value=cells["value"],
        se=np.array(se).reshape(cells["value"].shape),
        null=null,
        mean=_mean(cells, counted, streams),
        null_mean=float(counted_mean(null, counted)),
    )


def _mean(cells: dict[str, np.ndarray], counted: np.ndarray, streams: bool) -> Estimate:
    estimate = jackknife if streams else half_sampling
    return estimate(float(counted_mean(cells["value"], counted)), counted_mean(cells["resampled"], counted))


def measured_json(measured: dict[str, Measured]) -> dict[str, Any]:
    """Convert to what `netsim results --json` prints under "measures"."""
    return {
        name: {
            "title": measure.title,
            "source": measure.source,
            "natural": _matrix_json(measure.natural) if measure.natural else None,
            "inverted": _matrix_json(measure.inverted),
            "difference": measure.difference.to_json() if measure.difference else None,
        }
        for name, measure in measured.items()
    }


def _matrix_json(matrix: MeasuredMatrix) -> dict[str, Any]:
    cells = {name: plain(getattr(matrix, name).tolist()) for name in ("value", "se", "null")}
    return cells | {"mean": matrix.mean.to_json(), "null_mean": plain(matrix.null_mean)}


def measure_stage(names: Sequence[str]) -> Stage:
    """Return the stage that computes these measures, named as `netsim.similarity.measures.find_measure` takes them.

    Raises
    ------
    SettingsError
        If there is no measure of one of these names.
    """
    measures = {name: find_measure(name) for name in names}

    def shards(settings: SweepSettings) -> dict[str, int]:
        return {f"{name}/{row}": 1 for name, measure in measures.items() for row in rows_of(measure, rows(settings))}

    def arrays(settings: SweepSettings, _network: Networks) -> list[ArraySpec]:
        return [
            spec
            for name, measure in measures.items()
            for row in rows_of(measure, rows(settings))
            for spec in measure_arrays(settings, name, measure, row)
        ]

    return Stage("measure", "Rows measured", shards, arrays=arrays)


def rows_of(measure: Measure, every: Sequence[str]) -> list[str]:
    """Select the rows that a measure has: none is natural for one that compares two sets, such as STIR."""
    return [row for row in every if measure.takes != "two sets" or row_parts(row)[0] != NATURAL]


def measure_arrays(settings: SweepSettings, name: str, measure: Measure, row: str) -> list[ArraySpec]:
    """List the arrays of one row of a matrix by one measure."""
    m, k = len(settings.names), settings.pairs.shards if measure.streams else HALVES
    path, observers = f"measures/{name}/{row}", {"observer": settings.names}
    return [
        ArraySpec(f"{path}/value", (m,), "float64", ("observer",), observers),
        ArraySpec(f"{path}/resampled", (m, k), "float64", ("observer", "resample"), observers),
        ArraySpec(f"{path}/null", (m, NULLS), "float64", ("observer", "permutation"), observers),
    ]
