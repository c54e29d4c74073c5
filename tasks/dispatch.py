"""Dispatch of a stage's missing shards to the workers, in the flow process.

The flow asks the store what is missing before it submits, and each task asks again before it computes
(tasks/worker.py), because Dask reruns in-flight, and sometimes finished, tasks when it loses a worker.

A shard that fails with an unexpected error is retried alone and on other workers. One that fails every time is
quarantined with its traceback, and the sweep continues with all that does not need it. A NetsimError is for the user to
fix (a full disk, changed weights) and the next shard would meet it too: it ends the stage.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import dask
from distributed import Client, KilledWorker, as_completed
from distributed.client import FutureCancelledError
from prefect import Task, get_run_logger
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, SettingsContext, TagsContext
from prefect.events import emit_event
from prefect.states import Crashed
from pydantic import PrivateAttr

from netsim.errors import NetsimError, RunError
from netsim.stages.work import ShardError
from netsim.store.quarantine import quarantine, quarantined
from netsim.store.run import Run
from netsim.store.stages import INVERT, STAGES, TRAIN, Block, Stage, Unit, blocked_goals, blocks, unit_label
from tasks.artifacts import StageProgress, show_quarantined, stage_progress
from tasks.devices import GPU
from tasks.interrupts import raise_if_interrupted

PASSES = 3
"""Attempts per shard: with the rest of its block, alone in a task, and with no other task in progress. KilledWorker
blames innocent tasks too, so only those that it names in the last pass are at fault."""

WINDOW = 64
"""Minimum number of task runs that are submitted and not yet settled."""

TASKS_PER_THREAD = 3
"""Submitted task runs per thread of the workers, where that is more: no thread waits for the flow to submit."""

MAX_INITIAL_FAILURES = 8
"""Blocks that may fail before the first success. If more do, the fault is not in the shards, and the stage ends."""

CONNECTION_LOST = "scheduler-connection-lost"
"""Reason of Dask for a future that it dropped because the scheduler did not answer for a moment, or was restarted."""

RESTART_HINT = "Restart it and its workers, and run the command again to resume"
"""Hint for a scheduler that is gone."""

RECONNECT_INTERVAL = 0.2
"""Seconds between two looks at a client that is connecting to its scheduler again."""

BEGUN = {"executing", "long-running", "memory", "error"}
"""States of a task in a worker (`distributed.worker_state_machine`) that it has begun."""

LOST = (KilledWorker, FutureCancelledError)
"""Errors of futures that Dask gave up on. Prefect does not learn of them."""


# ---- a stage


def finish(run: Run, verb: Task[..., Any], *, shards_per_task: int = 1, stage: Stage | None = None) -> None:
    """Compute the missing shards of a stage, and quarantine those that fail in every pass.

    Parameters
    ----------
    run
        The store, as the sweep sees it.
    verb
        Task that computes a block of shards. It is not submitted if nothing is missing.
    shards_per_task
        Maximum number of shards per task run.
    stage
        Stage to finish; default: the one of a sweep that has the name of `verb`.

    Raises
    ------
    NetsimError
        The first one that a task raised.
    RunError
        If the failures are not those of single shards.
    """
    stage = stage or next(stage for stage in STAGES if stage.name == verb.name)
    blocked = blocked_goals(run.sweep, quarantined(run))
    (missing, units), failures, number = _missing(run, stage, blocked), Failures(), 0
    with stage_progress(run, stage, missing) as progress, _CachedSettings.now():
        while units and number < PASSES:
            stage.prepare(run, units)
            outcome = _Pass(run, stage, verb, failures, progress, number).run(units, shards_per_task)
            before, (missing, units) = units, _missing(run, stage, blocked)
            progress.set_missing(missing)
            # a pass that only lost shards to workers that had to leave, or got further, costs no attempt
            if outcome.failed or not (outcome.returned or set(units) < set(before)):
                number += 1
    _require_explained(stage, units, failures)
    if units:
        _quarantine(run, stage, units, failures)


def _missing(run: Run, stage: Stage, blocked: set[Unit]) -> tuple[int, list[tuple[str, int]]]:
    """Count the missing units, and list those that can be computed in the order in which to submit them."""
    missing = stage.missing(run)
    possible = [(name, shard) for name, shard in missing if (stage.name, stage.goal(name), shard) not in blocked]
    return len(missing), slowest_first(run, possible) if stage is INVERT else possible


def slowest_first(run: Run, inversions: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Sort by the time that training or checking the network took, slowest first: no straggler runs alone at the end.

    Inversions of the same network stay together.
    """
    trained = TRAIN.done(run) if inversions else {}
    seconds = {name: run.record("train", name).seconds for name, _ in trained}
    return sorted(inversions, key=lambda unit: -seconds.get(unit[0], 0.0))


# ---- failures


