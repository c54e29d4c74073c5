"""Is everything in a store what its commit records say? Every value is read back; a sample of losses is measured again.

A shard at fault is named; removing its record makes the next run compute it again. With the same bits, what was made of
it stays right; with others, or with other weights, that is at fault too. A document of an array is as the settings say,
and can be written again. Nothing else is touched.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from netsim.errors import NetsimError, StoreError, UnreachableError
from netsim.inversion.engine import relative_distance
from netsim.results.measured import measure_stage
from netsim.stages import inputs
from netsim.store import layout
from netsim.store.arrays import ArraySpec
from netsim.store.documents import array_faults, repair_arrays
from netsim.store.layout import NATURAL, inverted
from netsim.store.metadata import Metadata, TrainMetadata
from netsim.store.provenance import made_from
from netsim.store.run import Run
from netsim.store.stages import STAGES, TRAIN, Unit, dependencies

THREADS = 8
"""Shards read at a time: reading waits for storage, and checksums let other threads run."""

TOLERANCE = 1e-3
"""How far a relative loss that is measured again may be from the stored one: batches and devices round otherwise."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a shard of a stage; or, where `shard` is None, with the document or coordinate at `name`."""

    stage: str
    name: str
    shard: int | None
    what: str
    mends: bool = True  # whether computing the shard again does, or writing the document

    def __str__(self) -> str:
        shard = "" if self.shard is None else f" {self.shard}"
        return f"{self.stage} {self.name}{shard}: {self.what}"


def verify(
    run: Run, *, sample: int = 8, repair: bool = False, on_shard: Callable[[], None] = lambda: None
) -> list[Fault]:
    """Every fault of a run, in order of stages and names; empty if all is well.

    `sample` images of one shard of each network are looked at again, and their loss compared with the stored one; 0 for
    none, and then no network or measure that the store names is imported. `repair` writes documents at fault again, and
    removes the commit records of shards at fault, so that the next run computes them: not where a loss is another than
    it was, as it is the network that changed then. `on_shard` is called after each shard. Raises UnreachableError if
    the store stops answering.
    """
    found = _document_faults(run, own_measures=sample > 0, repair=repair)
    unreadable = frozenset() if repair else frozenset(fault.name for fault in found)

    origins: dict[Unit, Origin] = {}

    def check(unit: Unit) -> list[Fault]:
        faults = list(_faults(run, unit, unreadable, origins))
        on_shard()
        return faults

    units = committed(run)
    with ThreadPoolExecutor(THREADS) as pool:
        found += [fault for faults in pool.map(check, units) for fault in faults]
    fine = {unit: origins[unit] for unit in set(units) - {(fault.stage, fault.name, fault.shard) for fault in found}}
    found += _stale(run, fine)
    for name in run.settings.names if sample and not unreadable else ():
        found += _loss_faults(run, name, sample, fine.keys())
    for stage, name, shard in {(fault.stage, fault.name, fault.shard) for fault in found if fault.mends and repair}:
        if shard is not None:
            run.forget(stage, name, shard)
    return found


class Origin(NamedTuple):
    """What a shard's values are, what they were made from, and the weights by network: hashes."""

    content: str
    made_from: str | None  # None in records of an older netsim
    weights: Mapping[str, str]


def committed(run: Run) -> list[Unit]:
    """(stage, name, shard) of everything that has a commit record, whatever stage wrote it."""
    return [(stage, name, shard) for stage in run.stages_done() for name, shard in sorted(run.done(stage))]


def _document_faults(run: Run, *, own_measures: bool, repair: bool) -> list[Fault]:
    specs = _specs(run, own_measures)
    found = [Fault("document", path, None, what) for path, what in array_faults(run, specs).items()]
    if repair and found:
        repair_arrays(run, specs)
    return found


def _specs(run: Run, own_measures: bool) -> list[ArraySpec]:
    """The arrays of every stage that has begun. What a damaged record hides is passed over: the record is named."""
    begun, specs = run.stages_done(), []
    for stage in STAGES:
        if stage.name in begun:
            with suppress(StoreError):
                specs += stage.specs(run)
    measures = sorted({name.partition("/")[0] for name, _ in run.done("measure")})
    for measure in (name for name in measures if own_measures or ":" not in name):
        with suppress(NetsimError):  # one's own measure may be gone
            specs += measure_stage([measure]).specs(run)
    return specs


