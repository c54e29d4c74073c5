"""Dispatch of missing shards on a real Dask cluster in this process, with a real Prefect server."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from uuid import uuid4

import httpx
import pytest
from distributed import Client
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

from netsim.stages.work import StageResult
from netsim.store.run import Run
from netsim.store.stages import Stage
from support.sweeps import new_run, tiny
from tasks import artifacts, dispatch, interrupts, worker
from tasks.cancellation import CancellationCheck
from tasks.devices import GPU
from tasks.dispatch import LOST, PASSES, TASKS_PER_THREAD, _cancel_waiting, dask_client
from tasks.worker import OPTIONS


def test_blocks_that_no_worker_has_begun_are_cancelled(tmp_path):
    """After an error that the next block would meet too. A block that a worker has begun is finished, one that has
    ended keeps its result; one that waits in the worker for its GPU has not begun.
    """
    begun, release = tmp_path / "begun", tmp_path / "release"

    def wait_for(path: Path) -> None:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def work(number: int) -> int:
        if number == 1:
            begun.touch()
            wait_for(release)
        return number

    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with Client(**options, resources=GPU) as client:
        # priorities: Dask promises no order
        futures = [client.submit(work, number, resources=GPU, priority=-number) for number in range(20)]
        wait_for(begun)
        _cancel_waiting([PrefectDaskFuture(uuid4(), future) for future in futures])
        release.touch()
        assert [future.result() for future in futures[:2]] == [0, 1]
        for future in futures[2:]:
            with pytest.raises(LOST):
                future.result()
        _cancel_waiting([])


SHARDS = 16


def slow_first(run: Run, name: str, shard: int) -> StageResult:
    """Compute nothing; the first shard ends when all others are done."""
    deadline = time.monotonic() + 120
    while shard == 0 and name == "slow" and len(run.done("queue")) < SHARDS - 1:
        if time.monotonic() > deadline:
            raise TimeoutError("the first shard waits for the others")
        time.sleep(0.1)
    return StageResult()


def queue_stage(name: str) -> Stage:
    """Make a stage with the shards of `slow`, whose first one waits for all others, or of another name."""
    return Stage("queue", "Shards of a queue", lambda _sweep: {name: SHARDS}, compute=slow_first)


@task(name="queue", **OPTIONS)
def queue(store: str, name: str, numbers: list[int], sweep: str) -> dict[str, int]:
    return worker.run_block(store, queue_stage(name), name, numbers, sweep)


@flow
def finish_queue(store: str, name: str) -> int:
    """Finish the stage, and count the futures that the client still holds."""
    dispatch.finish(Run.open(store), queue, stage=queue_stage(name))
    return len(dask_client().futures)


@contextmanager
def workers(server: dict[str, str], threads: int) -> Iterator[DaskTaskRunner]:
    with (
        temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}),
        Client(n_workers=1, threads_per_worker=threads, processes=False, dashboard_address=":0") as client,
    ):
        yield DaskTaskRunner(address=client.scheduler.address)


def test_a_slow_shard_holds_up_no_other_and_no_future_is_kept(server, tmp_path, monkeypatch):
    """Few blocks are in progress at a time, but enough for every thread; futures that ended are dropped, or memory
    would grow.
    """
    run, held, settle = new_run(str(tmp_path / "run"), tiny()), [], dispatch._settle

    def counted(future):
        held.append(len(dask_client().futures))
        return settle(future)

    monkeypatch.setattr(dispatch, "WINDOW", 1)
    monkeypatch.setattr(dispatch, "_settle", counted)
    with workers(server, threads=2) as runner:
        kept = finish_queue.with_options(task_runner=runner)(run.url, "slow")
    assert len(run.done("queue")) == SHARDS
    assert (max(held), kept) == (2 * TASKS_PER_THREAD, 0)
    key = {"artifacts": {"key": {"any_": ["run-queue"]}}}
    (artifact,) = httpx.post(f"{server['PREFECT_API_URL']}/artifacts/filter", json=key).json()
    assert artifact["data"] == 100


def test_workers_that_have_to_leave_cost_a_shard_no_attempt(server, tmp_path, monkeypatch):
    """However many there are: each job of SLURM ends some time."""
    run, may_begin, begun = new_run(str(tmp_path / "run"), tiny()), CancellationCheck.may_begin, []

    def seldom(check: CancellationCheck, shard: int) -> bool:
        begun.append(shard)
        check.leaves = shard == 0 and begun.count(0) <= 2 * PASSES
        return may_begin(check, shard) and not check.leaves

    monkeypatch.setattr(CancellationCheck, "may_begin", seldom)
    with workers(server, threads=2) as runner:
        finish_queue.with_options(task_runner=runner)(run.url, "slow")
    assert len(run.done("queue")) == SHARDS and begun.count(0) == 2 * PASSES + 1


def test_a_ctrl_c_that_a_library_turns_into_an_error_of_its_own_ends_the_sweep(server, tmp_path, monkeypatch):
    """Here a client that was reporting progress to the server."""
    run, pressed = new_run(str(tmp_path / "run"), tiny()), []

    def press(*_, **__):
        pressed.append("in the middle of a request")
        interrupts.interrupted.set()
        raise httpx.ReadError("interrupted")

    monkeypatch.setattr(artifacts, "_create", press)
    monkeypatch.setattr(interrupts, "interrupted", Event())
    with workers(server, threads=1) as runner, pytest.raises(KeyboardInterrupt):
        finish_queue.with_options(task_runner=runner)(run.url, "fast")
    assert pressed == ["in the middle of a request"]