@dataclass
class Failures:
    """Failures of a stage by unit (name, shard): the last error, and the workers on which the unit failed."""

    errors: dict[tuple[str, int], Exception] = field(default_factory=dict)
    workers: dict[tuple[str, int], set[str]] = field(default_factory=dict)

    def add(self, block: Block, error: Exception) -> None:
        """Blame the shard that raised the error, or the whole block if only its worker could have told which one."""
        if isinstance(error, ShardError):
            shards, worker = [error.unit[2]], error.worker
        else:
            shards, worker = block.shards, getattr(getattr(error, "last_worker", None), "address", None)
        for unit in ((block.name, shard) for shard in shards):
            self.errors[unit] = error
            self.workers.setdefault(unit, set()).update({worker} if worker else ())

    def workers_of(self, block: Block) -> set[str]:
        """List the workers on which a shard of the block failed."""
        return set().union(*(self.workers.get((block.name, shard), set()) for shard in block.shards))


def _require_explained(stage: Stage, units: list[tuple[str, int]], failures: Failures) -> None:
    """Raise RunError for units that are still missing although no task failed."""
    if unexplained := [unit for unit in units if unit not in failures.errors]:
        first = unit_label((stage.name, *unexplained[0]))
        raise RunError(
            f"{len(unexplained)} shards of {stage.name} are missing although their tasks ended without an error, "
            f"the first {first}; run the command again to resume"
        )


def _quarantine(run: Run, stage: Stage, units: list[tuple[str, int]], failures: Failures) -> None:
    """Quarantine units, and report it by log, artifact and event: the sweep may take days before it ends as Failed."""
    for unit in units:
        error = failures.errors[unit]
        message = f"{type(error).__name__}: {error}"[:1000]
        reason = {"error": message, "traceback": getattr(error, "traceback", "")}
        quarantine(run, (stage.name, *unit), reason | {"workers": sorted(failures.workers[unit])})
        get_run_logger().error("%s is quarantined: %s", unit_label((stage.name, *unit)), message)
    show_quarantined(run, quarantined(run))
    emit_event(
        "netsim.shards.set-aside",
        resource={"prefect.resource.id": f"netsim.run.{run.digest}", "prefect.resource.name": run.url},
        payload={"stage": stage.name, "shards": len(units), "first": unit_label((stage.name, *units[0]))},
    )


def require_none_quarantined(run: Run) -> None:
    """Raise RunError if shards are quarantined; call it at the end of a sweep."""
    units = quarantined(run)
    if not units:
        return
    first = next(iter(units))
    more = f" and {len(units) - 1} more" if len(units) > 1 else ""
    raise RunError(
        f"{unit_label(first)}{more} failed and is quarantined ({units[first]['error']}); everything that does not need "
        "it is done. `netsim status` shows more; run the command again to retry"
    )


# ---- one pass over its shards


class _Outcome(NamedTuple):
    failed: int  # blocks
    returned: int  # shards, by workers that had to leave


class _Pass:
    """One pass over the missing shards of a stage; `number` counts from 0, and later passes isolate the shards."""

    def __init__(
        self, run: Run, stage: Stage, verb: Task[..., Any], failures: Failures, progress: StageProgress, number: int
    ) -> None:
        self._run, self._stage, self._verb, self._failures, self._progress = run, stage, verb, failures, progress
        self._number = number
        self._client = dask_client()
        self._address = self._client.scheduler_info(n_workers=0)["address"]
        self._resources = _gpu_resources(self._client) if stage.gpu else {}
        self._in_progress: dict[str, tuple[Block, Any]] = {}  # by the key of the Dask future
        self._ended = as_completed(loop=self._client.loop)

    def run(self, units: list[tuple[str, int]], shards_per_task: int) -> _Outcome:
        """Submit every unit and settle each block as it ends.

        Raises the first NetsimError of a task, or RunError if too many blocks fail before the first success.
        """
        if self._number:
            attempt = f"attempt {self._number + 1} of {PASSES}"
            get_run_logger().warning("%s: retrying %d shards (%s)", self._stage.name, len(units), attempt)
        queue = blocks(units, 1 if self._number else shards_per_task)
        max_failures = len(units) if self._number else MAX_INITIAL_FAILURES
        failed, returned, succeeded, fatal = 0, 0, False, None
        while self._submit_more(queue):
            block, result = self._settle_next()
            if getattr(result, "reason", None) == CONNECTION_LOST:  # no fault of the shards
                require_connected(self._client, self._address)
                returned += len(block.shards)
                continue
            if not isinstance(result, Exception):
                succeeded = True
                returned += result["returned"]
                self._progress.add(len(block.shards) - result["returned"])
                continue
            failed += 1
            self._failures.add(block, result)
            if isinstance(result, NetsimError) or (failed > max_failures and not succeeded):
                fatal = fatal or result
                queue = iter(())
                _cancel_waiting([future for _, future in self._in_progress.values()])
        if isinstance(fatal, NetsimError):
            raise fatal
        if fatal:
            message = f"{self._stage.name}: the first {failed} task runs all failed, the last one with {fatal}"
            raise RunError(message) from fatal
        return _Outcome(failed, returned)

    def _submit_more(self, queue: Iterator[Block]) -> bool:
        """Submit as many blocks as keep all workers busy; tell whether any is in progress."""
        require_connected(self._client, self._address)
        threads = self._client.scheduler_info(n_workers=0)["total_threads"]
        alone = self._number == PASSES - 1
        window = 1 if alone else max(WINDOW, TASKS_PER_THREAD * threads)
        while len(self._in_progress) < window and (block := next(queue, None)):
            future = self._submit(block)
            self._in_progress[future.wrapped_future.key] = block, future
            self._ended.add(future.wrapped_future)
        return bool(self._in_progress)

    def _settle_next(self) -> tuple[Block, Any]:
        """Settle the block that ends first and drop its future: Dask recomputes results that a lost worker held."""
        raise_if_interrupted()
        block, future = self._in_progress.pop(next(self._ended).key)
        return block, _settle(future)

    def _submit(self, block: Block) -> Any:
        with self._placement(block), TagsContext():  # no tags at the beginning: see tasks.worker._tag
            return self._verb.submit(self._run.url, block.name, block.shards, self._run.sweep.id)

    def _placement(self, block: Block) -> AbstractContextManager[Any]:
        """Restrict a block to GPUs if the stage gains from one, and prefer workers on which it has not failed.

        Where only some workers have a GPU, any GPU will do: those workers may be gone by then, so they can only be
        preferred (`allow_other_workers`), and with that Dask ignores `resources` too.
        """
        avoid = self._failures.workers_of(block)
        workers = workers_of(self._client) if avoid else {}
        alike = not self._resources or all(worker["resources"].get("GPU") for worker in workers.values())
        others = [worker for worker in workers if worker not in avoid] if alike else []
        annotations: dict[str, Any] = {"resources": self._resources} if self._resources else {}
        annotations |= {"workers": others, "allow_other_workers": True} if others else {}
        return dask.annotate(**annotations) if annotations else nullcontext()


