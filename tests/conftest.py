"""What several test files share: a tiny sweep that has every stage, and real servers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from seaweed import SeaweedFS, free_ports

from netsim.settings import SweepSettings, parse_settings
from netsim.stages.work import compute_unit
from netsim.store.run import Run
from netsim.store.stages import STAGES

torch.set_num_threads(1)  # as in a worker; two test processes share the machine
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what is in the background deaf to Ctrl-C

TINY: dict[str, Any] = {
    # random weights take no training; vgg is trained, so that every path is walked
    "networks": ["small:vgg", "small:resnet18@none", "small:shufflenet@none"],
    "training": {"epochs": 1, "batch_size": 256},
    "pairs": {"count": 32, "shard_size": 8},
    "inversion": {"iterations": 5, "batch_size": 8},
}


def tiny(**changes: Any) -> SweepSettings:
    """The settings of a sweep that takes seconds."""
    return parse_settings(TINY | changes)


def run_all(run: Run, only: Collection[str] = ()) -> None:
    """Every missing shard of every stage, or of `only` some, in this process."""
    for stage in STAGES:
        if only and stage.name not in only:
            continue
        stage.prepare(run)
        for name, shard in stage.missing(run):
            compute_unit(run, stage, name, shard)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished tiny run. Read it only."""
    run = Run.create(str(tmp_path_factory.mktemp("finished") / "run"), tiny())
    run_all(run)
    return run


@pytest.fixture(scope="session")
def object_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A real S3 server; its credentials are in the environment until the tests end."""
    storage = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    storage.start()
    before = dict(os.environ)
    os.environ.update(storage.environment)
    try:
        yield storage
    finally:
        os.environ.clear()
        os.environ.update(before)
        storage.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real Prefect server of its own; gives the environment in which programs use it."""
    from flows.server.offline import OFFLINE

    home, (port,) = tmp_path_factory.mktemp("prefect"), free_ports(1)
    api = f"http://127.0.0.1:{port}/api"
    env = os.environ | OFFLINE | {"PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / "profiles.toml")}
    env |= {"PREFECT_SERVER_UI_API_URL": api}  # or its pages look for it at the default port
    env.pop("PREFECT_API_URL", None)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=env, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: healthy(api), seconds=300, what=lambda: (home / "log").read_text()[-2000:])
        yield env | {"PREFECT_API_URL": api}
    finally:
        process.kill()
        process.wait()


def auth_of(environment: Mapping[str, str]) -> httpx.BasicAuth | None:
    """What a program with this environment shows a server, if it has anything to show."""
    user, _, password = environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
    return httpx.BasicAuth(user, password) if user else None


def healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5, verify=False).json() is True
    except httpx.HTTPError:
        return False


def wait_until(true: Any, *, seconds: float, what: Any = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what()}"
        time.sleep(0.25)  # what is asked is often a server, which has work to do


NETSIM = [sys.executable, "-m", "flows.cli"]


def netsim(*arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run([*NETSIM, *arguments], env=env, cwd=cwd, capture_output=True, text=True, check=False)
