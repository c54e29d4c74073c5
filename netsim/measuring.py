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
from functools import partial
from typing import Any

import numpy as np
import torch

from netsim import stages
from netsim.results import off_diagonal
from netsim.similarity.measures import Measure, Shards, Sides, find_measure, read
from netsim.similarity.uncertainty import Estimate, half_sampling, jackknife, plain
from netsim.stages import Stage, Work
from netsim.store import layout, provenance
from netsim.store.arrays import ArraySpec
from netsim.store.layout import NATURAL, row_parts, rows
from netsim.store.run import Run
from netsim.store.stages import Units

HALVES = 20
"""Random halves for the error of a measure that does not stream."""

NULLS = 5
"""Permutations for the null value, which is a mean: where nothing is shared, they spread little."""


# Work ----------------------------------------------------------------------------------------------------------------


def measure_stage(names: Sequence[str]) -> Stage:
    """The work of some measures, each named as `netsim.similarity.measures.find_measure` takes it.

    Raises SettingsError for a measure that is not there.
    """
    found = {name: find_measure(name) for name in names}

    def units(settings: Any) -> dict[str, int]:
        return {f"{name}/{row}": 1 for name, measure in found.items() for row in _rows_of(measure, rows(settings))}

    def arrays(run: Run) -> list[ArraySpec]:
        return [
            spec
            for name, measure in found.items()
            for row in _rows_of(measure, rows(run.settings))
            for spec in _arrays(run, name, measure, row)
        ]

    return Stage(Units("measure", "Rows measured", units), arrays, measure_row)


def _rows_of(measure: Measure, every: Sequence[str]) -> list[str]:
    """STIR and its like hold an inverted set against the natural one: they have no natural row."""
    return [row for row in every if measure.takes != "two sets" or row_parts(row)[0] != NATURAL]


def _arrays(run: Run, name: str, measure: Measure, row: str) -> list[ArraySpec]:
    m, k = len(run.settings.names), run.settings.pairs.shards if measure.streams else HALVES
    path, observers = f"measures/{name}/{row}", {"observer": run.settings.names}
    return [
        ArraySpec(f"{path}/value", (m,), "float64", ("observer",), observers),
        ArraySpec(f"{path}/resampled", (m, k), "float64", ("observer", "resample"), observers),
        ArraySpec(f"{path}/null", (m, NULLS), "float64", ("observer", "permutation"), observers),
    ]


def measure_row(run: Run, name: str, shard: int) -> Work:
    """One row of a matrix by one measure: `name` is `<measure>/<row>`.

    Raises StoreError unless every shard of the set is done and unharmed.
    """
    measure_name, _, row = name.partition("/")
    measure, names = find_measure(measure_name), run.settings.names
    cells: dict[str, Evaluation] = {}
    for observer in _observers(measure, names, row):
        shards = [partial(_sides, run, measure, row, observer, shard) for shard in range(run.settings.pairs.shards)]
        cells[observer] = evaluate(measure, shards, rng_seed=run.settings.pairs.rng_seed)
    arrays = {}
    for spec in _arrays(run, measure_name, measure, row):
        kind, empty = spec.path.rpartition("/")[2], np.full(spec.shape[1:], np.nan)
        values = [getattr(cells[observer], kind) if observer in cells else empty for observer in names]
        arrays[spec.path] = np.array(values, dtype=np.float64)
    looked_at = provenance.source_records(run, [("measure", name, shard)]).values()
    facts = {key: getattr(measure, key) for key in ("title", "source", "streams", "symmetric")}
    return Work(arrays, facts=facts | {"made_from": provenance.made_from(record.content for record in looked_at)})


def _observers(measure: Measure, names: tuple[str, ...], row: str) -> tuple[str, ...]:
    """Those whose cell is computed in this row; a symmetric measure has the others in earlier rows."""
    set_name, network = row_parts(row)
    return names[names.index(network) :] if set_name == NATURAL and measure.symmetric else names


