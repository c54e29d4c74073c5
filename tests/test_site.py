"""What a site survives: Prefect on PostgreSQL, a worker of a work pool, and the automations of deploy/automations.yaml.

`make site`: a quarter of an hour. It needs a package of Debian (tests/sites.py).
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from conftest import TINY, auth_of, netsim, run_all, wait_until
from sites import Postgres, Site, Worker
from test_deploy import DEPLOY, prefect_in
from test_flow_sweep import SLOW, alive, ask, assert_same_bits, inverted_shards, records, runs_of, task_runs_of

from netsim.config import parse_settings
from netsim.store import Run

pytestmark = [pytest.mark.site, pytest.mark.timeout(1200)]

SETTINGS = SLOW | {"inversion": {"iterations": 60, "batch_size": 8}}

RENEWAL = 0.75 * 300
"""Seconds after which a run of a deployment with a concurrency limit renews its lease of it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    database = Postgres()
    try:
        database.start()
        found = Site(tmp_path_factory.mktemp("site") / "prefect", database)
        try:
            found.start()
            yield found
        finally:
            found.kill()
    finally:
        database.stop()


@dataclass
class Deployed:
    """The deployment `demo` of prefect.yaml, deployed from a folder of its own, and its runs."""

    site: Site
    folder: Path
    environment: Mapping[str, str]
    id: str

    @property
    def store(self) -> Path:
        return self.folder / "runs" / "demo"

    def run(self, settings: Mapping[str, Any]) -> None:
        said = {"settings": settings, "cluster": {"kind": "local", "workers": 2, "shards_per_task": 2}}
        parameters = [part for name, value in said.items() for part in ("--param", f"{name}={json.dumps(value)}")]
        prefect_in(self.folder, self.environment)("deployment", "run", "sweep/demo", *parameters)

    def runs(self) -> list[dict[str, Any]]:
        """The newest last."""
        found = ask(self.environment, "flow_runs", deployments={"id": {"any_": [self.id]}})
        return sorted(found, key=lambda run: run["created"])

    def states(self) -> list[str]:
        return [run["state_name"] for run in self.runs()]


@pytest.fixture
def deployed(site: Site, tmp_path: Path) -> Iterator[Deployed]:
    environment = os.environ | site.environment | {"OMP_NUM_THREADS": "1"}
    prefect = prefect_in(tmp_path, environment)
    prefect("work-pool", "create", "laptop", "--type", "process", "--overwrite")
    prefect("--no-prompt", "deploy", "--prefect-file", str(DEPLOY / "prefect.yaml"), "--name", "demo")
    prefect("automation", "create", "--from-file", str(DEPLOY / "automations.yaml"))
    (found,) = (found for found in ask(environment, "deployments") if found["name"] == "demo")
    try:
        yield Deployed(site, tmp_path, environment, found["id"])
    finally:
        prefect("automation", "delete", "--all")
        prefect("deployment", "delete", "sweep/demo")


@pytest.fixture
def workers(deployed: Deployed) -> Iterator[list[Worker]]:
    """Those that a test has started."""
    started: list[Worker] = []
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()


def start_worker(deployed: Deployed, workers: list[Worker]) -> Worker:
    workers.append(Worker("laptop", deployed.environment, deployed.folder))
    return workers[-1]


def wait_for_shards(deployed: Deployed, count: int, worker: Worker) -> None:
    """Until so many shards are inverted."""
    wait_until(
        lambda: len(inverted_shards(deployed.store)) >= count,
        seconds=240,
        what=lambda: f"{deployed.states()} {worker.log.read_text()[-3000:]}",
    )


def assert_undisturbed(deployed: Deployed) -> None:
    """Every bit is as in a run that nothing happened to."""
    quiet = Run.create(str(deployed.folder / "quiet"), parse_settings(SETTINGS))
    run_all(quiet)
    assert_same_bits(Run.open(str(deployed.store)), quiet)


