"""The cost of a sweep before it is run: shards, FLOPs, bytes, hours and memory.

FLOPs are counted, and bytes follow from the arrays that the stages declare. Seconds and memory are measured by
`netsim.planning.prober`, in as many concurrent processes as there are workers, because workers share a machine too. For
another device, seconds are FLOPs divided by its FLOP/s, which come from an earlier run on it or from the user.
"""

import heapq
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from netsim.errors import SettingsError, StoreError
from netsim.images import Split
from netsim.networks import needs_download
from netsim.planning.count import StageCount, count_stage, missing_units, seen_by
from netsim.planning.preflight import preflight
from netsim.planning.probe import Probe, ProbeRequest
from netsim.planning.prober import Prober
from netsim.planning.resolve import Known, resolve
from netsim.results.controls import seed_only
from netsim.results.findings import equal_weights, seeds_tell
from netsim.results.stopping import first_look, last_look
from netsim.results.twins import twin_groups
from netsim.settings import Member, SweepSettings, TrainingSettings
from netsim.similarity.streaming import multiplications
from netsim.similarity.uncertainty import few_shards
from netsim.stages.inputs import used_images
from netsim.storage.files import Files
from netsim.store.coverage import CONTROLS, SUMS
from netsim.store.layout import control_sides
from netsim.store.metadata import InvertMetadata
from netsim.store.run import Run
from netsim.store.stages import INVERT, STAGES, Stage, blocks

# Minimum relative uncertainty of an estimate: measuring for seconds does not show how a machine behaves for hours.
MIN_UNCERTAINTY = 0.1

# Seconds of a sweep besides its shards: starting workers and Prefect's server, and writing the report.
OVERHEAD_SECONDS = 60.0

# Size of a commit record.
RECORD_BYTES = 2000

# Object that is written and removed again to test the permission to write. Runs ignore `*.partial`.
PERMISSION_TEST = "plan.partial"


class Range(NamedTuple):
    """An estimated number, with its lowest and highest plausible value."""

    low: float
    mean: float
    high: float

    def __mul__(self, factor: float) -> "Range":  # type: ignore[override]
        return Range(*(factor * value for value in self))

    def __add__(self, other: "Range") -> "Range":  # type: ignore[override]
        return Range(*(a + b for a, b in zip(self, other, strict=True)))

    @classmethod
    def over(cls, values: Sequence[float]) -> Self:
        """Return the range and mean of some values."""
        return cls(min(values), fmean(values), max(values))

    @classmethod
    def exact(cls, value: float) -> Self:
        """Return a number without uncertainty."""
        return cls(value, value, value)


ZERO = Range.exact(0.0)


@dataclass(frozen=True)
class Device:
    """A device on which seconds are not measured, but follow from its useful FLOP/s.

    Attributes
    ----------
    label
        What the user is told the seconds are for.
    flops
        FLOP/s of a network that is not in `network_flops`.
    network_flops
        FLOP/s by name of the network, where known.
    """

    label: str
    flops: Range
    network_flops: Mapping[str, Range]

    def seconds(self, name: str, flops: float) -> Range:
        """Return the seconds that `flops` floating-point operations of the network `name` take."""
        rate = self.network_flops.get(name, self.flops)
        return Range(flops / rate.high, flops / rate.mean, flops / rate.low)


@dataclass(frozen=True)
class StageEstimate(StageCount):
    """The cost of the missing shards of one stage.

    Attributes
    ----------
    flops, stored
        Floating-point operations, and bytes to be stored.
    seconds
        Seconds of all workers together.
    wall
        Seconds until the last worker is finished.
    longest
        Seconds of the longest shard.
    gpu
        True if GPUs work on the stage where there are any.
    """

    flops: int
    stored: int
    seconds: Range
    wall: Range
    longest: Range
    gpu: bool


