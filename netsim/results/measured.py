"""Results of other measures: both matrices by any measure, with errors and null values. M = networks, K = resamples.

Measures are not part of a sweep's settings: they are functions of stored representations, so they can be computed at
any time and change nothing else in the store. A unit of work is one row of a matrix by one measure, for a cohort of C
networks:

    measures/<measure>/<row>/<cohort>-<shards>/value       (C,)     NaN if undefined
    measures/<measure>/<row>/<cohort>-<shards>/resampled   (C, K)   without each shard, or on random halves of images
    measures/<measure>/<row>/<cohort>-<shards>/null        (C, 5)   with one side's images permuted

Halves and permutations are the same for all cells, so errors of means and of differences allow for shared images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.results.matrices import comparable
from netsim.results.twins import counted_mean
from netsim.similarity.measures import Measure, find_measure
from netsim.similarity.uncertainty import Estimate, half_sampling, jackknife, plain
from netsim.storage.concurrency import concurrently
from netsim.store.arrays import ArraySpec
from netsim.store.coverage import Pair, Rows
from netsim.store.layout import NATURAL, Networks, RowUnit, row_parts, rows
from netsim.store.metadata import MeasureMetadata
from netsim.store.provenance import check_origins
from netsim.store.run import Run
from netsim.store.stages import Done, Stage
from netsim.store.sweeps import Sweep

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
    replicates
        (M, C, K), the value without each shard; where the error is by half-sampling, values on halves, moved towards
        their mean so that the jackknife of any sum of cells has the error of half-sampling.
    mean, null_mean
        Means of `value` and `null` over the cells of two networks with different weights. The mean of a measure that
        does not stream counts as biased: nothing says that unrelated rows would give 0, nor any other known value.
    """

    value: np.ndarray
    se: np.ndarray
    null: np.ndarray
    replicates: np.ndarray
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
    """Read every measure that is complete for the sweep, by name.

    Raises
    ------
    StoreError
        If values are damaged, or were computed from other representations than the store has now.
    """
    by_measure: dict[str, dict[tuple[str, int], float]] = {}
    for (name, shard), when in run.done("measure").items():
        measure, _, unit = name.partition("/")
        by_measure.setdefault(measure, {})[unit, shard] = when
    names = sorted(by_measure)
    results = concurrently(lambda name: _measured(run, name, by_measure[name]), names)
    return {name: result for name, result in zip(names, results, strict=True) if result is not None}


def _measured(run: Run, name: str, done: Mapping[tuple[str, int], float]) -> Measured | None:
    """Read a measure; None if cells of the sweep are missing."""
    begun = {RowUnit.parse(unit).row for unit, _ in done}
    if not begun.issuperset(row for row in rows(run.sweep) if row_parts(row)[0] != NATURAL):
        return None
    metadata = MeasureMetadata.of(run.record("measure", f"{name}/{next(iter(sorted(done)))[0]}"))
    kind = Rows(sums=False, mirrored=metadata.symmetric, natural=not metadata.two_sets)
    finished = kind.finished(run, done)
    inverted = [row for row in finished if row_parts(row)[0] != NATURAL]
    natural = [row for row in finished if row not in inverted]
    has_natural = any(row_parts(row)[0] == NATURAL for row in begun)
    if not all(finished[row] for row in (finished if has_natural else inverted)):
        return None
    covered = kind.covered(run, done)
    before = _stacked(run, name, kind, natural, covered) if natural and has_natural else None
    after = _stacked(run, name, kind, inverted, covered)
    streams, cells = metadata.streams, comparable(run)[:, : len(run.sweep.networks)]
    return Measured(
        name=name,
        title=metadata.title,
        source=metadata.source,
        natural=_matrix(before, cells, streams) if before else None,
        inverted=_matrix(after, cells, streams),
        difference=_mean({kind: before[kind] - after[kind] for kind in after}, cells, streams) if before else None,
    )


