"""Which runs in Prefect belong to dead processes. tests/system/test_flow_sweep.py asks a real server."""

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
from prefect.states import Completed, Failed, Running

from netsim.errors import RunError
from tasks import prefect_runs
from tasks.interrupts import cancelled_in_prefect, interrupted, marked_crashed
from tasks.prefect_runs import _is_gone, latest_flow, mark_cancelled, named_after_store, tracked_runs
from tasks.processes import this_process


def test_a_run_of_this_process_is_left_alone_and_one_of_a_process_that_ended_is_not():
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        created = psutil.Process(process.pid).create_time()
    this = this_process()
    assert not _is_gone(str(this))
    assert _is_gone(str(this._replace(pid=process.pid, created=round(created))))


@pytest.mark.parametrize("tag", ["process:elsewhere:1:1", "process:elsewhere:0:0:0:1:1", "stage:invert"])
def test_a_run_of_an_older_version_or_of_another_machine_is_left_alone(tag):
    assert not _is_gone(tag)


@pytest.mark.parametrize(
    ("store", "name"), [("runs/demo", "sweep-demo"), ("/runs/demo/", "sweep-demo"), ("s3://bucket/a/b", "sweep-b")]
)
def test_flow_runs_are_named_after_the_last_part_of_their_store(store, name, monkeypatch):
    flow_run = SimpleNamespace(parameters={"store": store})
    monkeypatch.setattr(prefect_runs, "runtime", SimpleNamespace(flow_run=flow_run))
    assert named_after_store("sweep")() == name


class Client:
    """A client of a server that remembers the states it is given, and whose flow run is in `state`."""

    def __init__(self, state: str = "RUNNING") -> None:
        self.states: list[str] = []
        self.state = state

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_flow_run(self, _: object) -> SimpleNamespace:
        return SimpleNamespace(state=SimpleNamespace(type=prefect_runs.StateType[self.state]))

    def read_flow_runs(self, **_: object) -> list:
        return []

    read_task_runs = read_flow_runs

    def update_flow_run(self, *_: object, **__: object) -> None:
        pass

    def set_flow_run_state(self, _: object, state: SimpleNamespace, *, force: bool) -> None:
        self.states.append(state.name)


@pytest.mark.parametrize(
    ("state", "gone", "shown", "running"),
    [
        (Running(), False, "Running", True),
        (Running(), True, "Killed", False),
        (Failed(message="RunError: 3 shards failed\nand a traceback"), True, "Failed", False),
        (Completed(), True, "Completed", False),
    ],
)
def test_the_latest_flow_of_a_store_is_told_with_its_state(state, gone, shown, running, monkeypatch):
    run = SimpleNamespace(name="sweep-tiny", id=7, state=state, tags=["store:x", "process:gone" if gone else "a"])
    client = Client()
    client.read_flow_runs = lambda **_: [run]
    monkeypatch.setattr(prefect_runs, "get_client", lambda **_: client)
    monkeypatch.setattr(prefect_runs, "_is_gone", lambda tag: tag == "process:gone")
    flow = latest_flow("x")
    assert flow is not None and (flow.name, flow.id, flow.state, flow.running) == ("sweep-tiny", "7", shown, running)
    assert flow.message == ("RunError: 3 shards failed" if shown == "Failed" else "")


def test_a_store_without_flows_has_no_latest_one(monkeypatch):
    monkeypatch.setattr(prefect_runs, "get_client", lambda **_: Client())
    assert latest_flow("x") is None


@pytest.mark.parametrize("reason", [cancelled_in_prefect, interrupted, marked_crashed])
def test_a_flow_that_the_user_stopped_is_cancelled_and_one_that_prefect_gave_up_is_not(reason, monkeypatch):
    client = Client()
    monkeypatch.setattr(prefect_runs, "get_client", lambda **_: client)
    reason.set()
    try:
        mark_cancelled(None, SimpleNamespace(id="a flow run"), None)
    finally:
        reason.clear()
    assert client.states == ([] if reason is marked_crashed else ["Cancelled"])


@pytest.mark.parametrize(
    ("state", "error"), [("CANCELLING", KeyboardInterrupt), ("CANCELLED", KeyboardInterrupt), ("CRASHED", RunError)]
)
def test_a_sweep_whose_flow_run_was_ended_in_prefect_is_interrupted(state, error, monkeypatch):
    flow_run = SimpleNamespace(id="00000000-0000-0000-0000-000000000000", tags=[])
    monkeypatch.setattr(prefect_runs, "landing_run", lambda: flow_run.id)
    runtime = SimpleNamespace(flow_run=flow_run, deployment=SimpleNamespace(id=None))
    monkeypatch.setattr(prefect_runs, "runtime", runtime)
    monkeypatch.setattr(prefect_runs, "get_client", lambda **_: Client(state))
    monkeypatch.setattr(prefect_runs, "POLL_INTERVAL", 0.01)
    monkeypatch.setattr(prefect_runs.time, "sleep", lambda _: None)
    try:
        with pytest.raises(error), tracked_runs("/runs/demo"):
            prefect_runs.Event().wait(60)
        assert cancelled_in_prefect.is_set() is (state != "CRASHED") and marked_crashed.is_set() is (state == "CRASHED")
    finally:
        cancelled_in_prefect.clear()
        marked_crashed.clear()
