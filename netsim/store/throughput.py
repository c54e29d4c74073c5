"""How fast workers compute: images a second and share of the peak, by stage and worker, from the commit records.

Records outlive processes, so the figures are those of the whole run, however often it was stopped. Seconds are those of
computing shards: a worker that waits for work is not slow.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby

from netsim.store.metadata import InvertMetadata
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import INVERT, STAGES, Stage

PER_PAIR_STAGES = tuple(stage for stage in STAGES if stage.per_pair)
"""The stages whose shards are shards of pairs, so that images can be counted."""


@dataclass(frozen=True)
class Throughput:
    """Of one worker, a process, in one stage; or of several."""

    stage: str
    worker: str  # host:pid, as in records
    device: str  # empty where the record of a shard does not say
    shards: int
    images: int
    seconds: float
    flops: float | None  # useful ones of these shards; None where they are not counted
    possible: float | None  # FLOPs at the worker's peak in these seconds

    @property
    def rate(self) -> float | None:
        """Images a second; None for shards that took no time that a record shows."""
        return self.images / self.seconds if self.seconds else None

    @property
    def share(self) -> float | None:
        """Of the peak, in [0, 1]."""
        return self.flops / self.possible if self.flops is not None and self.possible else None

    def to_json(self) -> dict[str, object]:
        counted = {key: getattr(self, key) for key in ("stage", "worker", "device", "shards", "images", "seconds")}
        return counted | {"images_per_second": self.rate, "share_of_peak": self.share}


class Tally:
    """Adds up the records of one stage of a run by worker. Each is read once, so it may follow a run that works."""

    def __init__(self, run: Run, stage: Stage) -> None:
        self._run, self._stage = run, stage
        self._read: set[tuple[str, int]] = set()
        self._found: dict[str, Throughput] = {}

    def read(self, done: Iterable[tuple[str, int]]) -> None:
        """Read the records of those units (name, shard) that were not read before. Raises StoreError if one is gone."""
        shards = self._stage.shards(self._run.settings)
        new = sorted({(name, shard) for name, shard in done if shard < shards.get(name, 0)} - self._read)
        for name, group in groupby(new, key=lambda unit: unit[0]):
            for record in self._run.records(self._stage.name, name, [shard for _, shard in group]):
                self._add(record)
        self._read.update(new)

    def _add(self, record: Record) -> None:
        one = _of(record, images=self._run.settings.pairs.shard_size)
        before = self._found.get(record.process)
        self._found[record.process] = one if before is None else together([before, one])

    @property
    def found(self) -> list[Throughput]:
        """One for each worker, whoever computed most first."""
        return sorted(self._found.values(), key=lambda one: (-one.images, one.worker))


def throughput(run: Run) -> list[Throughput]:
    """Of every worker of a run, stage by stage. Opens every record: seconds for thousands."""
    found: list[Throughput] = []
    for stage in PER_PAIR_STAGES:
        tally = Tally(run, stage)
        tally.read(stage.done(run))
        found += tally.found
    return found


def together(parts: list[Throughput]) -> Throughput:
    """The sum of some of one stage: its rate is that of a worker, on the mean over the seconds of all."""
    known = all(part.flops is not None and part.possible is not None for part in parts)
    return replace(
        parts[0],
        shards=sum(part.shards for part in parts),
        images=sum(part.images for part in parts),
        seconds=sum(part.seconds for part in parts),
        flops=sum(part.flops or 0 for part in parts) if known else None,
        possible=sum(part.possible or 0 for part in parts) if known else None,
    )


def _of(record: Record, *, images: int) -> Throughput:
    inverted = InvertMetadata.of(record) if record.stage == INVERT.name else None
    return Throughput(
        stage=record.stage,
        worker=record.process,
        device=record.facts.get("device", ""),
        shards=1,
        images=images,
        seconds=record.seconds,
        flops=inverted.flops if inverted else None,
        possible=inverted.peak_flops * record.seconds if inverted else None,
    )


def throughput_table(found: list[Throughput], *, most: int | None = None) -> list[dict[str, str]]:
    """What people are shown of one stage: all workers on the mean, then each, at most `most` of them."""
    if not found:
        return []
    mean = replace(together(found), worker=f"{len(found):,} workers, mean", device="") if len(found) > 1 else None
    more = len(found) - most if most is not None else 0
    rows = [_row(one) for one in ([mean] if mean else []) + found[:most]]
    return [*rows, dict.fromkeys(rows[0], "") | {"worker": f"and {more:,} more"}] if more > 0 else rows


def _row(one: Throughput) -> dict[str, str]:
    return {
        "worker": one.worker,
        "device": one.device,
        "shards": f"{one.shards:,}",
        "images": f"{one.images:,}",
        "seconds": f"{one.seconds:,.1f}",
        "images/s": "–" if one.rate is None else f"{one.rate:.3g}",
        "of peak": "–" if one.share is None else f"{100 * one.share:.0f} %",
    }