def _stacked(
    run: Run, name: str, kind: Rows, matrix_rows: Sequence[str], covered: Mapping[str, Mapping[Pair, str]]
) -> dict[str, np.ndarray]:
    """Read rows of the sweep into arrays (M, C), (M, C, K) and (M, C, 5), in the order that it shows."""
    units = {unit for row in matrix_rows for unit in covered[row_parts(row)[0]].values()}
    records = run.records_of(("measure", f"{name}/{unit}", 0) for unit in sorted(units))
    check_origins(run, records.values())
    kinds = ("value", "resampled", "null")
    position = {unit: {pair: at for at, pair in enumerate(kind.of_unit(run, unit))} for unit in units}

    def read(unit: str) -> dict[str, np.ndarray]:
        paths = [f"measures/{name}/{unit}/{each}" for each in kinds]
        return dict(zip(kinds, run.read_some(records["measure", f"{name}/{unit}", 0], paths).values(), strict=True))

    values = dict(zip(sorted(units), concurrently(read, sorted(units)), strict=True))
    by_network = {row_parts(row)[1]: row for row in matrix_rows}

    def cell(through: str, observer: str, each: str) -> np.ndarray:
        row = by_network[through]
        (pair,) = kind.needed(run.sweep, row)[observer]
        unit = covered[row_parts(row)[0]][pair]
        return values[unit][each][position[unit][pair]]

    through = [network.name for network in run.sweep.networks]
    observers = [*through, *(network.name for network in run.sweep.observers)]
    return {each: np.array([[cell(x, y, each) for y in observers] for x in through]) for each in kinds}


def _matrix(cells: dict[str, np.ndarray], counted: np.ndarray, streams: bool) -> MeasuredMatrix:
    estimate = jackknife if streams else half_sampling
    resampled = cells["resampled"].reshape(-1, cells["resampled"].shape[-1])
    se = [estimate(value, values).se for value, values in zip(cells["value"].ravel(), resampled, strict=True)]
    null = cells["null"].mean(axis=-1)
    return MeasuredMatrix(
        value=cells["value"],
        se=np.array(se).reshape(cells["value"].shape),
        null=null,
        replicates=cells["resampled"] if streams else _as_left_out(cells["resampled"]),
        mean=_mean(cells, counted, streams, biased=not streams),
        null_mean=float(counted_mean(null[:, : len(counted)], counted)),
    )


def _as_left_out(halves: np.ndarray) -> np.ndarray:
    """Move values on halves (..., K) so that (K - 1) / K times their squares is what their variance was."""
    k = halves.shape[-1]
    centre = halves.mean(axis=-1, keepdims=True)
    return centre + (halves - centre) * np.sqrt(k) / (k - 1)


def _mean(cells: dict[str, np.ndarray], counted: np.ndarray, streams: bool, *, biased: bool = False) -> Estimate:
    estimate = jackknife if streams else half_sampling
    value, resampled = (counted_mean(cells[kind][:, : len(counted)], counted) for kind in ("value", "resampled"))
    return estimate(float(value), resampled, biased=biased)


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

    def shards(sweep: Sweep) -> dict[str, int]:
        return {f"{name}/{row}": 1 for name, measure in measures.items() for row in rows_of(measure).of(sweep)}

    def arrays(run: Run, unit: str, _network: Networks) -> list[ArraySpec]:
        return measure_arrays(run, unit, measures[unit.partition("/")[0]])

    def reached(run: Run, done: Done) -> Done:
        finished = {
            f"{name}/{row}": done_of
            for name, measure in measures.items()
            for done_of in [_of_measure(name, done)]
            for row, is_finished in rows_of(measure).finished(run, done_of).items()
            if is_finished
        }
        return {(goal, 0): max(times.values(), default=0.0) for goal, times in finished.items()}

    def lacking(run: Run, done: Done) -> list[tuple[str, int]]:
        return [
            (f"{name}/{unit}", shard)
            for name, measure in measures.items()
            for unit, shard in rows_of(measure).missing(run, _of_measure(name, done))
        ]

    return Stage("measure", "Rows measured", shards, arrays=arrays, reached=reached, lacking=lacking)


def _of_measure(name: str, done: Mapping[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """Select the units of one measure, without its name."""
    prefix = f"{name}/"
    return {(unit.removeprefix(prefix), shard): when for (unit, shard), when in done.items() if unit.startswith(prefix)}


def rows_of(measure: Measure) -> Rows:
    """Return how a measure covers rows: none is natural for one that compares two sets, such as STIR."""
    return Rows(sums=False, mirrored=measure.symmetric, natural=measure.takes != "two sets")


def measure_arrays(run: Run, unit: str, measure: Measure) -> list[ArraySpec]:
    """List the arrays of a unit, `<measure>/<row>/<cohort>-<shards>`."""
    row_unit = unit.partition("/")[2]
    pairs, shards = rows_of(measure).of_unit(run, row_unit), RowUnit.parse(row_unit).shards
    count, k = len(pairs), shards if measure.streams else HALVES
    path, labels = f"measures/{unit}", {"model_pair": [f"{first} {second}" for first, second in pairs]}
    return [
        ArraySpec(f"{path}/value", (count,), "float64", ("model_pair",), labels),
        ArraySpec(f"{path}/resampled", (count, k), "float64", ("model_pair", "resample"), labels),
        ArraySpec(f"{path}/null", (count, NULLS), "float64", ("model_pair", "permutation"), labels),
    ]