@dataclass(frozen=True)
class CostEstimate:
    """The cost of the missing work of a sweep.

    Attributes
    ----------
    stages, networks
        Estimates by stage, and measurements by network.
    workers
        Number of workers.
    on
        The device that the seconds are for.
    at_most
        True if the numbers are upper bounds, because `stop_loss` may end inversions early.
    first_look
        Pairs after which `pairs.until` may end the sweep, so that the numbers are upper bounds; None without it.
    downloaded
        Names of networks whose published weights are downloaded, unless they are cached.
    twins
        Groups of names for one and the same network.
    classes
        Number of classes of the images.
    seed_only
        Similarity of two ideal networks of which one sees targets and the other seeds (`netsim.results.controls`).
    free
        Free bytes at the store, if known.
    warnings
        Reasons why the results would be hard to trust, in sentences: equal weights, what seeds tell, few shards.
    """

    stages: tuple[StageEstimate, ...]
    networks: tuple[Probe, ...]
    workers: int
    on: str
    at_most: bool
    first_look: int | None
    downloaded: tuple[str, ...]
    twins: tuple[tuple[str, ...], ...]
    classes: int
    seed_only: float
    free: int | None
    warnings: tuple[str, ...] = ()

    @property
    def stored(self) -> int:
        """Bytes to be stored."""
        return sum(stage.stored for stage in self.stages)

    @property
    def flops(self) -> int:
        """Floating-point operations of all stages."""
        return sum(stage.flops for stage in self.stages)

    @property
    def wall(self) -> Range:
        """Seconds from the command to its end."""
        return _widened(_sum(stage.wall for stage in self.stages)) + Range.exact(OVERHEAD_SECONDS)

    @property
    def device_seconds(self) -> Range:
        """Seconds of all workers together, in the stages that a GPU speeds up."""
        return _widened(_sum(stage.seconds for stage in self.stages if stage.gpu))

    @property
    def worker_bytes(self) -> int:
        """Peak memory of a worker that has loaded every network, as those do that compute representations."""
        return max(
            network.host_bytes + sum(other.weight_bytes for other in self.networks if other is not network)
            for network in self.networks
        )

    def to_json(self) -> dict[str, Any]:
        """Return all fields and totals; ranges are {"low", "mean", "high"}."""
        by_stage = [
            asdict(stage) | {key: getattr(stage, key)._asdict() for key in ("seconds", "wall", "longest")}
            for stage in self.stages
        ]
        totals = {"stages": by_stage, "stored": self.stored, "flops": self.flops, "worker_bytes": self.worker_bytes}
        return asdict(self) | totals | {"wall": self.wall._asdict(), "device_seconds": self.device_seconds._asdict()}


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
) -> CostEstimate:
    """Estimate the cost of what is missing of a sweep. Nothing is computed for it or stored.

    Parameters
    ----------
    settings
        The sweep.
    store
        Where its run is or would be.
    workers, threads
        Number of workers, and threads of each.
    shards_per_task
        Shards per task run, by name of the stage; 1 for stages that are not in it.
    device
        The device to estimate for; without it, seconds are measured on this machine.
    environment, imports
        Environment variables and modules of the workers, for the measurement.
    on_network
        Called after each network.

    Raises
    ------
    NetsimError
        For everything that would make the run fail: references, files, classes, pairs, a store of another run, a store
        that is not writable or has too little space, a network that does not fit into memory.
    """
    sweep = resolve(settings, store)
    run, known = last_look(seen_by(store, sweep)), Known.at(store)
    with Prober(imports, environment) as prober:
        preflight(sweep)
        exclusive = device is not None or torch.cuda.is_available()  # workers do not share a GPU
        measure = partial(prober.measure, processes=1 if exclusive else workers)
        probes = _measure_networks(settings, list(sweep.shown), threads, device is None, measure, on_network)
    missing = missing_units(run)
    images_used = used_images(settings)
    image_counts = {split: len(images) for split, images in images_used.items()}
    classes = len(images_used["test"].classes)
    control = seed_only(classes, settings.pairs.seed_labels)
    twins = twin_groups(list(sweep.shown), list(sweep.shown.values()))
    by_name = {sweep.shown[probe.name]: probe for probe in probes}
    costs = _Costs(run, image_counts, by_name, device)
    result = CostEstimate(
        stages=tuple(
            _estimate_stage(costs, known, stage, units, workers, shards_per_task.get(stage.name, 1))
            for stage, units in missing.items()
        ),
        networks=tuple(probes),
        workers=workers,
        on=device.label if device else _this_device(),
        at_most=settings.inversion.stop_loss is not None,
        first_look=first_look(sweep).settings.pairs.count if settings.pairs.until else None,
        downloaded=tuple(name for name in sweep.columns if needs_download(sweep.network(name).reference)),
        twins=twins,
        classes=classes,
        seed_only=control,
        free=check_writable(store),
        warnings=tuple(
            filter(None, [*map(equal_weights, twins), *seeds_tell(classes, control), few_shards(settings.pairs.shards)])
        ),
    )
    if result.free is not None and result.free < result.stored:
        raise StoreError(
            f"{store} must have {result.stored / 1e9:,.1f} GB free, got {result.free / 1e9:,.1f} GB; "
            "use another --store, or fewer pairs"
        )
    return result


