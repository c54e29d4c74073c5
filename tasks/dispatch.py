"""What all the verbs share: run the missing shards of a block in a worker, and see a stage through from the flow.

The store is asked twice what is done: by the flow before it submits, and by the task before it computes, because Dask
runs in-flight (and sometimes finished) tasks again when it loses a worker.

A shard that failed of what nobody foresaw is tried again alone and on other workers; what fails every time is set
aside with its traceback, and the rest of the sweep goes on. What a user can mend (a full disk, other weights) would
meet the next shard too: it ends the stage.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

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
from netsim.store.stages import INVERT, STAGES, TRAIN, Block, Stage, blocked_units, blocks, unit_label
from tasks.artifacts import Shown, show_quarantined, shown
from tasks.devices import GPU
from tasks.interrupts import raise_if_interrupted

PASSES = 3
"""How often a shard is tried: with others of its block, alone, and with no other shard under way. KilledWorker blames
innocent tasks too, so only what it names in the last pass is at fault."""

WINDOW = 64
"""Task runs that are submitted and not yet settled where workers are few."""

AHEAD = 3
"""The same for each thread of the workers where they are many: none is to wait until the flow has submitted more."""

HOPELESS = 8
"""Blocks that fail before any succeeds, after which the fault is not the shards'."""

LOST = (KilledWorker, FutureCancelledError)
"""What a future raises when Dask gave up on it; Prefect is never told."""


# ---- in a worker


# ---- in the flow


@dataclass
class Faults:
    """What shards failed of, by (name, shard): the last error, and the workers that met one."""

    errors: dict[tuple[str, int], Exception] = field(default_factory=dict)
    workers: dict[tuple[str, int], set[str]] = field(default_factory=dict)

    def add(self, block: Block, error: Exception) -> None:
        """To the shard that failed, or to all of the block where only the worker could have told."""
        if isinstance(error, ShardError):
            shards, worker = [error.unit[2]], error.worker
        else:
            shards, worker = block.shards, getattr(getattr(error, "last_worker", None), "address", None)
        for unit in ((block.name, shard) for shard in shards):
            self.errors[unit] = error
            self.workers.setdefault(unit, set()).update({worker} if worker else ())


def finish(store: str, verb: Task[..., Any], *, shards_per_task: int = 1, stage: Stage | None = None) -> None:
    """See the stage that `verb` works on through, but for shards that can't be computed: they are set aside.

    `stage` is that of the sweep with the verb's name if it is not given. Nothing is submitted when nothing is missing.
    Raises the first NetsimError that a task raised, or RunError if it is not shards that are at fault.
    """
    run = Run.open(store)
    stage = stage or next(stage for stage in STAGES if stage.name == verb.name)
    without = blocked_units(run.settings, quarantined(run))

    def look() -> tuple[int, list[tuple[str, int]]]:
        missing = stage.missing(run)
        within_reach = [unit for unit in missing if (stage.name, *unit) not in without]
        return len(missing), slowest_first(run, within_reach) if stage is INVERT else within_reach

    (left, missing), faults, tries = look(), Faults(), 0
    with shown(run, stage, left) as bar, _SettingsOnce.now():
        while missing and tries < PASSES:
            stage.prepare(run)
            if tries:
                get_run_logger().warning("%s: try %d of %d shards", stage.name, tries + 1, len(missing))
            size, hopeless = (shards_per_task, HOPELESS) if tries == 0 else (1, len(missing))
            one_pass = _Pass(run, stage, verb, faults, bar, alone=tries == PASSES - 1)
            failed, left_to_others = one_pass.submit_all(missing, size, hopeless)
            before, (left, missing) = missing, look()
            bar.left(left)
            if failed or not (left_to_others or set(missing) < set(before)):
                tries += 1
    if unexplained := [unit for unit in missing if unit not in faults.errors]:
        name, shard = unexplained[0]
        raise RunError(
            f"{stage.name}: {len(unexplained)} shards are missing, the first is {name} {shard}: "
            "their tasks ended without a commit"
        )
    if missing:
        _quarantine(run, stage, missing, faults)


