"""Sweeps on an existing Dask cluster: GPU slots, shards that fail, cancellation, and kill -9 of the flow."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from distributed import Client

from netsim.images import to_unit
from netsim.settings import parse_settings
from netsim.store.quarantine import quarantined
from netsim.store.run import Run
from netsim.store.stages import STAGES
from support.seaweed import free_ports
from support.servers import NETSIM, netsim, netsim_in_process, wait_until
from support.sweeps import TINY, new_run, run_all
from system.test_flow_sweep import ask, assert_same_bits, runs_of, task_runs_of

POISON = '''
import os
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent


class Poisoned(torch.nn.Module):
    """Fails, or kills its process, when one image is inverted through it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        first, last = torch.nn.Conv2d(1, 8, 3, stride=2), torch.nn.Linear(8 * 13 * 13, 10)
        self.layers = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Flatten(), last)

    def forward(self, images):
        if torch.is_grad_enabled() and (HERE / "poison.npy").exists():
            poison = torch.from_numpy(np.load(HERE / "poison.npy"))
            if any(torch.equal(poison, image) for image in images.detach().float()):
                if (HERE / "deadly").exists():
                    os._exit(1)
                raise RuntimeError("an illegal memory access was encountered")
        return self.layers(images)


def network():
    return Poisoned()
