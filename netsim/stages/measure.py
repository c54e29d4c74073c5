"""measure: one row of a matrix by another measure than CKA, with resamples and null values."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from netsim.results.measured import HALVES, NULLS, measure_arrays
from netsim.similarity.measures import Measure, Shards, Sides, find_measure, read
from netsim.stages import inputs
from netsim.stages.work import StageResult
from netsim.store import layout, provenance
from netsim.store.layout import NATURAL, row_parts
from netsim.store.metadata import MeasureMetadata
from netsim.store.run import Run


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Compute one row of a matrix by one measure; `name` is `<measure>/<row>`.

    Raises
    ------
    StoreError
        If a shard of the set is missing or damaged.
    """
    measure_name, _, row = name.partition("/")
    measure, names = find_measure(measure_name), run.settings.names
    cells: dict[str, Evaluation] = {}
    for observer in _observers(measure, names, row):
        shards = [partial(_sides, run, measure, row, observer, shard) for shard in range(run.settings.pairs.shards)]
        cells[observer] = evaluate(measure, shards, rng_seed=run.settings.pairs.rng_seed)
    arrays = {}
    for spec in measure_arrays(run.settings, measure_name, measure, row):
        kind, empty = spec.path.rpartition("/")[2], np.full(spec.shape[1:], np.nan)
        values = [getattr(cells[observer], kind) if observer in cells else empty for observer in names]
        arrays[spec.path] = np.array(values, dtype=np.float64)
    looked_at = provenance.dependency_records(run, [("measure", name, shard)]).values()
    metadata = MeasureMetadata(
        title=measure.title,
        source=measure.reference,
        streams=measure.streams,
        symmetric=measure.symmetric,
        made_from=provenance.made_from(record.content for record in looked_at),
    )
    return StageResult(arrays, metadata=metadata)


def _observers(measure: Measure, names: tuple[str, ...], row: str) -> tuple[str, ...]:
    """List observers whose cell is computed in this row; a symmetric measure has the others in earlier rows."""
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
    """Apply the network's last layer to a representation: exactly its logits."""
    head = inputs.network(run, name).head
    with torch.no_grad():
        return head(torch.tensor(representation).to(head.weight)).float().cpu().numpy()


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
