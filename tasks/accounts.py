"""No run of ours stays 'Running' in Prefect when it is not: not after Ctrl-C, not after kill -9, not for a lost worker.

Every sweep notes in its tags which process on which host it is. When it ends, it closes its own open task runs; before
it begins, those of earlier sweeps of the same store whose process is gone from this host. What lives, or ran elsewhere,
is left alone.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psutil
from prefect import runtime, tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed

OPEN = {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}}


@contextmanager
def accounted(store: str) -> Iterator[None]:
    """For the body of a sweep of `store`: no run of it, or of a killed one before it, is left open at the end."""
    me = psutil.Process()
    mine = {f"store:{store}", f"process:{socket.gethostname()}:{me.pid}:{me.create_time():.0f}"}
    with get_client(sync_client=True) as client:
        for orphan in _flow_runs(client, {f"store:{store}"}, state=OPEN):
            if _is_gone(orphan.tags):
                _close_tasks(client, orphan.id, "Its flow process was killed.")
                client.set_flow_run_state(orphan.id, _crashed("Its process was killed."), force=True)
        client.update_flow_run(runtime.flow_run.id, tags=[*runtime.flow_run.tags, *mine])
    try:
        with tags(*mine):
            yield
    except BaseException:  # Ctrl-C too; at a good end there is nothing to close, only states still on their way
        with get_client(sync_client=True) as client:
            for run in _flow_runs(client, mine):
                _close_tasks(client, run.id, "The sweep ended before it did.")
        raise


def _flow_runs(client: SyncPrefectClient, having: set[str], **filters: Any) -> list[FlowRun]:
    wanted = FlowRunFilter.model_validate({"tags": {"all_": sorted(having)}} | filters)
    return client.read_flow_runs(flow_run_filter=wanted)


def _close_tasks(client: SyncPrefectClient, flow_run: UUID, why: str) -> None:
    of_this = FlowRunFilter.model_validate({"id": {"any_": [flow_run]}})
    for task_run in client.read_task_runs(
        task_run_filter=TaskRunFilter.model_validate({"state": OPEN}), flow_run_filter=of_this
    ):
        client.set_task_run_state(task_run.id, _crashed(why), force=True)


def _crashed(why: str) -> Any:
    return Crashed(message=f"{why} The next run of the same store goes on from there.")


CLOCK_STEP = 60.0
"""Seconds by which a corrected clock may move the start of a process."""


def _is_gone(tags: list[str]) -> bool:
    """Whether the process that a sweep was tagged with was on this host, and is no more."""
    for tag in tags:
        kind, *rest = tag.split(":")
        if kind == "process" and rest[0] == socket.gethostname():
            return not _lives(int(rest[1]), created=rest[2])
    return False


def _lives(pid: int, *, created: str) -> bool:
    """The same process, and not another that was given its number."""
    try:
        return pid == os.getpid() or abs(psutil.Process(pid).create_time() - int(created)) < CLOCK_STEP
    except psutil.NoSuchProcess:
        return False