def _sides(run: Run, measure: Measure, row: str, observer: str, shard: int) -> Sides:
    set_name, network = row_parts(row)
    if measure.takes == "two sets":
        return _represented(run, NATURAL, observer, shard), _represented(run, set_name, observer, shard)
    sides = tuple(_represented(run, set_name, name, shard) for name in (network, observer))
    if measure.takes == "predictions":
        sides = tuple(_logits(run, name, side) for name, side in zip((network, observer), sides, strict=True))
    return sides[0], sides[1]


def _represented(run: Run, set_name: str, name: str, shard: int) -> np.ndarray:
    record = run.record("embed", set_name, shard)
    provenance.check_weights(run, record)
    return run.read(record, layout.representation_path(set_name, name))


def _logits(run: Run, name: str, representation: np.ndarray) -> np.ndarray:
    """What the network's last layer makes of the representation: exactly its logits."""
    head = stages.network(run, name).head
    with torch.no_grad():
        return head(torch.tensor(representation).to(head.weight)).float().cpu().numpy()


# One cell ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """A measure of one cell: its value, the same on resamples (K,), and with one side's images permuted (NULLS,)."""

    value: float
    resampled: np.ndarray
    null: np.ndarray


def evaluate(measure: Measure, shards: Shards, *, rng_seed: int = 0) -> Evaluation:
    """A measure of two sides that come as shards; see `netsim.similarity.measures.measure` for what those hold."""
    if measure.streams:
        value, left_out = measure.compute(shards)
        null = [measure.compute(_permuted(shards, rng_seed, draw))[0] for draw in range(NULLS)]
        return Evaluation(float(value), np.asarray(left_out), np.array(null, dtype=np.float64))
    x, y = read(shards, measure.images)
    halves = [np.sort(_rng(rng_seed, draw).permutation(len(x))[: len(x) // 2]) for draw in range(HALVES)]
    permutations = [_rng(rng_seed, draw).permutation(len(x)) for draw in range(NULLS)]
    return Evaluation(
        float(measure.compute(x, y)),
        np.array([measure.compute(x[half], y[half]) for half in halves], dtype=np.float64),
        np.array([measure.compute(x, y[order]) for order in permutations], dtype=np.float64),
    )


def _permuted(shards: Shards, rng_seed: int, draw: int) -> Shards:
    """Against each shard's images of one side, those of another shard of the other, permuted: two shards at a time.

    Within a shard alone, one image in as many as a shard has would stay in its place.
    """

    def sides(at: int) -> Sides:
        other = (at + 1 + draw % max(1, len(shards) - 1)) % len(shards)
        (x, _), (_, y) = shards[at](), shards[other]()
        return x, y[_rng(rng_seed, draw, at).permutation(len(y))]

    return [partial(sides, at) for at in range(len(shards))]


def _rng(*names: int) -> np.random.Generator:
    return np.random.default_rng(names)


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
        facts = run.record("measure", f"{name}/{inverted_rows[0]}").facts
        there = [row for row in natural_rows if f"{name}/{row}" in done]
        if there and len(there) < len(natural_rows):
            continue
        found[name] = _measured(run, name, facts, there, inverted_rows)
    return found


def _measured(run: Run, name: str, facts: dict[str, Any], natural: list[str], inverted: list[str]) -> Measured:
    before = _stacked(run, name, natural) if natural else None
    if before and facts.get("symmetric", True):  # records of an older netsim do not tell
        before = _mirrored(before)
    after = _stacked(run, name, inverted)
    streams = facts["streams"]
    return Measured(
        name=name,
        title=facts["title"],
        source=facts["source"],
        natural=_matrix(before, streams) if before else None,
        inverted=_matrix(after, streams),
        difference=_mean({kind: before[kind] - after[kind] for kind in after}, streams) if before else None,
    )


def _stacked(run: Run, name: str, of: list[str]) -> dict[str, np.ndarray]:
    records = [(row, run.record("measure", f"{name}/{row}")) for row in of]
    known = provenance.source_records(run, ((record.stage, record.name, record.shard) for _, record in records))
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
