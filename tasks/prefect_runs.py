"""Keep the states of flow and task runs in Prefect true: no run stays 'Running' after Ctrl-C, kill -9 or a lost worker.

Workers report their task runs by events, which a killed worker takes with it and a busy server records late, even after
the flow has ended. So each flow run of a sweep is tagged with its store and its process, and every sweep, when it
begins and when it ends, closes the runs that dead processes left open for the same store. A process is known to be dead
if it is certainly gone (tasks/processes.py), or if Prefect knows the end of its sweep (deploy/automations.yaml marks a
sweep as crashed whose machine is gone, but not its task runs). Runs of processes that may be alive are left alone: of a
sweep that was killed in another container or on another machine, Prefect must be told the end.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any, NamedTuple
from uuid import UUID

import httpx
from prefect import runtime, tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Completed, Crashed

from netsim.errors import RunError
from tasks.interrupts import cancelled_in_prefect, interrupted, marked_crashed
from tasks.landing import landing_run, run_page, store_name
from tasks.logs import announcements
from tasks.processes import PREFIX, is_gone, parse_tag, this_process
from tasks.threads import background_thread

OPEN = {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}}
"""Filter for runs that have not ended."""

STATE_TIMEOUT = 20.0
"""Maximum seconds to wait for the last states of a sweep to reach the server; on two busy cores they took 3."""

POLL_INTERVAL = 5.0
"""Seconds between two requests for the state of the sweep's own flow run."""


@contextmanager
def tracked_runs(store: str) -> Iterator[None]:
    """Track the Prefect runs of a sweep of `store` during the block, and leave none of them open at the end.

    Runs that a killed sweep of the same store left open are closed too. If the sweep is cancelled in Prefect, it is
    interrupted as by Ctrl-C, unless a worker of a work pool does that.

    Raises
    ------
    RunError
        If Prefect marked the sweep as crashed while it was running: the sweep ends, so that there are never two.
    """
    announcements.info("follow it at %s", run_page(landing_run()))
    try:
        with _watch_state(), _close_at_end(store):
            yield
    except KeyboardInterrupt:
        if not marked_crashed.is_set():
            raise
        raise RunError(
            "Prefect marked this run as crashed while it was running; run the command again to resume"
        ) from None


@contextmanager
def _close_at_end(store: str) -> Iterator[None]:
    store_tag, process_tag = f"store:{store}", str(this_process())
    with get_client(sync_client=True) as client:
        _close_orphans(client, store_tag)
        client.update_flow_run(runtime.flow_run.id, tags=[*runtime.flow_run.tags, store_tag, process_tag])
    try:
        with tags(store_tag, process_tag):
            yield
    except httpx.TransportError:  # the server is away, and each request would be repeated for a minute
        raise
    except BaseException:  # including Ctrl-C
        with suppress(httpx.HTTPError), get_client(sync_client=True) as client:  # this must not hide the reason
            _close_tasks(client, [process_tag], _crashed("The sweep ended before this task run."))
            time.sleep(1)  # for states that are on their way; the next sweep closes what arrives later
            _close_tasks(client, [process_tag], _crashed("The sweep ended before this task run."))
        raise
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:  # all is computed; the next sweep closes
        _wait_for_states(client, process_tag)
        _close_tasks(client, [process_tag], Completed(message="Its worker was lost before it reported this."))
        _close_orphans(client, store_tag)


@contextmanager
def _watch_state() -> Iterator[None]:
    """Interrupt this process when Prefect ends its flow run."""
    reactions = {StateType.CRASHED: marked_crashed}
    if runtime.deployment.id is None:
        reactions |= dict.fromkeys((StateType.CANCELLING, StateType.CANCELLED), cancelled_in_prefect)
    for event in reactions.values():
        event.clear()
    flow_run = UUID(runtime.flow_run.id)

    def poll(finished: Event) -> None:
        while not finished.wait(POLL_INTERVAL):
            with suppress(Exception), get_client(sync_client=True) as client:  # the server may be away for a while
                state = client.read_flow_run(flow_run).state
                if state and state.type in reactions and not finished.is_set():
                    reactions[state.type].set()
                    os.kill(os.getpid(), signal.SIGINT)
                    return

    with background_thread(poll):
        yield


