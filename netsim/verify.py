"""Is everything in a store what its commit records say? Every value is read back; a sample of losses is measured again.

A shard at fault is named; removing its record makes the next run compute it again, and with the same bits what was made
of it stays right. A document of an array is as the settings say, and can be written again. Nothing else is touched.
"""

from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from netsim import stages
from netsim.engine import relative_distance
from netsim.errors import NetsimError, StoreError, UnreachableError
from netsim.measuring import measure_stage
from netsim.store import ArraySpec, Run
from netsim.sweep import STAGES
from netsim.units import inverted

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

    def __str__(self) -> str:
        shard = "" if self.shard is None else f" {self.shard}"
        return f"{self.stage} {self.name}{shard}: {self.what}"


def verify(
    run: Run, *, sample: int = 8, repair: bool = False, on_shard: Callable[[], None] = lambda: None
) -> list[Fault]:
    """Every fault of a run, in order of stages and names; empty if all is well.

    `sample` images of one shard of each network are looked at again, and their loss compared with the stored one; 0 for
    none, and then no network or measure that the store names is imported. `repair` writes documents at fault again, and
    removes the commit records of shards at fault, so that the next run computes them. `on_shard` is called after each
    shard. Raises UnreachableError if the store stops answering, NetworkError for a network of the sample that can't be
    loaded.
    """
    found = _document_faults(run, own_measures=sample > 0, repair=repair)
    unreadable = frozenset() if repair else frozenset(fault.name for fault in found)

    def check(unit: tuple[str, str, int]) -> list[Fault]:
        faults = list(_faults(run, *unit, unreadable))
        on_shard()
        return faults

    units = committed(run)
    with ThreadPoolExecutor(THREADS) as pool:
        found += [fault for faults in pool.map(check, units) for fault in faults]
    fine = set(units) - {(fault.stage, fault.name, fault.shard) for fault in found}
    for name in run.settings.names if sample and not unreadable else ():
        found += _loss_faults(run, name, sample, fine)
    for stage, name, shard in {(fault.stage, fault.name, fault.shard) for fault in found} if repair else ():
        if shard is not None:
            run.forget(stage, name, shard)
    return found


def committed(run: Run) -> list[tuple[str, str, int]]:
    """(stage, name, shard) of everything that has a commit record, whatever stage wrote it."""
    return [(stage, name, shard) for stage in run.stages_done() for name, shard in sorted(run.done(stage))]


def _document_faults(run: Run, *, own_measures: bool, repair: bool) -> list[Fault]:
    specs = _specs(run, own_measures)
    found = [Fault("document", path, None, what) for path, what in run.array_faults(specs).items()]
    if repair and found:
        run.repair_arrays(specs)
    return found


def _specs(run: Run, own_measures: bool) -> list[ArraySpec]:
    """The arrays of every stage that has begun. What a damaged record hides is passed over: the record is named."""
    begun, specs = run.stages_done(), []
    for stage in STAGES:
        if stage.name in begun:
            with suppress(StoreError):
                specs += stage.arrays(run)
    measures = sorted({name.partition("/")[0] for name, _ in run.done("measure")})
    for measure in (name for name in measures if own_measures or ":" not in name):
        with suppress(NetsimError):  # one's own measure may be gone
            specs += measure_stage([measure]).arrays(run)
    return specs


def _faults(run: Run, stage: str, name: str, shard: int, unreadable: Set[str]) -> Iterator[Fault]:
    try:
        record = run.record(stage, name, shard)
    except UnreachableError:
        raise
    except StoreError as error:
        yield Fault(stage, name, shard, str(error))
        return
    # where a document is at fault, its values can't be told to be right or wrong before it is there again
    readable = [path for path in record.arrays if f"{path}/zarr.json" not in unreadable]
    for read, paths in ((run.read, readable), (run.read_file, record.files)):
        for path in paths:
            try:
                read(record, path)
            except UnreachableError:
                raise
            except StoreError as error:
                yield Fault(stage, name, shard, str(error))


def _loss_faults(run: Run, name: str, sample: int, fine: Set[tuple[str, str, int]]) -> Iterator[Fault]:
    """Look at some images of the network's middle shard that is done and whole, as another shard than the first."""
    done = sorted(shard for stage, of, shard in fine if (stage, of) == ("invert", name))
    done = [shard for shard in done if ("draw", "pairs", shard) in fine]
    if not done or ("train", name, 0) not in fine:
        return
    shard = done[len(done) // 2]
    record = run.record("invert", name, shard)
    network = stages.network(run, name)
    images, targets = (stages.set_images(run, of, shard)[:sample] for of in (inverted(name), "natural"))
    again = relative_distance(stages.look(network, images), stages.look(network, targets)).numpy()
    stored = stages.quantity(run.read(record, f"{inverted(name)}/losses"), "final_loss")[:sample]
    off = np.abs(again - stored) > TOLERANCE * np.maximum(1, np.abs(stored))
    for index in np.flatnonzero(off | (np.isfinite(again) != np.isfinite(stored))):
        pair = shard * run.settings.pairs.shard_size + int(index)
        what = f"pair {pair} has a loss of {again[index]:.4f} when it is measured again, and {stored[index]:.4f} stored"
        yield Fault("invert", name, shard, what)
