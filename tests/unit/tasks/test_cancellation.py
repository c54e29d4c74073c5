"""Checks of a task against its worker, which is a fake here; tests/system/test_workers.py has real ones."""

import time
from types import SimpleNamespace

import psutil
import pytest

from netsim.errors import RunError, TaskCancelled
from netsim.store.stages import INVERT, TRAIN, Stage
from tasks import cancellation
from tasks.cancellation import HANDOVER, SAFETY_FACTOR, CancellationCheck


class Worker:
    """A Dask worker with one task, that ends `remaining` seconds from now after `lifetime` seconds in all."""

    address = "tcp://127.0.0.1:1"

    def __init__(self, remaining: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.task = SimpleNamespace(state="executing")
        self.state = SimpleNamespace(tasks={"key": self.task})
        self.callbacks: list = []
        self.loop = SimpleNamespace(add_callback=lambda *call: self.callbacks.append(call))
        age = time.time() - psutil.Process().create_time()
        self.lifetime = None if remaining is None else age + remaining
        monkeypatch.setattr(cancellation, "get_worker", lambda: self)
        monkeypatch.setattr(cancellation, "thread_state", SimpleNamespace(key="key"))
        monkeypatch.setattr(cancellation, "_durations", {})

    def check(self, stage: Stage = INVERT) -> CancellationCheck:
        return CancellationCheck(stage)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A monotonic clock that stands still; `now` moves it."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(cancellation.time, "monotonic", lambda: clock.now)
    return clock


@pytest.mark.parametrize("dropped", ["cancelled", "forgotten"])
def test_a_task_that_dask_dropped_is_cancelled(dropped, monkeypatch, clock):
    worker = Worker(None, monkeypatch)
    check = worker.check()
    check()
    if dropped == "cancelled":
        worker.task.state = "cancelled"
    else:
        worker.state.tasks.clear()
    clock.now += 1.5
    with pytest.raises(TaskCancelled, match="its flow was cancelled or died"):
        check()


def test_the_worker_is_checked_once_a_second_however_often_work_calls(monkeypatch, clock):
    worker = Worker(None, monkeypatch)
    check = worker.check()
    check()
    worker.state.tasks.clear()
    for _ in range(9):
        clock.now += 0.1
        check()
    clock.now += 0.2
    with pytest.raises(TaskCancelled):
        check()


def test_a_shard_is_begun_if_the_worker_lives_longer_than_the_last_one_took(monkeypatch):
    worker = Worker(60.0, monkeypatch)
    assert worker.check().may_begin(0)  # nothing is known of this stage yet
    for seconds, expected in ((40.0, True), (60.0, False), (1.0, True)):
        worker.check().record_duration(seconds)
        assert (SAFETY_FACTOR * seconds + HANDOVER < 60) is expected
        check = worker.check()  # of a later task
        assert check.may_begin(7) is expected
        assert check.leaves is not expected and check.shard == 7
    assert len(worker.callbacks) == 1  # it left once
    worker.check(INVERT).record_duration(60.0)
    assert worker.check(TRAIN).may_begin(0)  # durations are those of a stage


def test_a_worker_without_a_lifetime_begins_every_shard(monkeypatch):
    worker = Worker(None, monkeypatch)
    check = worker.check()
    check.record_duration(1e9)
    assert check.may_begin(0) and not check.leaves


def test_a_shard_that_outlasts_a_worker_fails_unless_its_stage_resumes(monkeypatch, clock):
    """A shard that was begun late in the worker's life is left to the next worker."""
    worker = Worker(1.0, monkeypatch)
    worker.lifetime = max(worker.lifetime, 100.0)
    monkeypatch.setattr(CancellationCheck, "_remaining", lambda self: 1.0)
    late, resumed, whole = worker.check(), worker.check(TRAIN), worker.check()
    monkeypatch.setattr(worker, "lifetime", 600.0)
    for check in (late, resumed, whole):
        check._checked = clock.now - 2
        check.shard = 3
    late._began, resumed._began, whole._began = clock.now - 10, clock.now - 599, clock.now - 599
    late()
    resumed()
    message = r"invert shard 3 was not finished after 10.0 minutes, but a worker lives for 10.0 \(the walltime minus"
    with pytest.raises(RunError, match=message):
        whole()


def test_outside_a_worker_every_check_passes():
    check = CancellationCheck(INVERT)
    check()
    assert check.may_begin(0) and check.worker is None
