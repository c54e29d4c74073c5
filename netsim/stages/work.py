"""The stages of a sweep. Each piece of work takes a run, a name and a shard, reads the store, and writes the store.

    check      the images                 which can't be read, content hash
    train      a network                  weights, content hash, test accuracy
    draw       pairs, a shard             indices, labels, seed and target images
    invert     a network, a shard         inverted images, losses
    embed      a set, a shard             what every observer says of the set's images
    aggregate  a row of a matrix          the sums its CKA is made of, over all shards and with each left out
    report     the run                    one page, figures, tables (netsim/stages/report.py)

A set is `natural` (the targets) or `inverted/<through>`. Arrays pass between stages only through the store, so any
piece runs on any machine, alone, again. Nothing here knows who schedules it.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np

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
    return compute


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
    """What nobody foresaw happened in the work of one shard: stage, name, shard, and the traceback as text."""

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
    took: Callable[[float], None] = lambda _: None,
) -> Iterator[Record]:
    """Compute those of the shards that are not done; each is committed while the next is computed.

    Two shards' values are in memory at a time, and both are computed again if the process is killed just then. Before
    each shard, `may_begin` is asked with its number, and the work ends where it says no; `took` is told the seconds of
    each that was computed. Raises NetsimError, or ShardError for what nobody foresaw.
    """
    compute = work_of(stage)
    with ThreadPoolExecutor(1) as writer:
        writing: tuple[int, Future[Record]] | None = None
        for shard in shards:
            if run.is_done(stage.name, name, shard):
                continue
            if not may_begin(shard):
                break
            with _of_shard(stage, name, shard):
                watch = Stopwatch()
                result = compute(run, name, shard)
                seconds = watch()
            took(seconds)
            if writing:
                yield _written(run, stage, name, *writing)
            writing = shard, writer.submit(commit, run, stage, name, shard, result, seconds)
        if writing:
            yield _written(run, stage, name, *writing)


@contextmanager
def _of_shard(stage: Stage, name: str, shard: int) -> Iterator[None]:
    try:
        yield
    except NetsimError:
        raise
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        raise ShardError(stage.name, name, shard, text) from error


def _written(run: Run, stage: Stage, name: str, shard: int, writing: Future[Record]) -> Record:
    with _of_shard(stage, name, shard), waiting():
        return writing.result()