def mark_cancelled(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """Mark a flow that the user stopped as Cancelled: a hook, since Prefect takes every interrupt for a crash."""
    if not (cancelled_in_prefect.is_set() or interrupted.is_set()):
        return
    how = "Cancelled in Prefect" if cancelled_in_prefect.is_set() else "Stopped by Ctrl-C or another signal"
    state = Cancelled(message=f"{how}. Completed shards are in the store, and the next run resumes.")
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:  # this must not hide the reason
        client.set_flow_run_state(flow_run.id, state, force=True)


def close_orphaned_runs(store: str) -> None:
    """Close the runs that dead processes left open for a store.

    Called by commands that find nothing to do: a sweep may have been killed after its last commit.
    """
    with get_client(sync_client=True) as client:
        _close_orphans(client, f"store:{store}")


class LatestFlow(NamedTuple):
    """The flow run on a store that began last.

    Attributes
    ----------
    state
        Name of its state, such as Running; "Killed" if it is open but its process is gone.
    since
        Time of its state, in ISO format.
    message
        Why it is in this state, such as the error of a failed one.
    """

    name: str
    id: str
    state: str
    since: str
    message: str

    @property
    def running(self) -> bool:
        """True if it has not ended."""
        return self.state.upper() in OPEN["type"]["any_"]


def latest_flow(store: str) -> LatestFlow | None:
    """Return the flow run on a store that began last; None if the server knows none."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate(
                {"tags": {"all_": [f"store:{store}"]}, "parent_task_run_id": {"is_null_": True}}
            ),
            sort=FlowRunSort.START_TIME_DESC,
            limit=1,
        )
    if not runs or runs[0].state is None:
        return None
    run, state = runs[0], runs[0].state
    killed = not state.is_final() and any(_is_gone(tag) for tag in run.tags)
    name = "Killed" if killed else state.type.value.capitalize()
    return LatestFlow(
        run.name, str(run.id), name, state.timestamp.isoformat(), (state.message or "").partition("\n")[0]
    )


def _wait_for_states(client: SyncPrefectClient, tag: str) -> None:
    """Wait until the server knows the end of every task run of a sweep that succeeded."""
    deadline = time.monotonic() + STATE_TIMEOUT
    while _open_tasks(client, [tag]) and time.monotonic() < deadline:
        time.sleep(0.2)


def _close_orphans(client: SyncPrefectClient, store_tag: str) -> None:
    """Close the runs of a store whose process is dead."""
    crashed = _crashed("Its process was killed.")
    flow_runs = _flow_runs(client, tags={"all_": [store_tag]}, state=OPEN)
    ids = sorted({str(run.flow_run_id) for run in _open_tasks(client, [store_tag])})
    known = [*flow_runs, *(_flow_runs(client, id={"any_": ids}) if ids else [])]
    processes = {tag for run in known for tag in run.tags if tag.startswith(f"{PREFIX}:")}
    dead = {tag for tag in processes if _is_gone(tag) or _has_ended(client, [store_tag, tag])}
    for tag in sorted(dead):
        _close_tasks(client, [store_tag, tag], crashed)
    for run in flow_runs:
        if dead.intersection(run.tags):
            client.set_flow_run_state(run.id, crashed, force=True)


def _close_tasks(client: SyncPrefectClient, flow_tags: list[str], state: Any) -> None:
    while page := _open_tasks(client, flow_tags):
        for run in page:
            client.set_task_run_state(run.id, state, force=True)


def _open_tasks(client: SyncPrefectClient, flow_tags: list[str]) -> list[TaskRun]:
    """List open task runs of flow runs with these tags: one page, which is more than a sweep has at a time."""
    return client.read_task_runs(
        flow_run_filter=FlowRunFilter.model_validate({"tags": {"all_": flow_tags}}),
        task_run_filter=TaskRunFilter.model_validate({"state": OPEN}),
    )


def _flow_runs(client: SyncPrefectClient, **filters: Any) -> list[FlowRun]:
    return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(filters))


def _has_ended(client: SyncPrefectClient, flow_tags: list[str]) -> bool:
    """Tell whether Prefect knows the end of every sweep with these tags."""
    outermost = {"is_null_": True}
    states = [run.state for run in _flow_runs(client, tags={"all_": flow_tags}, parent_task_run_id=outermost)]
    return bool(states) and all(state is not None and state.is_final() for state in states)


def _crashed(reason: str) -> Any:
    return Crashed(message=f"{reason} The next run of the same store resumes.")


def _is_gone(tag: str) -> bool:
    """Tell whether the tag names a process that has certainly ended."""
    process = parse_tag(tag)
    return process is not None and is_gone(process)


def named_after_store(verb: str) -> Callable[[], str]:
    """Return a function that names flow runs after their store: `sweep-demo` for a run at `runs/demo`."""
    return lambda: f"{verb}-{store_name(runtime.flow_run.parameters['store'])}"
