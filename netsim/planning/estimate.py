"""What a sweep will take, before it is run: shards, FLOPs, bytes, hours, memory; and whether it can be run at all.

FLOPs are counted, and bytes follow from the arrays that stages declare. Seconds and memory are measured by
`netsim.planning.probe`, in as many processes at a time as there are workers, because those share a machine too; or
seconds follow from the FLOP/s of another device, as an earlier run on it reached them or as they are said.
"""

import heapq
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from netsim import errors
from netsim.errors import NetsimError, NetworkError, SettingsError, StoreError
from netsim.images import Split
from netsim.networks import needs_download, needs_training
from netsim.planning.preflight import check
from netsim.planning.probe import Asked, Probe
from netsim.settings import SweepSettings
from netsim.similarity.streaming import feature_cost, gram_cost
from netsim.stages.inputs import used_images
from netsim.storage.files import Files
from netsim.store.layout import row_pairs
from netsim.store.metadata import InvertMetadata
from netsim.store.run import Run
from netsim.store.stages import INVERT, STAGES, Stage, blocks

UNSEEN = 0.1
"""Of an estimate, either way: what seconds of measuring do not show of hours."""

AROUND = 60.0
"""Seconds of a sweep besides its shards: processes start, Prefect's server too, and the report is written."""

RECORD_BYTES = 2000
"""Of a commit record."""


class Range(NamedTuple):
    """A number that is estimated, and what it may be at least and at most."""

    low: float
    mean: float
    high: float

    def __mul__(self, factor: float) -> "Range":  # type: ignore[override]
        return Range(*(factor * value for value in self))

    def __add__(self, other: "Range") -> "Range":  # type: ignore[override]
        return Range(*(a + b for a, b in zip(self, other, strict=True)))

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(min(values), fmean(values), max(values))

    @classmethod
    def sure(cls, value: float) -> Self:
        return cls(value, value, value)


NOTHING = Range.sure(0.0)


@dataclass(frozen=True)
class Device:
    """What seconds follow from where they are not measured: useful FLOP/s, of all networks or of one by its name."""

    label: str
    flops: Range  # a second
    of_network: Mapping[str, Range]

    def seconds(self, name: str, flops: float) -> Range:
        rate = self.of_network.get(name, self.flops)
        return Range(flops / rate.high, flops / rate.mean, flops / rate.low)


@dataclass(frozen=True)
class StageEstimate:
    """Of what is missing of one stage."""

    stage: str
    shards: int
    tasks: int
    flops: int
    stored: int  # bytes
    seconds: Range  # of all workers together
    wall: Range  # until the last worker is finished
    longest: Range  # of its shards
    gpu: bool  # whether GPUs work on it where there are some


@dataclass(frozen=True)
class Estimate:
    """Of what is missing of a sweep."""

    stages: tuple[StageEstimate, ...]
    networks: tuple[Probe, ...]
    workers: int
    on: str  # what seconds are those of
    at_most: bool  # whether images may be finished before their last iteration
    downloaded: tuple[str, ...]  # networks whose weights somebody publishes, which are downloaded unless they are here
    free: int | None  # bytes at the store, where that is known

    @property
    def stored(self) -> int:
        return sum(stage.stored for stage in self.stages)

    @property
    def flops(self) -> int:
        return sum(stage.flops for stage in self.stages)

    @property
    def wall(self) -> Range:
        """Seconds from the command to its end."""
        return _widened(_sum(stage.wall for stage in self.stages)) + Range.sure(AROUND)

    @property
    def device_seconds(self) -> Range:
        """Of all workers, in the stages that gain from a GPU."""
        return _widened(_sum(stage.seconds for stage in self.stages if stage.gpu))

    @property
    def worker_bytes(self) -> int:
        """Most that a worker holds once it has every network, as those that embed do."""
        return max(
            own.host_bytes + sum(other.weight_bytes for other in self.networks if other is not own)
            for own in self.networks
        )

    def to_json(self) -> dict[str, Any]:
        """Ranges as {"low", "mean", "high"}."""
        by_stage = [
            asdict(stage) | {key: getattr(stage, key)._asdict() for key in ("seconds", "wall", "longest")}
            for stage in self.stages
        ]
        found = {"stages": by_stage, "stored": self.stored, "flops": self.flops, "worker_bytes": self.worker_bytes}
        return asdict(self) | found | {"wall": self.wall._asdict(), "device_seconds": self.device_seconds._asdict()}


