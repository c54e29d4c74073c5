"""In a worker: compute the shards of one task run."""

from collections.abc import Collection
from typing import Any

from prefect import get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.states import Cancelled
from prefect.tasks import exponential_backoff

from netsim.cancellation import cancellation
from netsim.errors import TaskCancelled, UnreachableError
from netsim.stages.work import ShardError, work_through
from netsim.storage.stopwatch import Stopwatch, count_waiting
from netsim.store.metadata import InvertMetadata
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import INVERT, Block, Stage
from tasks import metrics
from tasks.cancellation import CancellationCheck
from tasks.logs import forwarded


def _worth_retrying(_task: Any, _task_run: Any, state: Any) -> bool:
    """Storage and networks come back. Whatever else happened is for another worker to try."""
    try:
        state.result()
    except (UnreachableError, ConnectionError, TimeoutError):
        return True
    except BaseException:
        return False
    return False


OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE,  # the store remembers; Prefect's key does not see a change in netsim
    "persist_result": False,
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(backoff_factor=1),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _worth_retrying,
}
"""How every verb runs."""


def run_block(store: str, stage: Stage, name: str, shards: list[int]) -> Any:
    """Compute those of the shards that are not done, until the worker has to leave.

    Returns how many were computed, found, and left to others, and the seconds; or the state Cancelled, if nobody waits
    for them.
    """
    run, watch, pulse = Run.open(store), Stopwatch(), CancellationCheck(stage)
    _tag(run, stage, Block(name, shards))
    logger = get_run_logger()
    computed = 0

    def unit() -> str:
        return f"{stage.name} {name} shard {pulse.shard}"

    try:
        with cancellation(pulse), count_waiting() as waited, forwarded(logger, unit):
            for record in work_through(run, stage, name, shards, may_begin=pulse.may_begin, took=pulse.record_duration):
                computed += 1
                _count(run, stage, record)
                logger.info("%s %s shard %d took %s", stage.name, name, record.shard, _found(record))
    except TaskCancelled as why:
        return Cancelled(message=f"{why}: {computed} of {len(shards)} shards were computed")
    except ShardError as error:
        error.worker = pulse.worker
        metrics.FAILED.labels(stage.name).inc()
        raise
    seconds = watch()
    metrics.WAITED.labels(stage.name).inc(waited.seconds)
    logger.info("%d shards in %.1f s, %.1f s of them waiting for the store", computed, seconds, waited.seconds)
    left = len(shards) - shards.index(pulse.shard) if pulse.leaves and pulse.shard is not None else 0
    return {
        "computed": computed,
        "found": len(shards) - computed - left,
        "left": left,
        "seconds": round(seconds, 3),
        "waited": round(waited.seconds, 3),
    }


def _tag(run: Run, stage: Stage, block: Block) -> None:
    """The server hears of it with the next state, which is the last of this task run.

    A task run that has tags when it begins asks the server for slots of them. On SQLite that is refused whenever
    another state is recorded at the moment, one time in three, and asked again after 2 s or more: a GPU waits for it.
    """
    if context := TaskRunContext.get():
        context.task_run.tags = [f"store:{run.url}", *tags_of(stage, block, run.settings.names)]


def tags_of(stage: Stage, block: Block, networks: Collection[str]) -> list[str]:
    """By what task runs can be filtered, besides their store."""
    last = block.name.rpartition("/")[2]  # of `vgg`, `inverted/vgg`, `rsa/natural/vgg`
    return [f"stage:{stage.name}", *([f"network:{last}"] if last in networks else [])]


def _count(run: Run, stage: Stage, record: Record) -> None:
    metrics.SHARDS.labels(stage.name).inc()
    metrics.COMPUTED.labels(stage.name).inc(record.seconds)
    if stage.per_pair:
        metrics.PAIRS.labels(stage.name).inc(run.settings.pairs.shard_size)
    if stage is INVERT:
        metadata = InvertMetadata.of(record)
        metrics.ITERATIONS.inc(metadata.iterations)
        metrics.FLOPS.inc(metadata.flops)
        metrics.PEAK.set(metadata.peak_flops)


def _found(record: Record) -> str:
    """12.3 s, median_loss 0.0123"""
    numbers = [f"{key} {value:.4g}" for key, value in record.facts.items() if isinstance(value, float)]
    return ", ".join([f"{record.seconds:.1f} s", *numbers])
