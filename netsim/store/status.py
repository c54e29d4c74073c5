"""Progress of a run: shards done and missing by stage and name, rate and time left, from one listing per stage."""

from dataclasses import asdict, dataclass
from typing import Any

from netsim.storage.concurrency import concurrently
from netsim.store.metadata import CheckedSplit, CheckMetadata
from netsim.store.run import Run
from netsim.store.stages import CHECK, STAGES, Stage

RECENT = 600.0
"""Seconds before the newest commit that count for the rate: a run that paused overnight is not slow."""


@dataclass(frozen=True)
class StageStatus:
    """Progress of one stage.

    Attributes
    ----------
    by_name
        Name -> (shards done, shards in all).
    rate
        Shards per second; None until it can be estimated.
    """

    name: str
    label: str
    done: int
    total: int
    by_name: dict[str, tuple[int, int]]
    rate: float | None

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object; the key of the label is "says"."""
        return {"says" if key == "label" else key: value for key, value in asdict(self).items()}

    @property
    def finished(self) -> bool:
        """True if no shard is missing."""
        return self.done == self.total

    @property
    def seconds_left(self) -> float | None:
        """Estimated time until the stage is finished; None while there is no rate."""
        return (self.total - self.done) / self.rate if self.rate else None


def status(run: Run) -> list[StageStatus]:
    """Report the progress of every stage that has anything to do. Opens no record: 100,000 shards take seconds."""
    stages = [stage for stage in STAGES if stage.total(run.sweep)]
    return concurrently(lambda stage: stage_status(run, stage), stages)


def unreadable(run: Run) -> dict[str, CheckedSplit]:
    """Map each split that was checked to what the check found; empty before it, and where images are not files."""
    done = sorted(name for name, _ in CHECK.done(run))
    return {
        name: CheckedSplit.model_validate(CheckMetadata.of(run.record(CHECK.name, name)).model_dump()) for name in done
    }


def unreadable_counts(run: Run) -> dict[str, tuple[int, int]]:
    """Map each split that was checked to its numbers of unreadable and of listed images."""
    return {name: (len(split.unreadable), split.listed) for name, split in unreadable(run).items()}


def stage_status(run: Run, stage: Stage) -> StageStatus:
    """Report the progress of one stage."""
    shards, done = stage.shards(run.sweep), stage.done(run)
    counts = dict.fromkeys(shards, 0)
    for name, _ in done:
        counts[name] += 1
    return StageStatus(
        name=stage.name,
        label=stage.label,
        done=len(done),
        total=sum(shards.values()),
        by_name={name: (counts[name], total) for name, total in shards.items()},
        rate=_rate(sorted(done.values())),
    )


def _rate(times: list[float]) -> float | None:
    recent = [when for when in times if when >= times[-1] - RECENT]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return None
    return (len(recent) - 1) / (recent[-1] - recent[0])
