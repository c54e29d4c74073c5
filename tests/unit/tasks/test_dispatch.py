"""Which units are submitted in which order, and what becomes of those that fail. tests/system has real workers."""

import logging
from types import SimpleNamespace

import pytest
from distributed import KilledWorker

from netsim.errors import RunError
from netsim.stages.work import ShardError
from netsim.store.quarantine import quarantine, quarantined
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, INVERT, Block, blocked_goals, blocks
from support.sweeps import new_run, tiny
from tasks import dispatch
from tasks.dispatch import Failures, _missing, _quarantine, _require_explained, require_none_quarantined, slowest_first


def test_a_block_holds_shards_of_one_name_in_order():
    missing = [("vgg", 0), ("vgg", 1), ("vgg", 4), ("wrn2", 2), ("wrn2", 3)]
    assert list(blocks(missing, 2)) == [Block("vgg", [0, 1]), Block("vgg", [4]), Block("wrn2", [2, 3])]
    assert list(blocks(missing, 100)) == [Block("vgg", [0, 1, 4]), Block("wrn2", [2, 3])]
    assert list(blocks([], 2)) == []


def test_inversions_of_the_slowest_network_come_first_and_those_of_a_network_stay_together(finished):
    seconds = {name: finished.record("train", name).seconds for name in finished.settings.names}
    ordered = slowest_first(finished, INVERT.every(finished.sweep))
    slowest, *_, fastest = sorted(seconds, key=seconds.__getitem__, reverse=True)
    assert ordered[:4] == [(slowest, shard) for shard in range(4)]
    assert ordered[-4:] == [(fastest, shard) for shard in range(4)]
    assert slowest == "vgg"  # the one that is trained, and not only checked
    assert len([block.name for block in blocks(ordered, 4)]) == 3


@pytest.fixture
def run(tmp_path) -> Run:
    return new_run(str(tmp_path / "run"), tiny())


def test_what_a_quarantined_shard_blocks_is_missing_and_not_submitted(run):
    blocked = blocked_goals(run.sweep, [("invert", "vgg", 2)])
    count, units = _missing(run, INVERT, blocked)
    assert count == 12 and len(units) == 11 and ("vgg", 2) not in units
    count, units = _missing(run, AGGREGATE, blocked)
    rows = {AGGREGATE.goal(name) for name, _ in units}
    assert count == 6 and rows == set(dict(AGGREGATE.every(run.sweep))) - {"inverted/vgg"}


def shard_error(shard: int, worker: str) -> ShardError:
    error = ShardError("invert", "vgg", shard, "Traceback\nRuntimeError: an illegal memory access")
    error.worker = worker
    return error


def test_a_failure_is_that_of_its_shard_and_a_lost_worker_that_of_the_whole_block():
    failures, block = Failures(), Block("vgg", [0, 1, 2])
    failures.add(block, shard_error(1, "tcp://one"))
    failures.add(Block("vgg", [1]), shard_error(1, "tcp://two"))
    assert failures.errors.keys() == {("vgg", 1)}
    assert failures.workers_of(block) == {"tcp://one", "tcp://two"} and failures.workers_of(Block("vgg", [0])) == set()
    killed = KilledWorker("a task", SimpleNamespace(address="tcp://three"), 3)
    failures.add(Block("vgg", [2, 3]), killed)
    assert failures.errors.keys() == {("vgg", 1), ("vgg", 2), ("vgg", 3)} and failures.errors["vgg", 3] is killed
    assert failures.workers_of(Block("vgg", [3])) == {"tcp://three"}


def test_units_that_are_missing_without_an_error_end_the_stage():
    failures = Failures()
    failures.add(Block("vgg", [1]), shard_error(1, "tcp://one"))
    _require_explained(INVERT, [("vgg", 1)], failures)
    with pytest.raises(
        RunError, match=r"2 shards of invert are missing although .* the first invert vgg shard 2; run the"
    ):
        _require_explained(INVERT, [("vgg", 1), ("vgg", 2), ("vgg", 3)], failures)


def test_a_unit_is_quarantined_with_its_error_traceback_and_workers(run, monkeypatch, caplog):
    events: list[dict] = []
    monkeypatch.setattr(dispatch, "get_run_logger", lambda: logging.getLogger("a.flow"))
    monkeypatch.setattr(dispatch, "show_quarantined", lambda *_: None)
    monkeypatch.setattr(dispatch, "emit_event", lambda name, **event: events.append({"name": name} | event))
    failures = Failures()
    for worker in ("tcp://two", "tcp://one"):
        failures.add(Block("vgg", [1]), shard_error(1, worker))
    _quarantine(run, INVERT, [("vgg", 1)], failures)
    ((unit, reason),) = quarantined(run).items()
    assert unit == ("invert", "vgg", 1) and reason == {
        "error": "ShardError: invert vgg 1: RuntimeError: an illegal memory access",
        "traceback": "Traceback\nRuntimeError: an illegal memory access",
        "workers": ["tcp://one", "tcp://two"],
    }
    assert caplog.messages == [f"invert vgg shard 1 is quarantined: {reason['error']}"]
    (event,) = events
    assert event["name"] == "netsim.shards.set-aside"
    assert event["payload"] == {"stage": "invert", "shards": 1, "first": "invert vgg shard 1"}


def test_a_sweep_with_quarantined_shards_fails_with_the_first_and_their_number(run):
    require_none_quarantined(run)
    quarantine(run, ("invert", "vgg", 2), {"error": "RuntimeError: illegal"})
    with pytest.raises(
        RunError, match=r"^invert vgg shard 2 failed and is quarantined \(RuntimeError: illegal\); ever"
    ):
        require_none_quarantined(run)
    quarantine(run, ("invert", "vgg", 3), {"error": "RuntimeError: illegal"})
    with pytest.raises(RunError, match=r"^invert vgg shard 2 and 1 more failed and is quarantined"):
        require_none_quarantined(run)
