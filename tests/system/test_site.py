"""What a site survives: Prefect on PostgreSQL, a worker of a work pool, and the automations of deploy/automations.yaml.

`make site`: a quarter of an hour. It needs a package of Debian (tests/support/sites.py).
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from netsim.settings import parse_settings
from netsim.store.run import Run
from support.servers import auth_of, netsim, wait_until
from support.sites import Postgres, Site, Worker
from support.sweeps import TINY, new_run, run_all
from system.test_deploy import DEPLOY, prefect_in
from system.test_flow_sweep import SLOW, alive, assert_same_bits, inverted_shards, records, runs_of, task_runs_of
from tasks.processes import parse_tag

pytestmark = [pytest.mark.site, pytest.mark.timeout(3600)]

SETTINGS: dict[str, Any] = SLOW | {
    "networks": ["small:resnet18@none", "small:shufflenet@none"],  # random weights: nothing is trained
    "inversion": {"iterations": 100, "batch_size": 8},
}

LONG = 1200
"""Seconds that are enough for anything, on a machine that others use too."""

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


@pytest.fixture(scope="module")
def environment(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of programs that use a site which has the deployment `demo` and the automations, as they come with netsim."""
    found = os.environ | site.environment | {"OMP_NUM_THREADS": "1"}
    prefect = prefect_in(tmp_path_factory.mktemp("deployed"), found)
    prefect("work-pool", "create", "laptop", "--type", "process")
    prefect("--no-prompt", "deploy", "--prefect-file", str(DEPLOY / "prefect.yaml"), "--name", "demo")
    prefect("automation", "create", "--from-file", str(DEPLOY / "automations.yaml"))
    return found


@dataclass
class Sweep:
    """A store that the deployment fills, by one run after the other, and the workers that a test has started for it."""

    site: Site
    environment: dict[str, str]
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.folder / "run"

    def start_worker(self) -> None:
        self.workers.append(Worker("laptop", self.environment, self.folder))

    def run(self, settings: Mapping[str, Any] = SETTINGS) -> None:
        cluster = {"kind": "local", "workers": 2, "shards_per_task": 2}
        said = {"settings": settings, "store": str(self.store), "cluster": cluster}
        parameters = [part for name, value in said.items() for part in ("--param", f"{name}={json.dumps(value)}")]
        prefect_in(self.folder, self.environment)("deployment", "run", "sweep/demo", *parameters)

    def runs(self) -> list[dict[str, Any]]:
        """The newest last."""
        found = [run for run in runs_of(self.environment, self.store) if run["deployment_id"]]
        return sorted(found, key=lambda run: run["created"])

    def states(self) -> list[str]:
        return [run["state_name"] for run in self.runs()]

    def process(self) -> psutil.Process:
        """Of the newest run, which has it in its tags. Its children are Dask's."""
        (name,) = filter(None, map(parse_tag, self.runs()[-1]["tags"]))
        return psutil.Process(name.pid)

    def wait_for(self, states: list[str]) -> None:
        wait_until(lambda: self.states() == states, seconds=LONG, what=self.told)

    def wait_for_shards(self, count: int) -> None:
        """Until so many are inverted."""
        wait_until(lambda: len(inverted_shards(self.store)) >= count, seconds=LONG, what=self.told)

    def told(self) -> str:
        return f"{self.states()} {self.workers[-1].log.read_text()[-3000:]}"


@pytest.fixture
def sweep(site: Site, environment: dict[str, str], tmp_path: Path) -> Iterator[Sweep]:
    found = Sweep(site, environment, tmp_path)
    found.start_worker()
    try:
        yield found
    finally:
        for worker in found.workers:
            worker.kill()


def assert_undisturbed(sweep: Sweep) -> None:
    """Every bit is as in a run that nothing happened to."""
    quiet = new_run(str(sweep.folder / "quiet"), parse_settings(SETTINGS))
    run_all(quiet)
    assert_same_bits(Run.open(str(sweep.store)), quiet)


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


def test_a_run_under_a_concurrency_limit_survives_a_restart_of_the_server(sweep):
    """The server that comes back must know what the one that went had lent: the run renews it, or ends."""
    sweep.run()
    sweep.wait_for_shards(2)
    (run,), computing = sweep.runs(), sweep.process().children(recursive=True)
    began = datetime.fromisoformat(run["start_time"]).timestamp()
    for process in computing:
        process.suspend()  # or the sweep would be over before its lease is
    sweep.site.kill()
    time.sleep(8)
    sweep.site.start()
    sweep.run()  # the limit is kept, too: a second run at the same time is left out
    sweep.wait_for(["Running", "Cancelled"])
    wait_until(lambda: time.time() > began + RENEWAL + 30, seconds=RENEWAL + 60)
    for process in computing:
        process.resume()
    sweep.wait_for(["Completed", "Cancelled"])
    assert "lease renewal" not in sweep.workers[0].log.read_text()
    assert_undisturbed(sweep)


def test_a_sweep_whose_machine_dies_is_found_and_goes_on_by_itself_where_a_worker_is(sweep):
    """Dask's processes are left to notice by themselves that there is nobody to compute for."""
    sweep.run()
    sweep.wait_for_shards(4)
    children = sweep.process().children(recursive=True)
    sweep.workers[0].kill(but=children)
    killed = time.monotonic()
    wait_until(lambda: not any(alive(child) for child in children), seconds=LONG, what=sweep.told)
    before = records(sweep.store)
    sweep.wait_for(["Crashed", "Scheduled"])
    print(f"found after {time.monotonic() - killed:.0f} s, with {len(inverted_shards(sweep.store))} shards inverted")
    sweep.start_worker()
    sweep.wait_for(["Crashed", "Completed"])
    assert before.items() <= records(sweep.store).items()
    assert_undisturbed(sweep)
    wait_until(lambda: not open_runs(sweep.site), seconds=60, what=lambda: open_runs(sweep.site))


def open_runs(site: Site) -> list[str]:
    return site.open_runs("flow_runs") + site.open_runs("task_runs")


def test_a_sweep_that_is_cancelled_stops_within_30_s_and_stays_so(sweep):
    """No automation takes it for crashed."""
    sweep.run(SETTINGS | {"inversion": {"iterations": 100_000, "batch_size": 8}})

    def inverting() -> int:
        return sum(run["name"].startswith("invert-") for run in task_runs_of(sweep.environment, sweep.store))

    wait_until(lambda: inverting() == 2, seconds=LONG, what=sweep.told)  # both workers, for hours
    flow, (run,) = sweep.process(), sweep.runs()
    processes = [flow, *flow.children(recursive=True)]
    url, state = f"{sweep.site.api}/flow_runs/{run['id']}/set_state", {"type": "CANCELLING", "name": "Cancelling"}
    httpx.post(url, json={"state": state}, auth=auth_of(sweep.environment)).raise_for_status()
    cancelled = time.monotonic()
    wait_until(lambda: not any(alive(process) for process in processes), seconds=30, what=sweep.told)
    print(f"stopped after {time.monotonic() - cancelled:.0f} s")
    sweep.wait_for(["Cancelled"])
    time.sleep(15)  # an automation acts within 5 s
    assert sweep.states() == ["Cancelled"]
