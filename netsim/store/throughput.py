"""Speed of workers: images per second and share of the peak, by stage and worker, from the commit records.

Records outlive processes, so the figures cover the whole run, however often it was stopped. Only the time of computing
shards counts: a worker that waits for work is not slow.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from netsim.store.metadata import InvertMetadata
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import INVERT, STAGES, Stage

PER_PAIR_STAGES = tuple(stage for stage in STAGES if stage.per_pair)
"""Stages whose shards are shards of pairs, so that images can be counted."""


@dataclass(frozen=True)
class Throughput:
    """Speed of one worker (a process) in one stage, or of several workers together.

    Attributes
    ----------
    worker
        `host:pid`, as in records.
    device
        Empty if records of the stage do not name it.
    flops
        Useful floating-point operations of these shards; None where they are not counted.
    possible
        Operations at the worker's peak in these seconds.
    """

    stage: str
    worker: str
    device: str
    shards: int
    images: int
    seconds: float
    flops: float | None
    possible: float | None

    @property
    def rate(self) -> float | None:
        """Images per second; None if records show no time."""
        return self.images / self.seconds if self.seconds else None

    @property
    def share(self) -> float | None:
        """Share of the peak, in [0, 1]."""
        return self.flops / self.possible if self.flops is not None and self.possible else None

    def to_json(self) -> dict[str, object]:
        """Convert to a JSON object."""
        counted = {key: getattr(self, key) for key in ("stage", "worker", "device", "shards", "images", "seconds")}
        return counted | {"images_per_second": self.rate, "share_of_peak": self.share}


class Tally:
    """Sums of one stage's records by worker. Each record is read once, so a tally can follow a run in progress."""

    def __init__(self, run: Run, stage: Stage) -> None:
        self._run, self._stage = run, stage
        self._read: set[tuple[str, int]] = set()
        self._by_worker: dict[str, Throughput] = {}

    def read(self, done: Iterable[tuple[str, int]]) -> None:
        """Read the records of those units (name, shard) that are new. Raises StoreError if one is missing."""
        new = sorted(set(done) - self._read)
        for record in self._run.records_of((self._stage.name, *unit) for unit in new).values():
            self._add(record)
        self._read.update(new)

    def _add(self, record: Record) -> None:
        shard = _of_record(record, images=self._run.settings.pairs.shard_size)
        before = self._by_worker.get(record.process)
        self._by_worker[record.process] = shard if before is None else combined([before, shard])

    @property
    def workers(self) -> list[Throughput]:
        """One entry per worker, those that computed most first."""
        return sorted(self._by_worker.values(), key=lambda worker: (-worker.images, worker.worker))


def throughput(run: Run) -> list[Throughput]:
    """Measure every worker of a run, stage by stage. Opens every record: thousands take seconds."""
    workers: list[Throughput] = []
    for stage in PER_PAIR_STAGES:
        tally = Tally(run, stage)
        tally.read(stage.units_done(run))
        workers += tally.workers
    return workers


def combined(parts: list[Throughput]) -> Throughput:
    """Add up parts of one stage. The rate of the sum is that of an average worker."""
    known = all(part.flops is not None and part.possible is not None for part in parts)
    return replace(
        parts[0],
        shards=sum(part.shards for part in parts),
        images=sum(part.images for part in parts),
        seconds=sum(part.seconds for part in parts),
        flops=sum(part.flops or 0 for part in parts) if known else None,
        possible=sum(part.possible or 0 for part in parts) if known else None,
    )


def throughput_table(workers: list[Throughput], *, limit: int | None = None) -> list[dict[str, str]]:
    """Tabulate one stage as text: the mean of all workers, then up to `limit` of them."""
    if not workers:
        return []
    count = f"{len(workers):,} workers, mean"
    mean = [replace(combined(workers), worker=count, device="")] if len(workers) > 1 else []
    more = len(workers) - limit if limit is not None else 0
    rows = [_row(worker) for worker in mean + workers[:limit]]
    return [*rows, dict.fromkeys(rows[0], "") | {"worker": f"and {more:,} more"}] if more > 0 else rows


def _of_record(record: Record, *, images: int) -> Throughput:
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


def _row(worker: Throughput) -> dict[str, str]:
    return {
        "worker": worker.worker,
        "device": worker.device,
        "shards": f"{worker.shards:,}",
        "images": f"{worker.images:,}",
        "seconds": f"{worker.seconds:,.1f}",
        "images/s": "–" if worker.rate is None else f"{worker.rate:.3g}",
        "of peak": "–" if worker.share is None else f"{100 * worker.share:.0f} %",
    }
