"""measure: one row of a matrix by another measure than CKA, with resamples and null values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np

from netsim.results.measured import HALVES, NULLS, measure_arrays, rows_of
from netsim.similarity.measures import Measure, Shards, Sides, find_measure, read
from netsim.similarity.retraining import retrained_scores
from netsim.stages import inputs
from netsim.stages.inputs import Represented
from netsim.stages.work import StageResult
from netsim.store import provenance
from netsim.store.layout import NATURAL, RowUnit, row_parts
from netsim.store.metadata import MeasureMetadata, train_metadata
from netsim.store.run import Run

KEPT_BYTES = 2**28
"""Most bytes of representations that a unit keeps. A cell with its replicates and its null values takes each shard of
both networks dozens of times, and all cells of a row have one network in common."""

TARGET_LABELS = "pairs/target_label"
"""Path of the labels that classifiers are retrained with: those of targets, and of the images inverted to them."""


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Compute the cells of a cohort in one row by one measure; `name` is `<measure>/<row>/<cohort>-<shards>`.

    Raises
    ------
    StoreError
        If a shard of the set is missing or damaged.
    """
    measure_name, _, unit = name.partition("/")
    measure, parts = find_measure(measure_name), RowUnit.parse(unit)
    two_sets = measure.takes == "two sets"
    set_name, pairs = row_parts(parts.row)[0], rows_of(measure).of_unit(run, unit)
    names = tuple(dict.fromkeys(network for pair in pairs for network in pair))
    looks = {
        each: Represented(run, each, names, parts.shards) for each in ((NATURAL, set_name) if two_sets else (set_name,))
    }
    retrained = cache(partial(_retrained, run, looks[set_name], parts.shards))
    side = lru_cache(maxsize=_kept_sides(run, names))(partial(_side, run, measure, looks, retrained))
    evaluations = []
    for first, second in pairs:
        compared = [(NATURAL, second), (set_name, second)] if two_sets else [(set_name, first), (set_name, second)]
        shards = [partial(_both, side, compared, shard) for shard in range(parts.shards)]
        evaluations.append(evaluate(measure, shards, rng_seed=run.settings.pairs.rng_seed))
    arrays = {
        spec.path: np.array([getattr(each, spec.path.rpartition("/")[2]) for each in evaluations], dtype=np.float64)
        for spec in measure_arrays(run, name, measure)
    }
    records = [record for each in looks.values() for record in each.records]
    metadata = MeasureMetadata(
        title=measure.title,
        source=measure.reference,
        streams=measure.streams,
        symmetric=measure.symmetric,
        two_sets=two_sets,
        made_from=provenance.made_from(run, ("measure", name, shard), records, two_sets=two_sets),
    )
    return StageResult(arrays, metadata=metadata)


def _side(
    run: Run,
    measure: Measure,
    looks: Mapping[str, Represented],
    retrained: Callable[[str], np.ndarray],
    set_name: str,
    name: str,
    shard: int,
) -> np.ndarray:
    """Make what a measure takes of one network on a shard of a set."""
    if measure.takes == "retrained predictions":
        return np.asarray(retrained(name)[shard])
    values = looks[set_name].read(shard, [name])[name]
    return inputs.logits(run, name, values) if measure.takes == "predictions" else values


def _kept_sides(run: Run, names: Sequence[str]) -> int:
    """Return how many shards of one network `KEPT_BYTES` have room for."""
    width = max(train_metadata(run, name).width for name in names)
    return max(2, KEPT_BYTES // (run.settings.pairs.shard_size * width * np.dtype(np.float32).itemsize))


def _both(side: Callable[[str, str, int], np.ndarray], parts: Sequence[tuple[str, str]], shard: int) -> Sides:
    """Read a shard of both sides; a measure may change what it is given."""
    first, second = (side(set_name, name, shard).copy() for set_name, name in parts)
    return first, second


def _retrained(run: Run, represented: Represented, shards: int, name: str) -> np.ndarray:
    """Predict a set by classifiers retrained on a network's representations: (G, pairs, classes)."""
    rows = np.stack([represented.read(shard, [name])[name] for shard in range(shards)])
    drawn = run.records_of(("draw", "pairs", shard) for shard in range(shards))
    labels = run.read_all([drawn["draw", "pairs", shard] for shard in range(shards)], TARGET_LABELS)
    return retrained_scores(rows, labels.reshape(shards, -1))


@dataclass(frozen=True)
class Evaluation:
    """One cell by one measure: its value, values on resamples (K,), and with one side's images permuted (NULLS,)."""

    value: float
    resampled: np.ndarray
    null: np.ndarray


def evaluate(measure: Measure, shards: Shards, *, rng_seed: int = 0) -> Evaluation:
    """Evaluate a measure on two sides that come as shards, as `netsim.similarity.measures.measure` describes them."""
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
    """Pair each shard of one side with another shard of the other side, permuted: two shards in memory at a time.

    Permuted within a shard, one image in `shard_size` would keep its place.
    """

    def sides(at: int) -> Sides:
        other = (at + 1 + draw % max(1, len(shards) - 1)) % len(shards)
        (x, _), (_, y) = shards[at](), shards[other]()
        return x, y[_rng(rng_seed, draw, at).permutation(len(y))]

    return [partial(sides, at) for at in range(len(shards))]


def _rng(*names: int) -> np.random.Generator:
    return np.random.default_rng(names)