def estimate(
    settings: SweepSettings,
    store: str,
    *,
    workers: int,
    threads: int = 1,
    shards_per_task: Mapping[str, int],
    device: Device | None = None,
    environment: Mapping[str, str] | None = None,
    imports: Sequence[str] = (),
    on_network: Callable[[], None] = lambda: None,
) -> Estimate:
    """What is missing of the sweep of `settings` at `store`, which is not touched, takes on so many workers.

    `shards_per_task` is by stage, 1 where it does not say. Without a `device`, seconds are measured here, with
    `environment` and the modules `imports` as workers have them. `on_network` is called after each network.

    Raises NetsimError for all that a run would trip over: references, files, classes, pairs, a store of another run,
    one that can't be written, one without room for what is missing, a network without room in memory.
    """
    check(settings)
    missing = _missing(settings, store)
    alone = device is not None or torch.cuda.is_available()  # GPUs are not shared
    probes = []
    for name in settings.names:
        processes = 1 if alone else workers
        asked = Asked(settings.model_dump(mode="json"), name, threads, timed=device is None, imports=tuple(imports))
        probes.append(probed(asked, processes, environment))
        on_network()
    listed = {split: len(images) for split, images in used_images(settings).items()}
    costs = _Costs(settings, listed, {probe.name: probe for probe in probes}, device)
    stored = _stored(settings, probes)
    found = tuple(
        _of_stage(costs, stage, missing[stage.name], stored[stage.name], workers, shards_per_task.get(stage.name, 1))
        for stage in STAGES
    )
    made = Estimate(
        stages=found,
        networks=tuple(probes),
        workers=workers,
        on=device.label if device else _here(),
        at_most=settings.inversion.stop_loss is not None,
        downloaded=tuple(name for name in settings.names if needs_download(settings.reference(name))),
        free=check_place(store),
    )
    if made.free is not None and made.free < made.stored:
        raise StoreError(
            f"{store} has {made.free / 1e9:,.1f} GB free, and {made.stored / 1e9:,.1f} GB are still to be stored; "
            "give another --store, or fewer pairs"
        )
    return made


def require_time(planned: Estimate, lives: float) -> None:
    """Raises SettingsError if a shard takes longer than the `lives` seconds of a worker: it would be begun for ever."""
    of = {stage.name: stage for stage in STAGES}
    for stage in planned.stages:
        if stage.longest.mean > lives and not of[stage.stage].resumes:
            raise SettingsError(
                f"a shard of {stage.stage} takes about {stage.longest.mean / 60:,.0f} minutes, and a worker lives for "
                f"{lives / 60:,.0f}, the walltime without `leave_early`; {of[stage.stage].time_limit_hint}"
            )


