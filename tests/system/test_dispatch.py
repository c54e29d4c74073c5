"""How missing shards become task runs."""

import time
from threading import Event
from uuid import uuid4

import httpx
import pytest
from distributed import Client
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

from netsim.errors import StoreError, UnreachableError
from netsim.stages.work import StageResult
from netsim.store.run import Run
from netsim.store.stages import EMBED, INVERT, TRAIN, Block, Stage, blocks
from support.sweeps import tiny
from tasks import artifacts, dispatch, interrupts, worker
from tasks.cancellation import CancellationCheck
from tasks.devices import GPU
from tasks.dispatch import LOST, PASSES, TASKS_PER_THREAD, _cancel_waiting, dask_client, slowest_first
from tasks.worker import OPTIONS, _worth_retrying, tags_of


def test_a_block_holds_shards_of_one_name_in_order():
    missing = [("vgg", 0), ("vgg", 1), ("vgg", 4), ("wrn2", 2), ("wrn2", 3)]
    assert list(blocks(missing, 2)) == [Block("vgg", [0, 1]), Block("vgg", [4]), Block("wrn2", [2, 3])]
    assert list(blocks(missing, 100)) == [Block("vgg", [0, 1, 4]), Block("wrn2", [2, 3])]
    assert list(blocks([], 2)) == []


@pytest.mark.parametrize(
    ("error", "again"), [(StoreError("full"), False), (ConnectionError("gone"), True), (UnreachableError("gone"), True)]
)
def test_only_what_may_pass_is_tried_again(error, again):
    """The same settings meet the same full disk; a network comes back."""
    from prefect.states import exception_to_failed_state
    from prefect.utilities.asyncutils import run_coro_as_sync

    state = run_coro_as_sync(exception_to_failed_state(error))
    assert _worth_retrying(None, None, state) is again


def test_blocks_that_no_worker_has_begun_are_given_up():
    """After a fault that the next block would meet too. What a worker has begun is seen through; what waits in it for
    its GPU is not begun.
    """

    def work(number: int) -> int:
        time.sleep(1)
        return number

    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with Client(**options, resources=GPU) as client:
        futures = [client.submit(work, number, resources=GPU) for number in range(20)]
        while not client.processing():
            time.sleep(0.01)
        time.sleep(0.2)
        _cancel_waiting([PrefectDaskFuture(uuid4(), future) for future in futures])
        assert futures[0].result() == 0
        for future in futures[2:]:
            with pytest.raises(LOST):
                future.result()
        _cancel_waiting([])


SHARDS = 16


def slow_first(run: Run, name: str, shard: int) -> StageResult:
    """The first shard ends when all others are done."""
    deadline = time.monotonic() + 120
    while shard == 0 and len(run.done("queue")) < SHARDS - 1:
        if time.monotonic() > deadline:
            raise TimeoutError("the others wait for the first")
        time.sleep(0.1)
    return StageResult()


QUEUE = Stage("queue", "Shards of a queue", lambda settings: {"one": SHARDS}, compute=slow_first)


@task(name="queue", **OPTIONS)
def queue(store: str, name: str, numbers: list[int]) -> dict[str, int]:
    return worker.run_block(store, QUEUE, name, numbers)


def test_a_slow_shard_holds_up_no_other_and_no_future_is_kept(server, tmp_path, monkeypatch):
    """Few are under way at a time, but enough for every thread; what has ended is dropped, or memory would grow."""
    run, held, settle = Run.create(str(tmp_path / "run"), tiny()), [], dispatch._settle

    def counted(future):
        held.append(len(dask_client().futures))
        return settle(future)

    @flow
    def all_of_it() -> int:
        dispatch.finish(run.url, queue, stage=QUEUE)
        return len(dask_client().futures)

    monkeypatch.setattr(dispatch, "WINDOW", 1)
    monkeypatch.setattr(dispatch, "_settle", counted)
    with (
        temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}),
        Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as client,
    ):
        left = all_of_it.with_options(task_runner=DaskTaskRunner(address=client.scheduler.address))()
    assert len(run.done("queue")) == SHARDS
    assert (max(held), left) == (2 * TASKS_PER_THREAD, 0)
    key = {"artifacts": {"key": {"any_": ["queue"]}}}
    (artifact,) = httpx.post(f"{server['PREFECT_API_URL']}/artifacts/filter", json=key).json()
    assert artifact["data"] == 100