def slowest_first(run: Run, inversions: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """By what it took to train or check their networks: a slow one that comes last has all workers but its own wait."""
    trained = TRAIN.done(run) if inversions else {}
    seconds = {name: run.record("train", name).seconds for name, _ in trained}
    return sorted(inversions, key=lambda unit: -seconds.get(unit[0], 0.0))  # those of a name stay together


def _quarantine(run: Run, stage: Stage, units: list[tuple[str, int]], faults: Faults) -> None:
    """In the store, and said in every way there is: the sweep may go on for days before it ends as Failed."""
    for unit in units:
        why = faults.errors[unit]
        told = {"error": f"{type(why).__name__}: {why}"[:1000], "traceback": getattr(why, "traceback", "")}
        quarantine(run, (stage.name, *unit), told | {"workers": sorted(faults.workers[unit])})
        get_run_logger().error("%s is set aside: %s", unit_label((stage.name, *unit)), told["error"])
    show_quarantined(quarantined(run))
    emit_event(
        "netsim.shards.set-aside",
        resource={"prefect.resource.id": f"netsim.run.{run.digest}", "prefect.resource.name": run.url},
        payload={"stage": stage.name, "shards": len(units), "first": unit_label((stage.name, *units[0]))},
    )


def require_none_quarantined(store: str) -> None:
    """The end of every sweep. Raises RunError if it had to leave shards out."""
    run = Run.open(store)
    aside = quarantined(run)
    if not aside:
        return
    first = next(iter(aside))
    more = f" and {len(aside) - 1} more" if len(aside) > 1 else ""
    raise RunError(
        f"{unit_label(first)}{more} could not be computed and is set aside ({aside[first]['error']}); "
        "everything that does not need it is done. `netsim status` tells more, and the same command tries again"
    )


class _Pass:
    """One pass over the missing shards of a stage."""

    def __init__(
        self, run: Run, stage: Stage, verb: Task[..., Any], faults: Faults, bar: Shown, *, alone: bool
    ) -> None:
        self._run, self._stage, self._verb, self._faults, self._bar = run, stage, verb, faults, bar
        self._alone = alone
        self._client = dask_client()
        self._slots = _slots(self._client) if stage.gpu else {}
        self._under_way: dict[str, tuple[Block, Any]] = {}  # by the key of the Dask future
        self._ended = as_completed(loop=self._client.loop)

    def submit_all(self, missing: list[tuple[str, int]], shards_per_task: int, hopeless: int) -> tuple[int, int]:
        """Submit every block and settle each as it ends.

        Returns how many failed, and how many shards were left to others by workers that had to go. Raises the first
        NetsimError of a task, or RunError when more than `hopeless` fail before one succeeds.
        """
        todo = blocks(missing, shards_per_task)
        failed, left, fault, succeeded = 0, 0, None, False
        while True:
            self._submit_more(todo)
            if not self._under_way:
                break
            block, ended = self._settle_one()
            if isinstance(ended, Exception):
                failed += 1
                self._faults.add(block, ended)
            else:
                succeeded = True
                left += ended["left"]
                self._bar.add(len(block.shards) - ended["left"])
            if isinstance(ended, NetsimError) or (failed > hopeless and not succeeded):
                fault = fault or ended
                todo = iter(())
                _give_up_waiting([future for _, future in self._under_way.values()])
        if isinstance(fault, NetsimError):
            raise fault
        if fault:
            raise RunError(f"{self._stage.name}: the first {failed} blocks all failed, at last of {fault}") from fault
        return failed, left

    def _submit_more(self, todo: Iterator[Block]) -> None:
        """As many as keep every worker busy until the flow is here again."""
        threads = self._client.scheduler_info(n_workers=0)["total_threads"]
        window = 1 if self._alone else max(WINDOW, AHEAD * threads)
        while len(self._under_way) < window and (block := next(todo, None)):
            future = self._submit(block)
            self._under_way[future.wrapped_future.key] = block, future
            self._ended.add(future.wrapped_future)

    def _settle_one(self) -> tuple[Block, Any]:
        """Whichever ends first. Its future is dropped: Dask computes a result again when it loses what holds it."""
        raise_if_interrupted()
        block, future = self._under_way.pop(next(self._ended).key)
        return block, _settle(future)

    def _submit(self, block: Block) -> Any:
        with self._placed(block), TagsContext():  # none: see _tag
            return self._verb.submit(self._run.url, block.name, block.shards)

    def _placed(self, block: Block) -> AbstractContextManager[Any]:
        """Where a block is to run: on a GPU if the stage gains from one, and not where it failed before.

        Any GPU will do where some workers have none: `workers` would have to be no more than a wish, as those may be
        gone by then, and with a wish Dask lets go of `resources` as well.
        """
        avoid = set().union(*(self._faults.workers.get((block.name, shard), set()) for shard in block.shards))
        workers = workers_of(self._client) if avoid else {}
        alike = not self._slots or all(worker["resources"].get("GPU") for worker in workers.values())
        others = [worker for worker in workers if worker not in avoid] if alike else []
        asked: dict[str, Any] = {"resources": self._slots} if self._slots else {}
        asked |= {"workers": others, "allow_other_workers": True} if others else {}
        return dask.annotate(**asked) if asked else nullcontext()


class _SettingsOnce(SettingsContext):
    """Prefect's settings go with each task run. To write them out anew took four fifths of submitting it."""

    _written: dict[str, Any] | None = PrivateAttr(None)

    @classmethod
    def now(cls) -> "_SettingsOnce":
        current: Any = SettingsContext.get()
        return cls(profile=current.profile, settings=current.settings)

    def serialize(self, include_secrets: bool = True) -> dict[str, Any]:
        if self._written is None:
            self._written = super().serialize(include_secrets)
        return self._written


def dask_client() -> Client:
    """Of the task runner of the flow that runs here."""
    context: Any = FlowRunContext.get()
    return context.task_runner.client


def workers_of(client: Client) -> dict[str, Any]:
    """What the scheduler knows of its workers, by address."""
    return client.scheduler_info(n_workers=-1)["workers"]


def _slots(client: Client) -> dict[str, int]:
    """A GPU for each task, where workers have any. Waits for the first worker, for as long as it takes."""
    if not workers_of(client):
        get_run_logger().info("waiting for the first worker")
        client.wait_for_workers(1)
    return GPU if any(worker["resources"].get("GPU") for worker in workers_of(client).values()) else {}


def _give_up_waiting(futures: Iterable[Any]) -> None:
    """Have Dask drop the blocks that no worker has begun: they would be computed in vain."""
    wrapped = [future.wrapped_future for future in futures]
    if wrapped:
        client = wrapped[0].client
        begun = {key for keys in client.run(_begun, on_error="ignore").values() for key in keys}
        client.cancel([future for future in wrapped if future.key not in begun])


def _begun(dask_worker: Any) -> list[str]:
    """In a worker: what it computes just now."""
    return [task.key for task in dask_worker.state.executing]


def _settle(future: Any) -> Any:
    """Wait for a task run: what it returned, or raised. One that Dask gave up on would be 'Running' in Prefect for
    ever: mark it.
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
    except Exception:  # the run may never have been recorded; the sweep goes on either way
        get_run_logger().warning("could not mark task run %s as crashed", task_run_id)