def check_place(store: str) -> int | None:
    """Bytes that are free at a store, where that is known. Raises StoreError if it can't be written to.

    Object storage is asked for permission by an object, which is removed again.
    """
    files = Files(store)
    if "://" in files.url:
        files.put(PROBE, b"")
        files.remove(PROBE)
        return None
    there = next(folder for folder in (Path(files.url), *Path(files.url).parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise StoreError(f"{files.url} can't be written: no permission in {there}; give another --store")
    return shutil.disk_usage(there).free


PROBE = "plan.partial"
"""The object. Runs pass over what is called so."""


def device_of(run: Run) -> Device:
    """The device that inverted the shards of a run, as its records have it. Raises StoreError if none are done."""
    done = sorted(INVERT.done(run))
    of_network: dict[str, Range] = {}
    devices: set[str] = set()
    for name, group in groupby(done, key=lambda unit: unit[0]):
        records = run.records("invert", name, [shard for _, shard in group])
        devices |= {InvertMetadata.of(record).device for record in records}
        flops = [InvertMetadata.of(record).flops for record in records]
        seconds = [record.seconds for record in records]
        rates = [count / took for count, took in zip(flops, seconds, strict=True) if took]
        of_network[name] = Range(min(rates), sum(flops) / sum(seconds), max(rates))
    if not of_network:
        raise StoreError(f"{run.url} has no shard inverted yet, which would say how fast its device is")
    if len(devices) > 1:
        raise StoreError(f"{run.url} was inverted on {', '.join(sorted(devices))}; a run on one kind of device fits")
    overall = Range.of([rate.mean for rate in of_network.values()])
    return Device(f"{devices.pop()}, as in {run.url}", overall, of_network)


def device_said(text: str) -> Device:
    """Of useful TFLOP/s, as in 9, or 6-12 for somewhere between. Raises SettingsError."""
    low, _, high = text.partition("-")
    try:
        ends = float(low), float(high or low)
    except ValueError:
        ends = (0.0, 0.0)
    if not 0 < ends[0] <= ends[1] < float("inf"):
        raise SettingsError(f"--tflops {text!r}: TFLOP/s that inverting reaches on the device, as in 9, or as in 6-12")
    return Device(f"a device of {text} useful TFLOP/s", Range.of(ends) * 1e12, {})


# ---- what there is to do


def _missing(settings: SweepSettings, store: str) -> dict[str, list[tuple[str, int]]]:
    if Run.exists(store):
        run = Run.open(store)
        run.require(settings)
        return {stage.name: stage.missing(run) for stage in STAGES}
    return {stage.name: stage.every(settings) for stage in STAGES}


def _stored(settings: SweepSettings, probes: Sequence[Probe]) -> dict[str, float]:
    """Bytes that a shard of each stage stores, on the mean."""
    networks = {probe.name: probe for probe in probes}
    found = {}
    for stage in STAGES:
        specs = stage.arrays(settings, networks.__getitem__)
        total = sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in specs)
        if stage.name == "train":
            total = sum(p.weight_bytes for p in probes if needs_training(settings.reference(p.name)))
        units = stage.total(settings)
        found[stage.name] = RECORD_BYTES + total / units if units else 0.0
    return found


@dataclass(frozen=True)
class _Costs:
    """FLOPs and seconds of one shard, by stage and name."""

    settings: SweepSettings
    images: Mapping[Split, int]  # of the splits that are used
    probes: Mapping[str, Probe]
    device: Device | None

    def flops(self, stage: str, name: str) -> int:
        settings, size = self.settings, self.settings.pairs.shard_size
        if stage == "train":
            learned, asked = self._shown(name)
            return self.probes[name].flops * (3 * learned + asked)  # to learn is a forward and two gradients
        if stage == "invert":
            return 2 * self.probes[name].flops * size * settings.inversion.iterations
        if stage == "embed":
            return size * sum(probe.flops for probe in self.probes.values())
        return 2 * self._multiplications(name) if stage == "aggregate" else 0

    def seconds(self, stage: str, name: str) -> Range:
        size, read = self.settings.pairs.shard_size, fmean(probe.read for probe in self.probes.values())
        if stage == "check":
            return Range.sure(read * sum(self.images.values()))
        if stage == "draw":
            return Range.sure(2 * size * read)
        if stage == "aggregate":
            rate = fmean(probe.multiplications for probe in self.probes.values())
            return Range.sure(self._multiplications(name) / rate)
        if stage not in ("train", "invert", "embed"):
            return NOTHING
        if self.device is not None:
            return self._on_device(self.device, stage, name, read)
        if stage == "embed":
            return Range.sure(size * sum(probe.look for probe in self.probes.values()))
        probe = self.probes[name]
        if stage == "invert":
            each = Range.of(probe.iteration) * self.settings.inversion.iterations
            return (each + Range.sure(probe.begin)) * size
        learned, asked = self._shown(name)
        return Range.sure((probe.train + read) * learned + (probe.ask + read) * asked + probe.load)

    def _on_device(self, device: Device, stage: str, name: str, read: float) -> Range:
        if stage == "train":
            return device.seconds(name, self.flops(stage, name)) + Range.sure(read * sum(self._shown(name)))
        if stage == "invert":
            return device.seconds(name, self.flops(stage, name))
        size = self.settings.pairs.shard_size
        return _sum(device.seconds(other, size * probe.flops) for other, probe in self.probes.items())

    def _multiplications(self, row: str) -> int:
        """Of comparing representations: what netsim.similarity.streaming counts."""
        pairs, widths = row_pairs(self.settings.names, row), {name: p.width for name, p in self.probes.items()}
        n = self.settings.pairs.count
        return min(gram_cost(n, widths, pairs), feature_cost(n, widths, pairs))

    def _shown(self, name: str) -> tuple[int, int]:
        """Images that a network learns from, over all epochs, and whose label it is asked for."""
        trained = needs_training(self.settings.reference(name))
        learned = self.settings.training.epochs * self.images["train"] if trained else 0
        return learned, self.images["test"] if self.probes[name].asked else 0


def _of_stage(
    costs: _Costs, stage: Stage, missing: Sequence[tuple[str, int]], stored: float, workers: int, shards_per_task: int
) -> StageEstimate:
    shard = {name: costs.seconds(stage.name, name) for name, _ in missing}
    tasks = [shard[block.name] * len(block.shards) for block in blocks(missing, shards_per_task)]
    return StageEstimate(
        stage=stage.name,
        shards=len(missing),
        tasks=len(tasks),
        flops=sum(costs.flops(stage.name, name) for name, _ in missing),
        stored=round(stored * len(missing)),
        seconds=_sum(tasks),
        wall=Range(*(_makespan([task[at] for task in tasks], workers) for at in range(3))),
        longest=max(shard.values(), key=lambda seconds: seconds.mean, default=NOTHING),
        gpu=stage.gpu,
    )


def _makespan(tasks: Iterable[float], workers: int) -> float:
    """Seconds until all tasks are done, each by the worker that is free first."""
    free = [0.0] * workers
    for seconds in tasks:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def _sum(parts: Iterable[Range]) -> Range:
    return sum(parts, start=NOTHING)


def _widened(found: Range) -> Range:
    return Range(min(found.low, (1 - UNSEEN) * found.mean), found.mean, max(found.high, (1 + UNSEEN) * found.mean))


def _here() -> str:
    return f"GPU, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"CPU, {platform.machine()}"


# ---- measuring


def probed(asked: Asked, processes: int, environment: Mapping[str, str] | None) -> Probe:
    """Of so many processes that measure the same at the same time: seconds on the mean, bytes at most."""
    with ThreadPoolExecutor(processes) as pool:
        found = list(pool.map(lambda _: _measured(asked, environment), range(processes)))
    usual: dict[str, Any] = {
        key.name: fmean(getattr(one, key.name) for one in found) for key in fields(Probe) if key.type is float
    }
    usual["iteration"] = tuple(fmean(times) for times in zip(*(one.iteration for one in found), strict=True))
    usual["host_bytes"] = max(one.host_bytes for one in found)
    return replace(found[0], **usual)


def _measured(asked: Asked, environment: Mapping[str, str] | None) -> Probe:
    process = subprocess.run(
        [sys.executable, "-m", "netsim.planning.probe"],
        input=json.dumps(asdict(asked)),
        env=os.environ | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode < 0:
        raise NetworkError(f"{asked.name}: measuring it was killed (signal {-process.returncode}): too little memory?")
    if process.returncode:
        raise NetworkError(f"{asked.name}: measuring it failed: {process.stderr.strip().splitlines()[-1]}")
    found = json.loads(process.stdout.splitlines()[-1])
    if "error" in found:
        kind, text = found["error"]
        raise getattr(errors, kind, NetsimError)(text)
    return Probe(**found | {key: tuple(found[key]) for key in ("input_shape", "iteration")})