class _CachedSettings(SettingsContext):
    """Prefect's settings, which are sent with each task run: serialising them anew took 80 % of submitting it."""

    _serialized: dict[str, Any] | None = PrivateAttr(None)

    @classmethod
    def now(cls) -> "_CachedSettings":
        current: Any = SettingsContext.get()
        return cls(profile=current.profile, settings=current.settings)

    def serialize(self, include_secrets: bool = True) -> dict[str, Any]:
        if self._serialized is None:
            self._serialized = super().serialize(include_secrets)
        return self._serialized


# ---- Dask


def dask_client() -> Client:
    """Return the client of the current flow's task runner."""
    context: Any = FlowRunContext.get()
    return context.task_runner.client


def require_connected(client: Client, address: str) -> None:
    """Wait while a client connects to its scheduler again. Raises RunError if the scheduler is gone."""
    while client.status == "connecting":
        raise_if_interrupted()
        time.sleep(RECONNECT_INTERVAL)
    if client.status != "running":
        raise RunError(f"the Dask scheduler at {address} is gone. {RESTART_HINT}")


def workers_of(client: Client) -> dict[str, Any]:
    """Map the address of each worker to what the scheduler knows of it."""
    return client.scheduler_info(n_workers=-1)["workers"]


def _gpu_resources(client: Client) -> dict[str, int]:
    """Return the resources of a task: one GPU if any worker has one. Waits for the first worker without a timeout."""
    if not workers_of(client):
        get_run_logger().info("waiting for the first worker")
        client.wait_for_workers(1)
    return GPU if any(worker["resources"].get("GPU") for worker in workers_of(client).values()) else {}


def _cancel_waiting(futures: Iterable[Any]) -> None:
    """Cancel the blocks that no worker has begun: they would be computed in vain.

    A block that has just ended is not cancelled either: its result would be lost, and its task run taken for a crash.
    """
    wrapped = [future.wrapped_future for future in futures]
    if wrapped:
        client = wrapped[0].client
        begun = {key for keys in client.run(_begun, on_error="ignore").values() for key in keys}
        client.cancel([future for future in wrapped if future.key not in begun and not future.done()])


def _begun(dask_worker: Any) -> list[str]:
    """List the keys of the tasks that a worker executes now or has executed."""
    return [key for key, task in dask_worker.state.tasks.items() if task.state in BEGUN]


def _settle(future: Any) -> Any:
    """Wait for a task run and return its result or its error.

    A task run that Dask gave up on would stay 'Running' in Prefect, so it is marked as crashed.
    """
    try:
        return future.result()
    except LOST as error:
        _mark_crashed(future.task_run_id, f"{type(error).__name__}: {error}"[:300])
        return error
    except Exception as error:
        return error


def _mark_crashed(task_run_id: Any, message: str) -> None:
    try:
        with get_client(sync_client=True) as client:
            client.set_task_run_state(task_run_id, Crashed(message=message), force=True)
    except Exception:  # the run may never have been recorded; the sweep continues either way
        get_run_logger().warning("could not mark task run %s as crashed", task_run_id)