def test_workers_that_have_to_leave_cost_a_shard_no_try(server, tmp_path, monkeypatch):
    """As many as there are: each job of SLURM ends some time."""
    run, may_begin, asked = Run.create(str(tmp_path / "run"), tiny()), CancellationCheck.may_begin, []

    def seldom(pulse: CancellationCheck, shard: int) -> bool:
        asked.append(shard)
        pulse.leaves = shard == 0 and asked.count(0) <= 2 * PASSES
        return may_begin(pulse, shard) and not pulse.leaves

    @flow
    def all_of_it() -> None:
        dispatch.finish(run.url, queue, stage=QUEUE)

    monkeypatch.setattr(CancellationCheck, "may_begin", seldom)
    with (
        temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}),
        Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as client,
    ):
        all_of_it.with_options(task_runner=DaskTaskRunner(address=client.scheduler.address))()
    assert len(run.done("queue")) == SHARDS and asked.count(0) == 2 * PASSES + 1


def test_a_ctrl_c_that_a_library_takes_for_an_error_of_its_own_ends_the_sweep(server, tmp_path, monkeypatch):
    """Here a client that was just telling the server of progress."""
    run, told = Run.create(str(tmp_path / "run"), tiny()), []

    def pressed(*_, **__):
        told.append("a bar")
        interrupts.interrupted.set()
        raise httpx.ReadError("interrupted")

    @flow
    def all_of_it() -> None:
        dispatch.finish(run.url, queue, stage=QUEUE)

    monkeypatch.setattr(artifacts, "create_progress_artifact", pressed)
    monkeypatch.setattr(interrupts, "interrupted", Event())
    with (
        temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}),
        Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as client,
        pytest.raises(KeyboardInterrupt),
    ):
        all_of_it.with_options(task_runner=DaskTaskRunner(address=client.scheduler.address))()
    assert told == ["a bar"]


def test_task_runs_are_tagged_with_their_stage_and_network():
    networks = ("vgg", "wrn2")
    assert tags_of(INVERT, Block("vgg", [0]), networks) == ["stage:invert", "network:vgg"]
    assert tags_of(EMBED, Block("inverted/wrn2", [0]), networks) == ["stage:embed", "network:wrn2"]
    assert tags_of(EMBED, Block("natural", [0]), networks) == ["stage:embed"]


def test_inversions_of_the_slowest_network_come_first_and_those_of_a_network_stay_together(finished):
    seconds = {name: finished.record("train", name).seconds for name in finished.settings.names}
    ordered = slowest_first(finished, INVERT.every(finished.settings))
    slowest, *_, fastest = sorted(seconds, key=seconds.__getitem__, reverse=True)
    assert ordered[:4] == [(slowest, shard) for shard in range(4)]
    assert ordered[-4:] == [(fastest, shard) for shard in range(4)]
    assert slowest == "vgg"  # the one that is trained, and not only looked at
    assert len([block.name for block in blocks(ordered, 4)]) == 3


def test_a_bar_moves_every_few_seconds_at_most_and_once_more_at_the_end(finished, monkeypatch):
    """However many blocks end in between."""
    moved: list[float] = []
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda progress, **_: moved.append(progress) or uuid4())
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda _, progress, **__: moved.append(progress))
    with artifacts.stage_progress(finished, TRAIN, missing=3) as bar:
        bar.add(1)
        bar.add(1)
        assert moved == [0]
        monkeypatch.setattr(artifacts, "PROGRESS_INTERVAL", 0.0)
        bar._bar_due = 0.0
        bar.add(0)
        bar.add(1)
    assert moved == [0, pytest.approx(200 / 3), 100, 100]
