"""What several test files share: a tiny sweep that has every stage, and real servers."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from netsim.store.run import Run
from support.seaweed import SeaweedFS, free_ports
from support.servers import healthy, wait_until
from support.sweeps import new_run, run_all, tiny

torch.set_num_threads(1)  # as in a worker; two test processes share the machine
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what is in the background deaf to Ctrl-C


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished tiny run. Read it only."""
    run = new_run(str(tmp_path_factory.mktemp("finished") / "run"), tiny())
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
