"""Execution of one task run, without a server or a cluster."""

import logging
from dataclasses import replace

import pytest
from prefect.exceptions import MissingContextError
from prefect.states import exception_to_failed_state
from prefect.utilities.asyncutils import run_coro_as_sync

from netsim.cancellation import check_cancelled
from netsim.errors import StoreError, TaskCancelled, UnreachableError
from netsim.stages.work import ShardError, StageResult
from netsim.store.metadata import Metadata
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import EMBED, INVERT, Block, Stage
from support.sweeps import new_run, tiny
from tasks import worker
from tasks.cancellation import CancellationCheck
from tasks.worker import _summary, _worth_retrying, run_block, tags_of


def compute(run: Run, name: str, shard: int) -> StageResult:
    return StageResult(metadata=Metadata(median_loss=0.01234, device="cpu"))


STAGE = Stage("queue", "Shards of a queue", lambda _: {"one": 6}, compute=compute)


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr(worker, "get_run_logger", lambda: logging.getLogger("a.task"))
    return new_run(str(tmp_path / "run"), tiny())


def counts(result: dict) -> tuple[int, int, int]:
    return result["computed"], result["skipped"], result["returned"]


def test_a_block_is_computed_but_for_what_the_store_has(run, caplog):
    with caplog.at_level(logging.INFO, "a.task"):
        assert counts(run_block(run.url, STAGE, "one", [0, 2])) == (2, 0, 0)
        assert counts(run_block(run.url, STAGE, "one", [0, 1, 2, 3])) == (2, 2, 0)
    assert set(run.done("queue")) == {("one", shard) for shard in range(4)}
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("queue one shard 0 took ") and messages[0].endswith(" s, median_loss 0.01234")
    assert messages[-1].startswith("2 shards in ")


def test_what_a_leaving_worker_has_no_time_for_is_returned(run, monkeypatch):
    def may_begin(check: CancellationCheck, shard: int) -> bool:
        check.shard, check.leaves = shard, shard == 3
        return not check.leaves

    monkeypatch.setattr(CancellationCheck, "may_begin", may_begin)
    run_block(run.url, STAGE, "one", [1])
    assert counts(run_block(run.url, STAGE, "one", [0, 1, 2, 3, 4])) == (2, 1, 2)
    assert set(run.done("queue")) == {("one", shard) for shard in range(3)}


def test_a_task_that_is_cancelled_ends_in_that_state_and_says_how_far_it_came(run, monkeypatch):
    def check(self: CancellationCheck) -> None:
        if self.shard == 1:
            raise TaskCancelled("the task was dropped")

    def long(run: Run, name: str, shard: int) -> StageResult:
        check_cancelled()
        return StageResult()

    monkeypatch.setattr(CancellationCheck, "__call__", check)
    state = run_block(run.url, replace(STAGE, compute=long), "one", [0, 1, 2])
    assert state.is_cancelled() and state.message == "the task was dropped; 0 of 3 shards were computed"


def test_an_unexpected_error_names_the_shard_and_the_worker(run, monkeypatch):
    def fail(run: Run, name: str, shard: int) -> StageResult:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(CancellationCheck, "worker", "tcp://127.0.0.1:1")
    with pytest.raises(ShardError, match="queue one 4: RuntimeError: an illegal memory access") as caught:
        run_block(run.url, replace(STAGE, compute=fail), "one", [4])
    assert caught.value.unit == ("queue", "one", 4) and caught.value.worker == "tcp://127.0.0.1:1"


def test_a_block_is_computed_inside_a_task_run_only(tmp_path):
    """Elsewhere its log would be lost."""
    run = new_run(str(tmp_path / "run"), tiny())
    with pytest.raises(MissingContextError):
        run_block(run.url, STAGE, "one", [0])


@pytest.mark.parametrize(
    ("error", "again"), [(StoreError("full"), False), (ConnectionError("gone"), True), (UnreachableError("gone"), True)]
)
def test_only_errors_that_may_pass_are_retried(error, again):
    """The same settings meet the same full disk; a network comes back."""
    state = run_coro_as_sync(exception_to_failed_state(error))
    assert _worth_retrying(None, None, state) is again


def test_task_runs_are_tagged_with_their_stage_and_network():
    networks = ("vgg", "wrn2")
    assert tags_of(INVERT, Block("vgg", [0]), networks) == ["stage:invert", "network:vgg"]
    assert tags_of(EMBED, Block("inverted/wrn2/0123456789ab", [0]), networks) == ["stage:embed", "network:wrn2"]
    assert tags_of(EMBED, Block("natural/0123456789ab", [0]), networks) == ["stage:embed"]


def test_the_summary_of_a_record_has_its_seconds_and_its_numbers(run):
    run_block(run.url, STAGE, "one", [0])
    record: Record = replace(run.record("queue", "one", 0), seconds=12.34)
    assert _summary(record) == "12.3 s, median_loss 0.01234"
