"""Progress of a run: shards done and missing by stage and name, rate and time left, from one listing per stage."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from blake3 import blake3

from netsim.storage.concurrency import concurrently
from netsim.store.layout import checkpoint_path
from netsim.store.metadata import CheckedSplit, CheckMetadata
from netsim.store.run import Run
from netsim.store.stages import CHECK, STAGES, TRAIN, Stage

RECENT = 600.0
"""Seconds before the newest commit that count for the rate: a run that paused overnight is not slow."""

LARGEST_HEADER = 100_000_000
"""Bytes of the largest header of safetensors, by their specification."""


@dataclass(frozen=True)
class StageStatus:
    """Progress of one stage.

    Attributes
    ----------
    by_name
        Name -> (shards done, shards in all).
    rate
        Shards per second; None until it can be estimated.
    epochs
        Network that the run trains -> (epochs done, epochs in all); empty for other stages.
    """

    name: str
    label: str
    done: int
    total: int
    by_name: dict[str, tuple[int, int]]
    rate: float | None
    epochs: dict[str, tuple[int, int]] = field(default_factory=dict)

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


def progress_line(run: Run) -> str:
    """Tell the progress of every stage in a line, as in "train 3/3, draw 2/6"."""
    return ", ".join(f"{stage.name} {stage.done}/{stage.total}" for stage in status(run))


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
        epochs=_epochs(run, {name for name, _ in done}) if stage is TRAIN else {},
    )


def _epochs(run: Run, done: set[str]) -> dict[str, tuple[int, int]]:
    """Map each network that the run trains to its epochs done, by its checkpoint until it is finished, and in all."""
    training = {name: run.sweep.network(name).training for name in run.sweep.columns}
    totals = {name: settings.epochs for name, settings in training.items() if settings is not None}
    under_way = _epochs_of_checkpoints(run, [name for name in totals if name not in done])
    return {name: (total if name in done else under_way.get(name, 0), total) for name, total in totals.items()}


def _epochs_of_checkpoints(run: Run, names: list[str]) -> dict[str, int]:
    """Read the epochs that checkpoints have behind them, of which only a header and eight bytes are fetched.

    A checkpoint is a hash and safetensors: the length of the header, the header, and the tensors.
    """
    start = blake3.digest_size + 8
    paths = {name: checkpoint_path(name) for name in names}
    lengths = run.files.get_ranges([(path, blake3.digest_size, start) for path in paths.values()])
    ends = {
        name: start + int.from_bytes(length, "little")
        for name, length in zip(paths, lengths, strict=True)
        if length is not None and int.from_bytes(length, "little") < LARGEST_HEADER
    }
    headers = run.files.get_ranges([(paths[name], start, end) for name, end in ends.items()])
    places = {}
    for (name, end), header in zip(ends.items(), headers, strict=True):
        try:
            first, last = json.loads(header or b"")["epochs_done"]["data_offsets"]
        except (ValueError, KeyError, TypeError):  # damaged: the training starts over
            continue
        places[name] = (paths[name], end + first, end + last)
    counts = run.files.get_ranges(list(places.values()))
    return {name: int.from_bytes(count or b"", "little") for name, count in zip(places, counts, strict=True)}


def _rate(times: list[float]) -> float | None:
    recent = [when for when in times if when >= times[-1] - RECENT]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return None
    return (len(recent) - 1) / (recent[-1] - recent[0])