'''
SETTINGS: dict[str, Any] = TINY | {
    "networks": ["small:resnet18@none", "odd=python:poison:network"],
    "inversion": {"iterations": 5, "batch_size": 8},
}


@dataclass
class Cluster:
    """A scheduler and two workers, started by their own commands, in a folder with the module `poison`."""

    folder: Path
    address: str
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]]

    def start(self, *command: str) -> None:
        """Start a process of the cluster."""
        options_of_all = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
        with (self.folder / "dask.log").open("ab") as output:
            options: dict[str, Any] = {"env": self.environment, "stdout": output, "stderr": output, "cwd": self.folder}
            program = [sys.executable, "-m", "dask", *command, *options_of_all]
            self.processes.append(subprocess.Popen(program, start_new_session=True, **options))

    def stop(self) -> None:
        """Kill all processes."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, server: dict[str, str]) -> Iterator[Cluster]:
    folder, (port,) = tmp_path_factory.mktemp("cluster"), free_ports(1)
    (folder / "poison.py").write_text(POISON)
    environment = server | {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    # blame a task for the first death of its worker: four deaths take a minute
    environment |= {"OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    cluster = Cluster(folder, f"tcp://127.0.0.1:{port}", environment, [])
    try:
        cluster.start("scheduler", "--port", str(port))
        for _ in range(2):
            cluster.start("worker", cluster.address, "--nthreads", "2", "--resources", "GPU=1")
        with Client(cluster.address, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return path


def poison(run: Run, path: Path) -> None:
    """Save the seed image of one pair of shard 2, which no other shard has, as the one to fail on."""
    run_all(run, only=("train", "draw"))
    images = to_unit(run.read(run.record("draw", "pairs", 2), "images/seed"))
    np.save(path, images[3].numpy())


def missing_of(run: Run) -> dict[str, set[str]]:
    """List the goals with missing shards, by stage."""
    missing = {stage.name: {stage.goal(unit) for unit, _ in stage.missing(run)} for stage in STAGES}
    return {stage: names for stage, names in missing.items() if names}


@pytest.mark.parametrize("how", ["failing", "deadly"])
def test_a_shard_that_fails_every_time_is_quarantined_and_the_rest_is_done(
    how, cluster, settings, tmp_path, monkeypatch
):
    """It is quarantined with its traceback. Once the reason is gone, the same command finishes the sweep."""
    monkeypatch.syspath_prepend(cluster.folder)
    store, poisoned, deadly = tmp_path / "run", cluster.folder / "poison.npy", cluster.folder / "deadly"
    run = new_run(str(store), parse_settings(SETTINGS))
    poison(run, poisoned)
    if how == "deadly":
        deadly.touch()
    command = ("run", str(settings), "--store", str(store), "--scheduler", cluster.address, "--shards-per-task", "2")
    done = netsim(*command, env=cluster.environment, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("netsim: invert odd shard 2 failed and is quarantined ("), done.stderr
    ((unit, reason),) = quarantined(run).items()
    assert unit == ("invert", "odd", 2)
    if how == "failing":
        assert "in forward" in reason["traceback"] and reason["error"].endswith(
            "an illegal memory access was encountered"
        )
        assert len(reason["workers"]) == 2 and metrics(cluster)['netsim_failed_shards_total{stage="invert"}'] == 3
        (artifact,) = ask(cluster.environment, "artifacts", artifacts={"key": {"any_": ["run-quarantined"]}})
        assert "an illegal memory access was encountered" in artifact["data"]
        event = {"event": {"name": ["netsim.shards.set-aside"]}}
        wait_until(lambda: quarantine_events(cluster, event), seconds=120)
        (emitted,) = quarantine_events(cluster, event)
        assert emitted["payload"] == {"stage": "invert", "shards": 1, "first": "invert odd shard 2"}
        assert emitted["resource"]["prefect.resource.name"] == str(store)
    assert missing_of(run) == {
        "invert": {"odd"},
        "embed": {"inverted/odd"},
        "aggregate": {"inverted/odd"},
        "control": {"inverted/odd"},
        "report": {run.sweep.id},
    }
    poisoned.unlink()
    deadly.unlink(missing_ok=True)
    status = netsim_in_process("status", str(store), env=cluster.environment, cwd=tmp_path).stdout
    assert "invert odd shard 2 is quarantined: " in status
    if how == "failing":
        again = netsim(*command, env=cluster.environment, cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        quiet = new_run(str(tmp_path / "quiet"), parse_settings(SETTINGS))
        run_all(quiet)
        assert_same_bits(run, quiet)
        assert quarantined(run) == {}
        processes = {run.record("invert", name, k).process for name in run.sweep.names for k in range(4)}
        assert len(processes) == 2  # both workers had some
        counted = metrics(cluster)
        assert [counted[f'netsim_shards_total{{stage="{stage}"}}'] for stage in ("invert", "embed", "aggregate")] == [
            8,
            16,
            4,
        ]
        assert counted['netsim_pairs_total{stage="invert"}'] == 8 * 8


def test_a_shard_that_failed_is_retried_on_gpus_only(cluster, settings, tmp_path, monkeypatch):
    """It has not failed on the worker without a GPU, but Dask cannot give it a GPU there."""
    monkeypatch.syspath_prepend(cluster.folder)
    store, poisoned = tmp_path / "run", cluster.folder / "poison.npy"
    run = new_run(str(store), parse_settings(SETTINGS))
    poison(run, poisoned)
    cluster.start("worker", cluster.address, "--nthreads", "1")
    plain = cluster.processes.pop()
    try:
        with Client(cluster.address) as client:
            client.wait_for_workers(3, timeout=60)
        command = ("run", str(settings), "--store", str(store), "--scheduler", cluster.address)
        done = netsim(*command, env=cluster.environment, cwd=tmp_path)
    finally:
        os.killpg(plain.pid, signal.SIGKILL)
        plain.wait()
        poisoned.unlink()
    assert done.returncode == 1, done.stderr
    (reason,) = quarantined(run).values()
    assert reason["error"].endswith("an illegal memory access was encountered"), reason


def quarantine_events(cluster: Cluster, filters: dict[str, Any]) -> list[dict[str, Any]]:
    """List the events that match, from the server."""
    api = cluster.environment["PREFECT_API_URL"]
    return httpx.post(f"{api}/events/filter", json={"filter": filters}).raise_for_status().json()["events"]


def metrics(cluster: Cluster) -> Counter[str]:
    """Read the metrics of the workers as Prometheus does, summed over them."""
    with Client(cluster.address) as client:
        ports = [worker["services"]["dashboard"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    text = "".join(httpx.get(f"http://127.0.0.1:{port}/metrics").text for port in ports)
    total: Counter[str] = Counter()
    for name, value in re.findall(r"^(netsim_\S+) (\S+)$", text, re.MULTILINE):
        total[name] += float(value)
    return total


def busy(client: Client) -> int:
    """Count the threads of workers that compute."""
    return sum(client.run(lambda dask_worker: len(dask_worker.active_threads)).values())


SLOW = SETTINGS | {"inversion": {"iterations": 100_000, "batch_size": 8}}


@pytest.mark.parametrize("how", ["killed", "cancelled", "marked crashed"])
def test_workers_are_free_soon_after_their_flow_ended(how, cluster, server, tmp_path):
    """Dask cannot interrupt a thread, and a shard may take hours."""
    path, store, log = tmp_path / "slow.yaml", tmp_path / "run", tmp_path / "log"
    path.write_text(yaml.safe_dump(SLOW))
    command = [*NETSIM, "run", str(path), "--store", str(store), "--scheduler", cluster.address]
    with log.open("wb") as output, Client(cluster.address) as client:
        flow = subprocess.Popen(command, env=cluster.environment, cwd=tmp_path, stdout=output, stderr=output)
        try:
            inverting = {"invert-resnet18-0000", "invert-odd-0000"}
            wait_until(
                lambda: inverting <= {run["name"] for run in task_runs_of(server, store)} and busy(client) == 2,
                seconds=300,
                what=log.read_text,
            )
            if how == "killed":
                flow.kill()
            elif how == "cancelled":
                set_state(server, store, "CANCELLING")  # as the button of the UI does
            else:
                set_state(server, store, "CRASHED")  # as deploy/automations.yaml does when no heartbeat came through
            began = time.monotonic()
            wait_until(lambda: busy(client) == 0, seconds=30, what=log.read_text)
            print(f"{how}: the workers were free after {time.monotonic() - began:.1f} s")
            if how == "cancelled":
                assert flow.wait(timeout=30) == 130, log.read_text()
                assert "cancelled in Prefect" in log.read_text()
                states = {run["name"]: run["state_name"] for run in runs_of(server, store)}
                assert states["sweep-run"] == "Cancelled", states
            if how == "marked crashed":
                assert flow.wait(timeout=30) == 1, log.read_text()
                assert "netsim: Prefect marked this run as crashed while it was running" in log.read_text()
        finally:
            flow.kill()
    assert Run.open(str(store)).done("invert") == {}


def set_state(server: dict[str, str], store: Path, kind: str) -> None:
    """Set the state of the sweep's flow run, as the UI does."""
    (sweep,) = (run for run in runs_of(server, store) if run["name"] == "sweep-run")
    url = f"{server['PREFECT_API_URL']}/flow_runs/{sweep['id']}/set_state"
    httpx.post(url, json={"state": {"type": kind}, "force": False}).raise_for_status()
