"""Is everything in a store what its commit records say? Every value is read back; a sample of losses is measured again.

A shard at fault is named; removing its record makes the next run compute it again, and with the same bits what was made
of it stays right. Nothing else is touched.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from netsim import stages
from netsim.engine import relative_distance
from netsim.errors import StoreError, UnreachableError
from netsim.store import Record, Run
from netsim.units import inverted

THREADS = 8
"""Shards read at a time: reading waits for storage, and checksums let other threads run."""

TOLERANCE = 1e-3
"""How far a relative loss that is measured again may be from the stored one: batches and devices round otherwise."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a shard of a stage, in a line."""

    stage: str
    name: str
    shard: int
    what: str

    def __str__(self) -> str:
        return f"{self.stage} {self.name} {self.shard}: {self.what}"


def verify(run: Run, *, sample: int = 8, on_shard: Callable[[], None] = lambda: None) -> list[Fault]:
    """Every fault of a run's shards, in order of their stages and names; empty if all is well.

    `sample` images of one shard of each network are looked at again, and their loss compared with the stored one; 0 for
    none. `on_shard` is called after each shard. Raises UnreachableError if the store stops answering, NetworkError for
    a network of the sample that can't be loaded.
    """

    def check(unit: tuple[str, str, int]) -> list[Fault]:
        found = list(_faults(run, *unit))
        on_shard()
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        found = [fault for faults in pool.map(check, committed(run)) for fault in faults]
    bad = {(fault.stage, fault.name, fault.shard) for fault in found}
    for name in run.settings.names if sample else ():
        found += _loss_faults(run, name, sample, bad)
    return found


def committed(run: Run) -> list[tuple[str, str, int]]:
    """(stage, name, shard) of everything that has a commit record, whatever stage wrote it."""
    return [(stage, name, shard) for stage in run.stages_done() for name, shard in sorted(run.done(stage))]


def remove(run: Run, faults: list[Fault]) -> int:
    """Remove the commit records of the shards at fault, so that the next run computes them again. Returns how many."""
    units = {(fault.stage, fault.name, fault.shard) for fault in faults}
    for unit in units:
        run.forget(*unit)
    return len(units)


def _faults(run: Run, stage: str, name: str, shard: int) -> Iterator[Fault]:
    try:
        record = run.record(stage, name, shard)
    except UnreachableError:
        raise
    except StoreError as error:
        yield Fault(stage, name, shard, str(error))
        return
    for path in record.sha256:
        try:
            _read(run, record, path)
        except UnreachableError:
            raise
        except StoreError as error:
            yield Fault(stage, name, shard, str(error))


def _read(run: Run, record: Record, path: str) -> None:
    if run.is_array(path):
        run.read(record, path)
    else:
        run.read_file(record, path)


def _loss_faults(run: Run, name: str, sample: int, bad: set[tuple[str, str, int]]) -> Iterator[Fault]:
    """Look at some images of the network's middle shard that is done and whole, as another shard than the first."""
    done = [shard for of, shard in sorted(run.done("invert")) if of == name and ("invert", name, shard) not in bad]
    done = [shard for shard in done if ("draw", "pairs", shard) not in bad]
    if not done or ("train", name, 0) in bad:
        return
    shard = done[len(done) // 2]
    record = run.record("invert", name, shard)
    network = stages.network(run, name)
    images, targets = (stages.set_images(run, of, shard)[:sample] for of in (inverted(name), "natural"))
    again = relative_distance(stages.look(network, images), stages.look(network, targets)).numpy()
    stored = run.read(record, f"{inverted(name)}/final_loss")[:sample]
    off = np.abs(again - stored) > TOLERANCE * np.maximum(1, np.abs(stored))
    for index in np.flatnonzero(off | (np.isfinite(again) != np.isfinite(stored))):
        pair = shard * run.settings.pairs.shard_size + int(index)
        what = f"pair {pair} has a loss of {again[index]:.4f} when it is measured again, and {stored[index]:.4f} stored"
        yield Fault("invert", name, shard, what)