def test_a_sweep_of_the_command_line_is_completed_in_postgresql(site, tmp_path):
    path, store = tmp_path / "tiny.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(TINY))
    environment = os.environ | site.environment
    done = netsim("run", str(path), "--store", str(store), "--workers", "2", env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    def states() -> Counter[str]:
        found = [*runs_of(environment, store), *task_runs_of(environment, store)]
        return Counter(run["state_name"] for run in found)

    wait_until(lambda: set(states()) == {"Completed"}, seconds=30, what=states)
    assert states()["Completed"] >= 3 + 1 + 2 + 3 + 4 + 6 + 1  # flows; train to report, of blocks of four shards


def test_a_site_lets_in_nobody_without_its_key(site):
    assert httpx.post(f"{site.api}/flow_runs/filter", json={}).status_code == 401


def test_a_run_under_a_concurrency_limit_survives_a_restart_of_the_server(site, deployed, workers):
    """The server that comes back must know what the one that went had lent: the run renews it, or ends."""
    worker = start_worker(deployed, workers)
    deployed.run(SETTINGS)
    wait_for_shards(deployed, 2, worker)
    (flow,), (run,) = worker.runs(), deployed.runs()
    began, computing = datetime.fromisoformat(run["start_time"]).timestamp(), flow.children(recursive=True)
    for process in computing:
        process.suspend()  # or the sweep would be over before its lease is
    site.kill()
    time.sleep(8)
    site.start()
    deployed.run(SETTINGS)  # the limit is kept, too: a second run at the same time is left out
    wait_until(lambda: deployed.states() == ["Running", "Cancelled"], seconds=120, what=deployed.states)
    wait_until(lambda: time.time() > began + RENEWAL + 30, seconds=RENEWAL + 60)
    for process in computing:
        process.resume()
    wait_until(lambda: deployed.states() == ["Completed", "Cancelled"], seconds=600, what=deployed.states)
    assert "lease renewal" not in worker.log.read_text()
    assert_undisturbed(deployed)


def test_a_sweep_whose_machine_dies_is_found_and_goes_on_by_itself_where_a_worker_is(deployed, workers):
    worker = start_worker(deployed, workers)
    deployed.run(SETTINGS)
    wait_for_shards(deployed, 4, worker)
    (flow,) = worker.runs()
    children = flow.children(recursive=True)
    worker.kill()
    killed = time.monotonic()
    wait_until(lambda: not any(alive(child) for child in children), seconds=30, what=lambda: "its Dask workers live on")
    before = records(deployed.store)
    wait_until(lambda: deployed.states() == ["Crashed", "Scheduled"], seconds=150, what=deployed.states)
    print(f"found after {time.monotonic() - killed:.0f} s")
    again = start_worker(deployed, workers)

    def what() -> str:
        return f"{deployed.states()} {again.log.read_text()[-3000:]}"

    wait_until(lambda: deployed.states() == ["Crashed", "Completed"], seconds=300, what=what)
    assert before.items() <= records(deployed.store).items()
    assert_undisturbed(deployed)
    found = deployed.site
    wait_until(lambda: not open_runs(found), seconds=60, what=lambda: open_runs(found))


def open_runs(site: Site) -> list[str]:
    return site.open_runs("flow_runs") + site.open_runs("task_runs")


def test_a_sweep_that_is_cancelled_stops_within_30_s_and_stays_so(deployed, workers):
    """No automation takes it for crashed."""
    worker = start_worker(deployed, workers)
    deployed.run(SETTINGS | {"inversion": {"iterations": 100_000, "batch_size": 8}})
    wait_until(
        lambda: {run["name"] for run in task_runs_of(deployed.environment, deployed.store)} >= {"invert-vgg-0000"},
        seconds=240,
        what=lambda: f"{deployed.states()} {worker.log.read_text()[-3000:]}",
    )
    (flow,) = worker.runs()
    processes = [flow, *flow.children(recursive=True)]
    (run,) = deployed.runs()
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    url = f"{deployed.site.api}/flow_runs/{run['id']}/set_state"
    httpx.post(url, json=state, auth=auth_of(deployed.environment)).raise_for_status()
    cancelled = time.monotonic()
    wait_until(lambda: not any(alive(process) for process in processes), seconds=30, what=deployed.states)
    print(f"stopped after {time.monotonic() - cancelled:.0f} s")
    wait_until(lambda: deployed.states()[0] == "Cancelled", seconds=30, what=deployed.states)
    time.sleep(15)  # an automation acts within 5 s
    assert deployed.states() == ["Cancelled"]
