"""Computing and committing the units of a stage, whoever schedules them.

    check      the images                 unreadable images, content hash
    train      a network                  weights, content hash, test accuracy
    draw       pairs, a shard             indices, labels, seed and target images
    invert     a network, a shard         inverted images, losses
    embed      a set, a shard             every observer's representations of the set's images
    aggregate  a row of a matrix          the sums behind its CKA, over all shards and with each left out
    control    a row of the inverted one  its sums with seeds and targets, and the classes that observers see
    report     the run                    one page, figures, tables

A set is `natural` (the targets) or `inverted/<through>`. A unit is a run, a name and a shard: it reads the store and
writes the store. Arrays pass between stages only through the store, so any unit runs on any machine, alone, again.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np

from netsim.allocator import retaining_memory
from netsim.errors import NetsimError
from netsim.storage.stopwatch import Stopwatch, waiting
from netsim.store.metadata import Metadata
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import Stage, Unit

Compute = Callable[[Run, str, int], "StageResult"]
"""(run, name, shard) -> the result of one unit."""


@dataclass(frozen=True)
class StageResult:
    """The result of one unit: arrays and files by their path in the store, and metadata for its record."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=Metadata)
    obsolete: tuple[str, ...] = ()  # files to remove once the record is there


def work_of(stage: Stage) -> Compute:
    """Return what computes the units of a stage, importing its module."""
    compute: Compute = stage.compute or import_module(f"netsim.stages.{stage.name}").compute
    return retaining_memory(compute)


def compute_unit(run: Run, stage: Stage, name: str, shard: int) -> Record:
    """Compute one unit and commit it."""
    watch = Stopwatch()
    result = work_of(stage)(run, name, shard)
    return commit(run, stage, name, shard, result, watch())


def commit(run: Run, stage: Stage, name: str, shard: int, result: StageResult, seconds: float) -> Record:
    """Mark a unit done that took `seconds` to compute."""
    record = run.commit(
        stage.name,
        name,
        shard,
        arrays=result.arrays,
        files=result.files,
        facts=result.metadata.to_json(),
        seconds=seconds,
    )
    for path in result.obsolete:
        run.files.remove(path)
    return record


class ShardError(Exception):
    """Unexpected error while computing one shard, with the traceback as text."""

    def __init__(self, stage: str, name: str, shard: int, traceback: str) -> None:
        super().__init__(stage, name, shard, traceback)
        self.unit: Unit = (stage, name, shard)
        self.traceback = traceback
        self.worker: str | None = None  # its address, where there is one

    def __str__(self) -> str:
        return f"{' '.join(map(str, self.unit))}: {self.traceback.strip().splitlines()[-1]}"


def work_through(
    run: Run,
    stage: Stage,
    name: str,
    shards: Iterable[int],
    *,
    may_begin: Callable[[int], bool] = lambda _: True,
    on_duration: Callable[[float], None] = lambda _: None,
) -> Iterator[Record]:
    """Compute the shards that are not done; each is committed while the next is computed.

    The values of two shards are in memory at a time, and both are computed again if the process is killed meanwhile.

    Parameters
    ----------
    may_begin
        Called with the number of each shard before it begins; the work ends where it returns False.
    on_duration
        Called with the seconds that each shard took to compute.

    Yields
    ------
    Record
        Of each shard that was committed.

    Raises
    ------
    NetsimError
        If the work fails for a reason that a user can fix.
    ShardError
        If it fails for any other reason.
    """
    compute = work_of(stage)
    with ThreadPoolExecutor(1) as writer:
        writing: tuple[int, Future[Record]] | None = None
        for shard in shards:
            if run.is_done(stage.name, name, shard):
                continue
            if not may_begin(shard):
                break
            with _naming_shard(stage, name, shard):
                watch = Stopwatch()
                result = compute(run, name, shard)
                seconds = watch()
            on_duration(seconds)
            if writing:
                yield _written(run, stage, name, *writing)
            writing = shard, writer.submit(commit, run, stage, name, shard, result, seconds)
        if writing:
            yield _written(run, stage, name, *writing)


@contextmanager
def _naming_shard(stage: Stage, name: str, shard: int) -> Iterator[None]:
    try:
        yield
    except NetsimError:
        raise
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        raise ShardError(stage.name, name, shard, text) from error


def _written(run: Run, stage: Stage, name: str, shard: int, writing: Future[Record]) -> Record:
    with _naming_shard(stage, name, shard), waiting():
        return writing.result()