def _faults(run: Run, unit: Unit, unreadable: Set[str], origins: dict[Unit, Origin]) -> Iterator[Fault]:
    """Those of a shard by itself. What its record says of its origin is added to `origins`."""
    try:
        record = run.record(*unit)
    except UnreachableError:
        raise
    except StoreError as error:
        yield Fault(*unit, str(error))
        return
    metadata = Metadata.of(record)
    weights = {unit[1]: TrainMetadata.of(record).weights_hash} if unit[0] == TRAIN.name else metadata.weights
    origins[unit] = Origin(record.content, metadata.made_from, weights)
    # where a document is at fault, its values can't be told to be right or wrong before it is there again
    readable = [path for path in record.arrays if f"{path}/zarr.json" not in unreadable]
    for read, paths in ((run.read, readable), (run.read_file, record.files)):
        for path in paths:
            try:
                read(record, path)
            except UnreachableError:
                raise
            except StoreError as error:
                yield Fault(*unit, str(error))


def _stale(run: Run, fine: Mapping[Unit, Origin]) -> Iterator[Fault]:
    """Shards that were made from others than are there, with other weights, or of what is named here itself."""
    order = [*(stage.name for stage in STAGES), "measure", "layers"]
    stale: set[Unit] = set()
    known = [unit for unit in fine if unit[0] in order]
    for unit in sorted(known, key=lambda unit: (order.index(unit[0]), unit)):
        origin, of = fine[unit], dependencies(run.settings, unit)
        weights = {name: fine["train", name, 0].weights[name] for name in origin.weights if ("train", name, 0) in fine}
        if other := [name for name, own in weights.items() if own != origin.weights[name]]:
            yield Fault(*unit, f"it was computed with other weights of {', '.join(other)}")
        elif not stale.isdisjoint(of):
            yield Fault(*unit, "it was computed from what is at fault")
        elif (
            origin.made_from
            and fine.keys() >= set(of)
            and origin.made_from != made_from(fine[source].content for source in of)
        ):
            yield Fault(*unit, "it was computed from other values than are there")
        else:
            continue
        stale.add(unit)


def _loss_faults(run: Run, name: str, sample: int, fine: Set[Unit]) -> Iterator[Fault]:
    try:
        yield from _other_losses(run, name, sample, fine)
    except UnreachableError:
        raise
    except NetsimError as error:
        yield Fault("invert", name, None, f"no loss could be measured again: {error}", mends=False)


def _other_losses(run: Run, name: str, sample: int, fine: Set[Unit]) -> Iterator[Fault]:
    """Look at some images of the network's middle shard that is done and whole, as another shard than the first."""
    done = sorted(shard for stage, of, shard in fine if (stage, of) == ("invert", name))
    done = [shard for shard in done if ("draw", "pairs", shard) in fine]
    if not done or ("train", name, 0) not in fine:
        return
    shard = done[len(done) // 2]
    record = run.record("invert", name, shard)
    network = inputs.network(run, name)
    images, targets = (inputs.set_images(run, of, shard)[0][:sample] for of in (inverted(name), NATURAL))
    again = relative_distance(inputs.represent(network, images), inputs.represent(network, targets)).numpy()
    stored = layout.quantity(run.read(record, f"{inverted(name)}/losses"), "final_loss")[:sample]
    off = np.abs(again - stored) > TOLERANCE * np.maximum(1, np.abs(stored))
    for index in np.flatnonzero(off | (np.isfinite(again) != np.isfinite(stored))):
        pair = shard * run.settings.pairs.shard_size + int(index)
        what = (
            f"pair {pair} has a loss of {again[index]:.4f} when it is measured again, and {stored[index]:.4f} stored: "
            f"{name} computes otherwise than it did, so go back to its code, or give another --store"
        )
        yield Fault("invert", name, shard, what, mends=False)
