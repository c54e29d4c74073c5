"""How far a run is: shards done and missing, per stage and name, with rate and time left, from one listing a stage."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from netsim.store.metadata import CheckedSplit, CheckMetadata
from netsim.store.run import Run
from netsim.store.stages import CHECK, STAGES, Stage

RECENT = 600.0
"""Seconds before the newest commit that count for the rate: a run that rested overnight is not slow."""


@dataclass(frozen=True)
class StageStatus:
    """One stage. `rate` is in shards per second and `seconds_left` in seconds; None while they can't be told."""

    name: str
    label: str
    done: int
    total: int
    by_name: dict[str, tuple[int, int]]  # name -> (done, total)
    rate: float | None

    @property
    def finished(self) -> bool:
        return self.done == self.total

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate else None


def status(run: Run) -> list[StageStatus]:
    """Every stage with anything to do, in order. Opens no record: 100,000 shards are a matter of seconds."""
    stages = [stage for stage in STAGES if stage.total(run.settings)]
    with ThreadPoolExecutor(len(stages)) as pool:
        return list(pool.map(lambda stage: stage_status(run, stage), stages))


def unreadable(run: Run) -> dict[str, CheckedSplit]:
    """Split -> what was found when its images were looked at; empty before, and where none are decoded."""
    if not CHECK.done(run):
        return {}
    return CheckMetadata.of(run.record(CHECK.name, "images")).splits


def unreadable_counts(run: Run) -> dict[str, tuple[int, int]]:
    """Map each split that was checked to its numbers of unreadable and of listed images."""
    return {split: (len(found.unreadable), found.listed) for split, found in unreadable(run).items()}


def stage_status(run: Run, stage: Stage) -> StageStatus:
    shards = stage.shards(run.settings)
    done = {unit: when for unit, when in stage.done(run).items() if _belongs(unit, shards)}
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


def _belongs(unit: tuple[str, int], units: dict[str, int]) -> bool:
    name, shard = unit
    return shard < units.get(name, 0)


def _rate(times: list[float]) -> float | None:
    recent = [when for when in times if when >= times[-1] - RECENT]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return None
    return (len(recent) - 1) / (recent[-1] - recent[0])
