"""A sweep as jobs of a real SLURM. `make slurm`: it needs root and four packages of Debian (tests/support/slurm.py)."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from netsim.settings import parse_settings
from netsim.store.run import Run
from support.servers import NETSIM, netsim, wait_until
from support.slurm import Slurm
from support.sweeps import TINY, new_run, run_all
from system.test_flow_sweep import assert_same_bits, inverted_shards, records, wait_for_more

pytestmark = pytest.mark.slurm

SETTINGS = TINY | {"pairs": {"count": 96, "shard_size": 8}, "inversion": {"iterations": 150, "batch_size": 8}}
CLUSTER: dict[str, Any] = {
    "kind": "slurm",
    "partition": "gpu",
    "walltime": "00:10:00",
    "leave_early": 60,
    "memory": "1500MB",
    "cores": 1,
    "maximum": 2,
    "interface": "lo",
    "shards_per_task": 2,
}


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    found = Slurm()
    try:
        found.start()
        yield found
    finally:
        found.kill()


@pytest.fixture
def environment(slurm: Slurm, server: dict[str, str]) -> dict[str, str]:
    return server | {"SLURM_CONF": slurm.environment["SLURM_CONF"]}


def write(path: Path, **cluster: Any) -> Path:
    path.write_text(yaml.safe_dump(SETTINGS | {"cluster": CLUSTER | cluster}), encoding="utf-8")
    return path


def test_a_sweep_that_loses_a_job_ends_with_the_same_bits(slurm, environment, tmp_path):
    """Over TLS, by certificates that jobs read from a folder."""
    assert netsim("certificates", "tls", env=environment, cwd=tmp_path).returncode == 0
    path, store, log = write(tmp_path / "mine.yaml", tls=str(tmp_path / "tls")), tmp_path / "run", tmp_path / "log"
    command = [*NETSIM, "run", str(path), "--store", str(store)]
    with log.open("wb") as output:
        flow = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=output, stderr=output)
    try:
        wait_for_more(store, flow, log)
        wait_until(lambda: len(slurm.jobs()) == 2, seconds=300, what=lambda: slurm.ask("squeue"))  # adaptive
        before = records(store)
        slurm.ask("scancel", slurm.jobs()[0])
        assert flow.wait(timeout=400) == 0, log.read_text()[-3000:]
    finally:
        flow.kill()
    assert before.items() <= records(store).items()
    said = "".join(path.read_text() for path in (tmp_path / "slurm-logs").glob("*.err"))
    assert "Waiting to connect to:      tls://" in said and "tcp://" not in said
    run, quiet = Run.open(str(store)), new_run(str(tmp_path / "quiet"), parse_settings(SETTINGS))
    run_all(quiet)
    assert_same_bits(run, quiet)
    wait_until(lambda: not slurm.jobs(), seconds=30, what=lambda: slurm.ask("squeue"))


def test_jobs_that_reach_their_walltime_leave_before_it_and_others_take_their_place(environment, tmp_path):
    """No shard is killed in the middle: nothing failed, and no worker was lost with a task."""
    path = write(tmp_path / "mine.yaml", walltime="00:01:10", leave_early=30, maximum=1, shards_per_task=1)
    store = tmp_path / "run"
    long = "inversion.iterations=600"  # on any machine more than the 40 s that one job computes
    found = netsim("run", str(path), "--store", str(store), "--set", long, env=environment, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    jobs = {json.loads(path.read_text())["process"] for path in (store / "commits" / "invert").rglob("*.json")}
    assert len(jobs) > 1
    said = "".join(path.read_text() for path in (tmp_path / "slurm-logs").glob("*.err"))
    assert "no time for another shard" in said and "DUE TO TIME LIMIT" not in said


def logged(environment: dict[str, str]) -> Iterator[str]:
    """Yield all messages that the server holds, page by page."""
    offset = 0
    while page := httpx.post(f"{environment['PREFECT_API_URL']}/logs/filter", json={"offset": offset}).json():
        yield from (log["message"] for log in page)
        offset += len(page)


def test_jobs_that_end_before_their_worker_comes_are_replaced(environment, tmp_path):
    """dask-jobqueue would wait for theirs as long as the sweep lives."""
    once = f"mkdir {tmp_path}/broken && exit 1 || true"  # a node on which nothing works, the first time
    path = write(tmp_path / "mine.yaml", maximum=1, prologue=[once])
    found = netsim("run", str(path), "--store", str(tmp_path / "run"), env=environment, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "broken").exists()
    assert any("ended before its worker connected; replacing it" in message for message in logged(environment))


def test_a_job_that_slurm_does_not_take_is_one_clear_error(environment, tmp_path):
    path = write(tmp_path / "mine.yaml", partition="gpus")
    found = netsim("run", str(path), "--store", str(tmp_path / "run"), env=environment, cwd=tmp_path)
    assert found.returncode == 2 and "SLURM rejects the jobs of this cluster: " in found.stderr, found.stderr
    assert "nvalid partition" in found.stderr and len(found.stderr.splitlines()) == 1
    assert inverted_shards(tmp_path / "run") == set()
