"""Execution of one task run in a worker: compute the shards of a block."""

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
from netsim.store.stages import INVERT, Block, Stage, unit_label
from netsim.store.views import open_run
from tasks import metrics
from tasks.cancellation import CancellationCheck
from tasks.logs import forward_logs


def _worth_retrying(_task: Any, _task_run: Any, state: Any) -> bool:
    """Retry in place if storage or the network failed; any other failure is for another worker to retry."""
    try:
        state.result()
    except (UnreachableError, ConnectionError, TimeoutError):
        return True
    except BaseException:
        return False
    return False


OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE,  # the store remembers; Prefect's cache key does not see a change in netsim
    "persist_result": False,
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(backoff_factor=1),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _worth_retrying,
}
"""Options of every verb's task."""


def run_block(store: str, stage: Stage, name: str, shards: list[int], sweep: str | None = None) -> Any:
    """Compute the shards of a block that are not done, until the worker has to leave.

    The store is seen by `sweep`, as `netsim.store.views.open_run` takes it: by default, the one run last.

    Returns
    -------
    dict or State
        Numbers of shards ``computed``, ``skipped`` (done already) and ``returned`` (left to other workers), and
        ``seconds`` in all and ``waited`` for the store. Prefect's state Cancelled if the task was dropped.
    """
    run, watch, check = open_run(store, sweep), Stopwatch(), CancellationCheck(stage)
    _tag(run, stage, Block(name, shards))
    logger = get_run_logger()
    computed = 0

    def unit() -> str:
        return f"{stage.name} {name} shard {check.shard}"

    try:
        with cancellation(check), count_waiting() as waited, forward_logs(logger, unit):
            records = work_through(
                run, stage, name, shards, may_begin=check.may_begin, on_duration=check.record_duration
            )
            for record in records:
                computed += 1
                _update_metrics(run, stage, record)
                logger.info("%s took %s", unit_label((stage.name, name, record.shard)), _summary(record))
    except TaskCancelled as reason:
        return Cancelled(message=f"{reason}; {computed} of {len(shards)} shards were computed")
    except ShardError as error:
        error.worker = check.worker
        metrics.FAILED.labels(stage.name).inc()
        raise
    seconds = watch()
    metrics.WAITED.labels(stage.name).inc(waited.seconds)
    logger.info("%d shards in %.1f s, %.1f s of them waiting for the store", computed, seconds, waited.seconds)
    returned = len(shards) - shards.index(check.shard) if check.leaves and check.shard is not None else 0
    return {
        "computed": computed,
        "skipped": len(shards) - computed - returned,
        "returned": returned,
        "seconds": round(seconds, 3),
        "waited": round(waited.seconds, 3),
    }


def _tag(run: Run, stage: Stage, block: Block) -> None:
    """Tag the task run; the server receives the tags with its next state, which is the last one.

    A task run that has tags when it begins asks the server for concurrency slots of them. SQLite refuses that whenever
    another state is being recorded, one time in three; the request is repeated after 2 s or more while a GPU waits.
    """
    if context := TaskRunContext.get():
        context.task_run.tags = [f"store:{run.url}", *tags_of(stage, block, run.sweep.columns)]


def tags_of(stage: Stage, block: Block, networks: Collection[str]) -> list[str]:
    """List the tags of a task run besides that of its store: its stage and, if it has one, its network."""
    last = stage.goal(block.name).rpartition("/")[2]  # of `vgg`, `inverted/vgg`, `rsa/natural/vgg`
    return [f"stage:{stage.name}", *([f"network:{last}"] if last in networks else [])]


def _update_metrics(run: Run, stage: Stage, record: Record) -> None:
    metrics.SHARDS.labels(stage.name).inc()
    metrics.COMPUTED.labels(stage.name).inc(record.seconds)
    if stage.per_pair:
        metrics.PAIRS.labels(stage.name).inc(run.settings.pairs.shard_size)
    if stage is INVERT:
        metadata = InvertMetadata.of(record)
        metrics.ITERATIONS.inc(metadata.iterations)
        metrics.FLOPS.inc(metadata.flops)
        metrics.PEAK.set(metadata.peak_flops)


def _summary(record: Record) -> str:
    """Summarise a record for the log, as in ``12.3 s, median_loss 0.0123``."""
    numbers = [f"{key} {value:.4g}" for key, value in record.facts.items() if isinstance(value, float)]
    return ", ".join([f"{record.seconds:.1f} s", *numbers])