def require_time(planned: CostEstimate, lifetime: float) -> None:
    """Check that every shard is finished within the `lifetime` of a worker in seconds; otherwise it never would be.

    Raises
    ------
    SettingsError
        Naming the stage, if its longest shard takes longer and cannot be resumed.
    """
    stages = {stage.name: stage for stage in STAGES}
    for estimated in planned.stages:
        stage = stages[estimated.stage]
        if estimated.longest.mean > lifetime and not stage.resumes:
            raise SettingsError(
                f"a shard of {stage.name} must end within {lifetime / 60:,.0f} minutes, the walltime without "
                f"`leave_early`, and takes about {estimated.longest.mean / 60:,.0f}; {stage.time_limit_hint}"
            )


def check_writable(store: str) -> int | None:
    """Check that a store can be written to, and return its free bytes if they are known.

    In object storage, an object is written and removed again.

    Raises
    ------
    StoreError
        If the store is not writable.
    """
    files = Files(store)
    if not files.local:
        files.put(PERMISSION_TEST, b"")
        files.remove(PERMISSION_TEST)
        return None
    existing = next(folder for folder in (Path(files.url), *Path(files.url).parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise StoreError(f"cannot write {files.url}: no permission in {existing}; use another --store")
    return shutil.disk_usage(existing).free


def device_from_run(run: Run) -> Device:
    """Return the device that inverted the shards of a run, with the FLOP/s that its records document.

    Raises
    ------
    StoreError
        If no shard is inverted yet, or shards were inverted on several kinds of device.
    """
    network_flops: dict[str, Range] = {}
    devices: set[str] = set()
    for name, group in groupby(sorted(INVERT.units_done(run)), key=lambda unit: unit[0]):
        records = run.records("invert", name, [shard for _, shard in group])
        metadata = [InvertMetadata.of(record) for record in records]
        devices |= {data.device for data in metadata}
        flops, seconds = [data.flops for data in metadata], [record.seconds for record in records]
        rates = [count / took for count, took in zip(flops, seconds, strict=True) if took]
        network_flops[name] = Range(min(rates), sum(flops) / sum(seconds), max(rates))
    if not network_flops:
        raise StoreError(f"{run.url} must have inverted at least one shard to tell the speed of its device, got none")
    if len(devices) > 1:
        raise StoreError(
            f"{run.url} must have run on one kind of device, got {', '.join(sorted(devices))}; use another run"
        )
    overall = Range.over([rate.mean for rate in network_flops.values()])
    return Device(f"{devices.pop()}, as in {run.url}", overall, network_flops)


def device_from_tflops(text: str) -> Device:
    """Return a device of the given useful TFLOP/s, written as ``9`` or, for a range, as ``6-12``.

    Raises
    ------
    SettingsError
        If the text is neither.

    Examples
    --------
    >>> device_from_tflops("6-12").flops
    Range(low=6000000000000.0, mean=9000000000000.0, high=12000000000000.0)
    """
    low, _, high = text.partition("-")
    try:
        ends = float(low), float(high or low)
    except ValueError:
        ends = (0.0, 0.0)
    if not 0 < ends[0] <= ends[1] < float("inf"):
        raise SettingsError(f"--tflops must be a number or a range of TFLOP/s, got {text!r}; write 9 or 6-12")
    return Device(f"a device of {text} useful TFLOP/s", Range.over(ends) * 1e12, {})


# ---- missing work


@dataclass(frozen=True)
class _Costs:
    """Cost of one shard, by stage and name of the network or row."""

    run: Run
    image_counts: Mapping[Split, int]  # of the splits that are used
    probes: Mapping[str, Probe]  # by name in the store
    device: Device | None

    @property
    def settings(self) -> SweepSettings:
        """The settings of the sweep."""
        return self.run.settings

    def flops(self, stage: str, name: str) -> int:
        """Return the floating-point operations of one shard."""
        settings, size = self.settings, self.settings.pairs.shard_size
        if stage == "train":
            trained, tested = self._trained_and_tested(name)
            return self.probes[name].flops * (_passes(self.run.sweep.network(name).training) * trained + tested)
        if stage == "invert":
            return 2 * self.probes[name].flops * size * settings.inversion.iterations
        if stage == "embed":
            return size * sum(self.probes[observer].flops for observer in self._cohort(name))
        return 2 * self._multiplications(stage, name) if stage in ("aggregate", "control") else 0

    def seconds(self, stage: str, name: str) -> Range:
        """Return the seconds of one shard."""
        size, read = self.settings.pairs.shard_size, fmean(probe.read for probe in self.probes.values())
        if stage == "check":
            split: Split = "test" if name == "test" else "train"
            return Range.exact(read * self.image_counts[split])
        if stage == "draw":
            return Range.exact(2 * size * read)
        if stage in ("aggregate", "control"):
            rate = fmean(probe.multiplications for probe in self.probes.values())
            return Range.exact(self._multiplications(stage, name) / rate)
        if stage not in ("train", "invert", "embed"):
            return ZERO
        if self.device is not None:
            return self._on_device(self.device, stage, name, read)
        if stage == "embed":
            return Range.exact(size * sum(self.probes[observer].look for observer in self._cohort(name)))
        probe = self.probes[name]
        if stage == "invert":
            each = Range.over(probe.iteration) * self.settings.inversion.iterations
            return (each + Range.exact(probe.begin)) * size
        trained, tested = self._trained_and_tested(name)
        return Range.exact((probe.train + read) * trained + (probe.ask + read) * tested + probe.load)

    def _on_device(self, device: Device, stage: str, name: str, read: float) -> Range:
        """Return the seconds of one shard on another device; only reading takes as long as here."""
        if stage == "train":
            return device.seconds(name, self.flops(stage, name)) + Range.exact(
                read * sum(self._trained_and_tested(name))
            )
        if stage == "invert":
            return device.seconds(name, self.flops(stage, name))
        size = self.settings.pairs.shard_size
        observers = self._cohort(name)
        return _sum(device.seconds(other, size * self.probes[other].flops) for other in observers)

    def _cohort(self, unit: str) -> Iterable[str]:
        """Return the networks that look in a unit of `embed`."""
        return self.run.cohort(unit.rpartition("/")[2])

    def _multiplications(self, stage: str, unit: str) -> int:
        """Return the multiplications of a unit that compares, as `netsim.similarity.streaming` counts them."""
        count = self.settings.pairs.count
        if stage == "aggregate":
            widths = {name: probe.width for name, probe in self.probes.items()}
            return multiplications(count, widths, SUMS.of_unit(self.run, unit))
        sides = [pair for cell in CONTROLS.of_unit(self.run, unit) for pair in control_sides(*cell).values()]
        return multiplications(
            count, {side: self.probes[side[1]].width for pair in sides for side in pair}, list(dict.fromkeys(sides))
        )

    def stored(self, stage: Stage, name: str) -> float:
        """Return the bytes that one shard stores."""
        specs = stage.arrays(self.run, name, self.probes.__getitem__)
        count, size = self.settings.pairs.count, self.settings.pairs.shard_size
        total: float = sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in specs)
        if stage.per_pair:
            total = total * size / count
        if stage.name == "train" and self.run.sweep.network(name).training is not None:
            total = self.probes[name].weight_bytes
        return RECORD_BYTES + total

    def _trained_and_tested(self, name: str) -> tuple[int, int]:
        """Return the number of images that a network is trained on, over all epochs, and that it is tested on."""
        training = self.run.sweep.network(name).training
        trained = training.epochs * self.image_counts["train"] if training else 0
        return trained, self.image_counts["test"] if self.probes[name].asked else 0


def _passes(training: TrainingSettings | None) -> int:
    """Count forward passes that a training takes as long as, per image: one and two gradients, and an attack's."""
    attack = 0 if training is None or training.adversarial is None else 2 * training.adversarial.steps + 1
    return 3 + attack


def _estimate_stage(
    costs: _Costs,
    known: Known,
    stage: Stage,
    missing: Sequence[tuple[str, int]],
    workers: int,
    shards_per_task: int,
) -> StageEstimate:
    """Return the cost of the missing shards of a stage."""
    shard = {name: costs.seconds(stage.name, name) for name, _ in missing}
    tasks = [shard[block.name] * len(block.shards) for block in blocks(missing, shards_per_task)]
    return StageEstimate(
        **vars(count_stage(costs.run, known, stage, missing, shards_per_task)),
        flops=sum(costs.flops(stage.name, name) for name, _ in missing),
        stored=round(sum(costs.stored(stage, name) for name, _ in missing)),
        seconds=_sum(tasks),
        wall=Range(*(_makespan(bound, workers) for bound in zip(*tasks, strict=True))) if tasks else ZERO,
        longest=max(shard.values(), key=lambda seconds: seconds.mean, default=ZERO),
        gpu=stage.gpu,
    )


def _makespan(tasks: Iterable[float], workers: int) -> float:
    """Return the seconds until all tasks are done, if each goes to the worker that is free first."""
    free = [0.0] * workers
    for seconds in tasks:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def _sum(parts: Iterable[Range]) -> Range:
    return sum(parts, start=ZERO)


def _widened(value: Range) -> Range:
    """Return a range of at least the minimum uncertainty."""
    low, high = (1 - MIN_UNCERTAINTY) * value.mean, (1 + MIN_UNCERTAINTY) * value.mean
    return Range(min(value.low, low), value.mean, max(value.high, high))


def _this_device() -> str:
    return f"GPU, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"CPU, {platform.machine()}"


# ---- measuring


def _measure_networks(
    settings: SweepSettings,
    names: Iterable[str],
    threads: int,
    timed: bool,
    measure: Callable[[ProbeRequest], Probe],
    on_network: Callable[[], None],
) -> list[Probe]:
    """Measure every network of a sweep; those that cost the same are measured once."""
    members = {member.name: member for member in (*settings.members, *settings.observing)}
    measured: dict[tuple[str, str], Probe] = {}
    for name in names:
        kind = _kind(members[name])
        if kind not in measured:
            request = ProbeRequest(settings.model_dump(mode="json"), name, threads, timed=timed)
            measured[kind] = measure(request)
        on_network()
    return [replace(measured[_kind(members[name])], name=name) for name in names]


def _kind(member: Member) -> tuple[str, str]:
    """Return what the cost of a network depends on: its reference, and its training but for what costs nothing.

    The number of epochs is no part of it, because an epoch is measured.
    """
    if member.training is None:
        return member.reference, ""
    attack = member.training.adversarial
    free = {
        "rng_seed": 0,
        "epochs": 1,
        "learning_rate": 1.0,
        "weight_decay": 0.0,
        "adversarial": attack and attack.model_copy(update={"eps": 1.0, "step_size": 1.0}),
    }
    return member.reference, member.training.model_copy(update=free).model_dump_json()
