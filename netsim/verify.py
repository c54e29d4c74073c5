"""Verification of a store: every value is compared with its commit record, and a sample of losses is recomputed.

A corrupted shard is named; removing its record makes the next run recompute it. If that gives the same bits, everything
computed from the shard stays valid; with other bits or other weights, that is at fault too. The documents of arrays
follow from the settings and can be written again. Nothing else is modified.

Only recomputing losses needs torch, so it is imported there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from netsim.errors import NetsimError, StoreError, UnreachableError
from netsim.results.measured import measure_stage
from netsim.storage.concurrency import concurrently
from netsim.store import layout
from netsim.store.arrays import ArraySpec
from netsim.store.documents import array_faults, repair_arrays
from netsim.store.layout import NATURAL, inverted
from netsim.store.metadata import Metadata, TrainMetadata
from netsim.store.provenance import Contents, is_current, known_sources, sources_of
from netsim.store.records import Record
from netsim.store.run import READERS, Run, all_sweeps
from netsim.store.stages import EMBED, REPORT, STAGES, TRAIN, Stage, Unit
from netsim.store.views import whole

# Shards read concurrently: reading waits for storage, and hashing lets other threads run.
THREADS = 16

# Allowed difference between a recomputed relative loss and the stored one: batches and devices round differently.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Fault:
    """Something wrong in a store.

    Attributes
    ----------
    stage, name, shard
        The shard; for the document or coordinate of an array, ``"document"``, its path and None.
    what
        Description of the fault.
    repairable
        True if it can be repaired, by recomputing the shard or writing the document again.
    """

    stage: str
    name: str
    shard: int | None
    what: str
    repairable: bool = True

    def __str__(self) -> str:
        shard = "" if self.shard is None else f" {self.shard}"
        return f"{self.stage} {self.name}{shard}: {self.what}"


def verify(
    run: Run, *, sample: int = 8, repair: bool = False, on_shard: Callable[[], None] = lambda: None
) -> list[Fault]:
    """Find every fault of a run.

    Parameters
    ----------
    run
        The run.
    sample
        Number of images whose loss is recomputed, in one shard of each network. With 0, no network or measure that the
        store names is imported, so no code of the store's author is executed.
    repair
        Write corrupted documents again, and remove the commit records of corrupted shards, so that the next run
        recomputes them. Shards with a different loss are kept, because then the network has changed.
    on_shard
        Called after each shard.

    Returns
    -------
    list of Fault
        In order of stages and names; empty if nothing is wrong.

    Raises
    ------
    UnreachableError
        If the store does not answer.
    """
    run = whole(run)
    faults = _document_faults(run, custom_measures=sample > 0, repair=repair)
    unreadable = frozenset() if repair else frozenset(fault.name for fault in faults)
    origins: dict[Unit, Origin] = {}

    def check(unit: Unit) -> list[Fault]:
        unit_faults = list(_faults(run, unit, unreadable, origins))
        on_shard()
        return unit_faults

    units = committed(run)
    faults += [fault for unit_faults in concurrently(check, units, threads=THREADS) for fault in unit_faults]
    intact = {unit: origins[unit] for unit in set(units) - {(fault.stage, fault.name, fault.shard) for fault in faults}}
    faults += _stale(run, intact)
    for name in run.sweep.names if sample and not unreadable else ():
        faults += _loss_faults(run, name, sample, intact.keys())
    for stage, name, shard in {
        (fault.stage, fault.name, fault.shard) for fault in faults if fault.repairable and repair
    }:
        if shard is not None:
            run.forget(stage, name, shard)
    return faults


class Origin(NamedTuple):
    """Origin of a shard: its record, the hash of what it was computed from, and the weights by network."""

    record: Record
    made_from: str | None
    weights: Mapping[str, str]


def committed(run: Run) -> list[Unit]:
    """Return the (stage, name, shard) of all commit records."""
    stages = run.stages_done()
    done = concurrently(run.done, stages)
    return [(stage, *unit) for stage, units in zip(stages, done, strict=True) for unit in sorted(units)]


def _document_faults(run: Run, *, custom_measures: bool, repair: bool) -> list[Fault]:
    """Return the missing and corrupted documents and coordinates of arrays; write them again if `repair`."""
    specs = _specs(run, custom_measures)
    faults = [Fault("document", path, None, what) for path, what in array_faults(run, specs).items()]
    if repair and faults:
        repair_arrays(run, specs)
    return faults


def _specs(run: Run, custom_measures: bool) -> list[ArraySpec]:
    """Return the arrays of every unit that is done, except those that a corrupted record would have told."""
    units = committed(run)
    stages = {stage.name: stage for stage in STAGES if stage is not REPORT}
    by_stage: dict[str, list[str]] = {}
    for stage, name, _ in units:
        by_stage.setdefault(stage, []).append(name)
    known = [(stages[name], list(dict.fromkeys(names))) for name, names in by_stage.items() if name in stages]
    specs = [spec for some in concurrently(lambda stage: _specs_of(run, *stage), known) for spec in some]
    for name in dict.fromkeys(by_stage.get("measure", [])):
        measure = name.partition("/")[0]
        if custom_measures or ":" not in measure:
            with suppress(NetsimError):  # the module of a custom measure may be missing
                specs += measure_stage([measure]).specs(run, [name])
    specs = _as_long_as_done(run, specs, units)
    for sweep in all_sweeps(run.files):
        if sweep.id in by_stage.get(REPORT.name, []):
            specs += REPORT.specs(run.seen_by(sweep), [sweep.id])
    return specs


def _as_long_as_done(run: Run, specs: Sequence[ArraySpec], units: Iterable[Unit]) -> list[ArraySpec]:
    """Give per-pair arrays the pairs of the shards that are done in their group: sweeps differ in their pairs."""
    pairs: dict[str, int] = {}
    for stage, name, shard in units:
        for group in layout.pair_groups(stage, name):
            pairs[group] = max(pairs.get(group, 0), (shard + 1) * run.settings.pairs.shard_size)
    groups = {spec.path: spec.path.rpartition("/")[0] for spec in specs if spec.per_pair}
    shapes = {path: (pairs[group],) for path, group in groups.items() if group in pairs}
    return [replace(spec, shape=(*shapes.get(spec.path, spec.shape[:1]), *spec.shape[1:])) for spec in specs]


def _specs_of(run: Run, stage: Stage, names: list[str]) -> list[ArraySpec]:
    """Return the arrays of units; none if they depend on a corrupted record, whose fault is reported."""
    try:
        return stage.specs(run, names)
    except UnreachableError:
        raise
    except StoreError:
        return []


def _faults(run: Run, unit: Unit, unreadable: Set[str], origins: dict[Unit, Origin]) -> Iterator[Fault]:
    """Yield the faults of one shard, and add what its record tells of its origin to `origins`."""
    try:
        record = run.record(*unit)
    except UnreachableError:
        raise
    except StoreError as error:
        yield Fault(*unit, str(error))
        return
    metadata = Metadata.of(record)
    weights = {unit[1]: TrainMetadata.of(record).weights_hash} if unit[0] == TRAIN.name else metadata.weights
    origins[unit] = Origin(record, metadata.made_from, weights)
    # the values of an array with a corrupted document cannot be checked before the document is written again
    readable = [path for path in _kept_arrays(run, record) if f"{path}/zarr.json" not in unreadable]
    reads = [*((run.read, path) for path in readable), *((run.read_file, path) for path in record.files)]
    for faults in concurrently(lambda part: _read_faults(unit, record, *part), reads, threads=READERS):
        yield from faults


def _kept_arrays(run: Run, record: Record) -> list[str]:
    """List the arrays that a record covers, but those of networks that were dropped from the store."""
    if record.stage != EMBED.name:
        return list(record.arrays)
    set_name, _, cohort = record.name.rpartition("/")
    kept = {layout.representation_path(set_name, name) for name in run.current(cohort)}
    return [path for path in record.arrays if path in kept]


def _read_faults(unit: Unit, record: Record, read: Callable[[Record, str], object], path: str) -> list[Fault]:
    """Return the fault of an array or a file that a record covers, if it has one."""
    try:
        read(record, path)
        return []
    except UnreachableError:
        raise
    except StoreError as error:
        return [Fault(*unit, str(error))]


def _stale(run: Run, intact: Mapping[Unit, Origin]) -> Iterator[Fault]:
    """Yield the shards that were computed from other values or weights than stored, or from such a shard."""
    order = [*(stage.name for stage in STAGES), "measure", "layers"]
    stale: set[Unit] = set()
    known = [unit for unit in intact if unit[0] in order]
    contents = Contents(intact[unit].record for unit in sorted(known))
    sweeps = {sweep.id: run.seen_by(sweep) for sweep in all_sweeps(run.files)}
    for unit in sorted(known, key=lambda unit: (order.index(unit[0]), unit)):
        origin, seen = intact[unit], sweeps.get(unit[1], run)
        weights = {
            name: intact["train", name, 0].weights[name] for name in origin.weights if ("train", name, 0) in intact
        }
        if other := [name for name, stored in weights.items() if stored != origin.weights[name]]:
            yield Fault(*unit, f"it was computed with other weights of {', '.join(other)} than are stored")
        elif not stale.isdisjoint(upstream := known_sources(seen, origin.record)):
            yield Fault(*unit, "it was computed from a shard that is at fault")
        elif (
            origin.made_from
            and set(upstream) <= intact.keys()
            and origin.made_from != _expected(seen, origin, contents)
        ):
            yield Fault(*unit, "it was computed from other values than are stored")
        else:
            continue
        stale.add(unit)


def _expected(run: Run, origin: Origin, contents: Contents) -> str | None:
    """Hash what a unit would be computed from now; its own hash where that is not stored."""
    unit = origin.record.stage, origin.record.name, origin.record.shard
    if not is_current(run, unit):
        return origin.made_from
    parts = sources_of(run, origin.record)
    return contents.hash_of(parts) if all(part in contents for part in parts) else origin.made_from


def _loss_faults(run: Run, name: str, sample: int, intact: Set[Unit]) -> Iterator[Fault]:
    """Yield the pairs of one shard whose loss differs when it is recomputed, or why none could be."""
    try:
        yield from _different_losses(run, name, sample, intact)
    except UnreachableError:
        raise
    except NetsimError as error:
        yield Fault("invert", name, None, f"no loss could be recomputed: {error}", repairable=False)


def _different_losses(run: Run, name: str, sample: int, intact: Set[Unit]) -> Iterator[Fault]:
    """Recompute the losses of some images in the middle one of the network's intact shards."""
    shards = sorted(shard for stage, network_name, shard in intact if (stage, network_name) == ("invert", name))
    shards = [shard for shard in shards if ("draw", "pairs", shard) in intact]
    if not shards or ("train", name, 0) not in intact:
        return
    shard = shards[len(shards) // 2]
    recomputed = _recompute_losses(run, name, shard, sample)
    losses = run.read(run.record("invert", name, shard), f"{inverted(name)}/losses")
    stored = layout.quantity(losses, "final_loss")[:sample]
    differs = np.abs(recomputed - stored) > TOLERANCE * np.maximum(1, np.abs(stored))
    for index in np.flatnonzero(differs | (np.isfinite(recomputed) != np.isfinite(stored))):
        pair = shard * run.settings.pairs.shard_size + int(index)
        what = (
            f"the stored loss of pair {pair} is {stored[index]:.4f}, recomputed {recomputed[index]:.4f}: the network "
            f"{name} has changed since; restore its code, or use another --store"
        )
        yield Fault("invert", name, shard, what, repairable=False)


def _recompute_losses(run: Run, name: str, shard: int, sample: int) -> np.ndarray:
    """Return the relative losses (sample,) of the first inverted images of a shard."""
    from netsim.inversion.engine import relative_distance
    from netsim.stages import inputs

    network = inputs.network(run, name)
    images, targets = (inputs.set_images(run, kind, shard)[0][:sample] for kind in (inverted(name), NATURAL))
    return relative_distance(inputs.represent(network, images), inputs.represent(network, targets)).numpy()
