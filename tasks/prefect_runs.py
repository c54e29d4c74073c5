"""No run of ours stays 'Running' in Prefect when it is not: not after Ctrl-C, not after kill -9, not for a lost worker.

A worker tells the server of its task runs by events, which a killed worker takes with it and a busy server records
late, even after the flow has ended. So every flow run of a sweep has in its tags which process on which host it is of,
and every sweep closes, when it begins and when it ends, what was left open by processes of the same store that are
gone: from this host, or from another if Prefect knows the end of their sweep (deploy/automations.yaml marks a sweep as
crashed whose machine is gone, but not its tasks). What may live is left alone.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from threading import Event
from typing import Any
from uuid import UUID

import psutil
from prefect import runtime, tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.states import Cancelled, Completed, Crashed

from netsim.errors import RunError
from tasks.interrupts import cancelled_in_prefect, marked_crashed
from tasks.threads import background_thread

OPEN = {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}}

STATES_ARRIVE = 20.0
"""Seconds that the last states of a sweep may be on their way to the server: on two busy cores it took 3."""


LOOK = 5.0
"""Seconds between two looks whether either is so."""


@contextmanager
def tracked_runs(store: str) -> Iterator[None]:
    """For the body of a sweep of `store`: no run of it, or of a killed one before it, is left open at the end.

    A sweep that is cancelled in Prefect is interrupted as by Ctrl-C, unless a worker of a work pool sees to that. So is
    one that Prefect takes for crashed, which raises RunError: there must not be two of it.
    """
    try:
        with _watching_prefect():
            yield from _accounted(store)
    except KeyboardInterrupt:
        if not marked_crashed.is_set():
            raise
        raise RunError("Prefect took this run for crashed while it lived; the next run of the store goes on") from None


def _accounted(store: str) -> Iterator[None]:
    of_store, of_process = f"store:{store}", _process_tag()
    with get_client(sync_client=True) as client:
        _close_orphans(client, of_store)
        client.update_flow_run(runtime.flow_run.id, tags=[*runtime.flow_run.tags, of_store, of_process])
    try:
        with tags(of_store, of_process):
            yield
    except BaseException:  # Ctrl-C too
        with get_client(sync_client=True) as client:
            _close_tasks(client, [of_process], _crashed("The sweep ended before it did."))
            time.sleep(1)  # what the server heard last; anything later is closed by the next sweep
            _close_tasks(client, [of_process], _crashed("The sweep ended before it did."))
        raise
    with get_client(sync_client=True) as client:
        _await_states(client, of_process)
        _close_tasks(client, [of_process], Completed(message="Its worker was lost before it could say so."))
        _close_orphans(client, of_store)


@contextmanager
def _watching_prefect() -> Iterator[None]:
    ends = {StateType.CRASHED: marked_crashed}
    if runtime.deployment.id is None:
        ends |= dict.fromkeys((StateType.CANCELLING, StateType.CANCELLED), cancelled_in_prefect)
    for event in ends.values():
        event.clear()
    flow_run = UUID(runtime.flow_run.id)

    def look(over: Event) -> None:
        while not over.wait(LOOK):
            with suppress(Exception), get_client(sync_client=True) as client:  # a server that is away for a while
                state = client.read_flow_run(flow_run).state
                if state and state.type in ends and not over.is_set():
                    ends[state.type].set()
                    os.kill(os.getpid(), signal.SIGINT)
                    return

    with background_thread(look):
        yield


def mark_cancelled(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """For the end of a sweep: Prefect takes what was interrupted for crashed."""
    if cancelled_in_prefect.is_set():
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Cancelled(message="What is done is in the store."), force=True)


def close_orphaned_runs(store: str) -> None:
    """For a command that finds nothing to do: a sweep that was killed behind its last commit is open in Prefect yet."""
    with get_client(sync_client=True) as client:
        _close_orphans(client, f"store:{store}")


def _process_tag() -> str:
    return f"process:{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def _await_states(client: SyncPrefectClient, tag: str) -> None:
    """Wait until the server knows the end of every task run of a sweep that has ended well."""
    deadline = time.monotonic() + STATES_ARRIVE
    while _open_tasks(client, [tag]) and time.monotonic() < deadline:
        time.sleep(0.2)


def _close_orphans(client: SyncPrefectClient, of_store: str) -> None:
    """Close what sweeps of a store left open whose process is gone."""
    crashed = _crashed("Its process was killed.")
    flow_runs = _flows(client, tags={"all_": [of_store]}, state=OPEN)
    ids = sorted({str(run.flow_run_id) for run in _open_tasks(client, [of_store])})
    known = [*flow_runs, *(_flows(client, id={"any_": ids}) if ids else [])]
    processes = {tag for run in known for tag in run.tags if tag.startswith("process:")}
    dead = {tag for tag in processes if _is_gone(tag) or _is_over(client, [of_store, tag])}
    for tag in sorted(dead):
        _close_tasks(client, [of_store, tag], crashed)
    for run in flow_runs:
        if dead.intersection(run.tags):
            client.set_flow_run_state(run.id, crashed, force=True)


def _close_tasks(client: SyncPrefectClient, having: list[str], state: Any) -> None:
    while page := _open_tasks(client, having):
        for run in page:
            client.set_task_run_state(run.id, state, force=True)


def _open_tasks(client: SyncPrefectClient, having: list[str]) -> list[TaskRun]:
    """Of flow runs with these tags. One page, which is more than a sweep has at a time."""
    return client.read_task_runs(
        flow_run_filter=FlowRunFilter.model_validate({"tags": {"all_": having}}),
        task_run_filter=TaskRunFilter.model_validate({"state": OPEN}),
    )


def _flows(client: SyncPrefectClient, **wanted: Any) -> list[FlowRun]:
    return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted))


def _is_over(client: SyncPrefectClient, having: list[str]) -> bool:
    """Whether Prefect was told of the end of every sweep with these tags."""
    outermost = {"is_null_": True}
    states = [run.state for run in _flows(client, tags={"all_": having}, parent_task_run_id=outermost)]
    return bool(states) and all(state is not None and state.is_final() for state in states)


def _crashed(why: str) -> Any:
    return Crashed(message=f"{why} The next run of the same store goes on from there.")


CLOCK_STEP = 60.0
"""Seconds by which a corrected clock may move the start of a process."""


def _is_gone(tag: str) -> bool:
    """Whether the process that a tag names was on this host, and is no more."""
    _, host, pid, created = tag.split(":")
    return host == socket.gethostname() and not _lives(int(pid), created=created)


def _lives(pid: int, *, created: str) -> bool:
    """The same process, and not another that was given its number."""
    try:
        return pid == os.getpid() or abs(psutil.Process(pid).create_time() - int(created)) < CLOCK_STEP
    except psutil.NoSuchProcess:
        return False


def named_after_store(verb: str) -> Callable[[], str]:
    """Name flow runs after their store: `sweep-demo` for a run kept in `runs/demo`."""
    return lambda: f"{verb}-{PurePosixPath(runtime.flow_run.parameters['store']).name}"
