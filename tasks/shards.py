"""What all the verbs share: run the missing shards of a block in a worker, and see a stage through from the flow.

The store is asked twice what is done: by the flow before it submits, and by the task before it computes, because Dask
runs in-flight (and sometimes finished) tasks again when it loses a worker.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from distributed import KilledWorker
from distributed.client import FutureCancelledError
from prefect import Task, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.states import Crashed
from prefect.tasks import exponential_backoff

from netsim.errors import NetsimError, RunError, UnreachableError
from netsim.stages import Stage, work_through
from netsim.store import Run, Stopwatch
from netsim.sweep import STAGES

PASSES = 3
"""How often a stage is gone through for shards whose worker was lost. KilledWorker blames innocent tasks too, so what
it names is unknown, not failed: the next pass finds in the store what is really missing."""

WINDOW = 64
"""Most task runs submitted and not yet settled."""

LOST = (KilledWorker, FutureCancelledError)
"""What a future raises when Dask gave up on it; Prefect is never told."""


def _worth_retrying(_task: Any, _task_run: Any, state: Any) -> bool:
    """A NetsimError will be the same the next time; a storage or network fault may pass."""
    try:
        state.result()
    except UnreachableError:
        return True
    except NetsimError:
        return False
    except Exception:
        return True
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


def run_block(store: str, stage: Stage, name: str, shards: list[int]) -> dict[str, Any]:
    """Compute those of the shards that are not done. Returns how many were computed and found, and the seconds."""
    run, watch = Run.open(store), Stopwatch()
    logger = get_run_logger()
    computed = 0
    for record in work_through(run, stage, name, shards):
        computed += 1
        found = ", ".join(f"{key} {value:.4g}" for key, value in record.facts.items() if isinstance(value, float))
        logger.info("%s %s shard %d took %.1f s %s", stage.name, name, record.shard, record.seconds, found)
    seconds, waited = watch(), run.seconds_waited
    logger.info("%d shards in %.1f s, of which %.1f s were spent waiting for the store", computed, seconds, waited)
    return {
        "computed": computed,
        "found": len(shards) - computed,
        "seconds": round(seconds, 3),
        "waited": round(waited, 3),
    }


def finish(store: str, verb: Task[..., Any], *, shards_per_task: int = 1, stage: Stage | None = None) -> None:
    """See the stage that `verb` works on through: submit what is missing, and again what was lost with a worker.

    `stage` is that of the sweep with the verb's name if it is not given.

    Nothing is submitted when nothing is missing. Raises the first NetsimError that a task raised, or RunError if shards
    are missing in the end.
    """
    run = Run.open(store)
    stage = stage or next(stage for stage in STAGES if stage.name == verb.name)
    fault: Exception | None = None
    for attempt in range(PASSES):
        missing = stage.missing(run)
        if not missing:
            return
        stage.prepare(run)
        if attempt:
            get_run_logger().warning("%s: pass %d, after %s", stage.name, attempt + 1, fault)
        fault = _submit_all(run, stage, verb, missing, shards_per_task)
        if fault and not isinstance(fault, LOST):
            break
    if isinstance(fault, NetsimError):
        raise fault
    missing = stage.missing(run)
    if missing:
        name, shard = missing[0]
        why = f"{type(fault).__name__}: {fault}" if fault else "their tasks ended without a commit"
        raise RunError(
            f"{stage.name}: {len(missing)} shards are missing, the first is {name} {shard} ({why})"
        ) from fault


@dataclass(frozen=True)
class Block:
    """What one task run works through: shards of one name."""

    name: str
    shards: list[int]


def blocks(missing: list[tuple[str, int]], size: int) -> Iterator[Block]:
    """Cut missing (name, shard) units, which are in order, into blocks of at most `size` shards."""
    for name, group in groupby(missing, key=lambda unit: unit[0]):
        shards = [shard for _, shard in group]
        for start in range(0, len(shards), size):
            yield Block(name, shards[start : start + size])


def _submit_all(
    run: Run, stage: Stage, verb: Task[..., Any], missing: list[tuple[str, int]], shards_per_task: int
) -> Exception | None:
    """Submit every block and settle each. Returns the fault that says most: a task's own before a lost worker."""
    total = stage.units.total(run.settings)
    done = total - len(missing)
    progress: Any = create_progress_artifact(100 * done / total, key=stage.name, description=stage.units.says)
    todo = blocks(missing, shards_per_task)
    window: deque[tuple[Block, Any]] = deque()
    fault: Exception | None = None
    while True:
        while len(window) < WINDOW and (block := next(todo, None)):
            window.append((block, verb.submit(run.url, block.name, block.shards)))
        if not window:
            return fault
        block, future = window.popleft()
        error = _settle(future)
        del future  # or Dask would compute it again when it loses the worker that holds the result
        if error is None:
            done += len(block.shards)
            update_progress_artifact(progress, progress=100 * done / total)
            continue
        if fault is None or (isinstance(fault, LOST) and not isinstance(error, LOST)):
            fault = error
        if not isinstance(error, LOST):
            todo = iter(())  # a full disk or wrong weights meet the next block too
            _give_up_waiting(window)


def _give_up_waiting(window: Iterable[tuple[Block, Any]]) -> None:
    """Have Dask drop the blocks that no worker has begun: they would be computed in vain."""
    futures = [future.wrapped_future for _, future in window]
    if futures:
        begun = {key for keys in futures[0].client.processing().values() for key in keys}
        futures[0].client.cancel([future for future in futures if future.key not in begun])


def _settle(future: Any) -> Exception | None:
    """Wait for a task run. One that Dask gave up on would be 'Running' in Prefect for ever: mark it."""
    try:
        future.result()
    except LOST as error:
        _mark_crashed(future.task_run_id, f"{type(error).__name__}: {error}"[:300])
        return error
    except Exception as error:
        return error
    return None


def _mark_crashed(task_run_id: Any, message: str) -> None:
    try:
        with get_client(sync_client=True) as client:
            client.set_task_run_state(task_run_id, Crashed(message=message), force=True)
    except Exception:  # the run may never have been recorded; the sweep goes on either way
        get_run_logger().warning("could not mark task run %s as crashed", task_run_id)
