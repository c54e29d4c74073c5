"""A Prefect server for runs on this machine: the one that is configured, or the one that is there, or a new one.

Never Prefect's temporary server: with Dask workers it fails and leaves servers behind, and it records few task runs.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)

from flows.offline import OFFLINE
from netsim.errors import RunError

START_SECONDS = 120  # a fresh database takes 9 to 28 s
BUSY_SECONDS = 15  # a server that is loaded, or that another run is starting just now


@contextmanager
def prefect_server() -> Iterator[str]:
    """Run flows against a server; gives the address of its UI. A server that is started here stays, for looking.

    Raises RunError if a configured server does not answer, the port belongs to another program, or none starts.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        fault = _configured_fault()
        if fault is not None:
            raise RunError(
                f"the Prefect server at {configured} does not answer ({fault}); start it, or unset PREFECT_API_URL"
            )
        yield configured.removesuffix("/api")
        return
    host, port = "127.0.0.1", PREFECT_SERVER_API_PORT.value()
    api = f"http://{host}:{port}/api"
    if not _healthy(api):
        _start(host, port, api)
    with temporary_settings({PREFECT_API_URL: api}):
        yield api.removesuffix("/api")


@contextmanager
def prefect_server_that_is_up() -> Iterator[bool]:
    """The same for what can be left out: nothing is started, and it gives whether there is a server that answers."""
    if PREFECT_API_URL.value():
        yield _configured_fault() is None
        return
    api = f"http://127.0.0.1:{PREFECT_SERVER_API_PORT.value()}/api"
    with temporary_settings({PREFECT_API_URL: api}):
        yield _healthy(api)


def _configured_fault() -> Exception | None:
    """Why the configured server can't be used. Asked through Prefect's client, which knows its key."""
    with get_client(sync_client=True) as client:
        return client.api_healthcheck()


def _healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5).json() is True
    except (httpx.HTTPError, ValueError):
        return False


def _start(host: str, port: int, api: str) -> None:
    """Start a server in a session of its own: Ctrl-C in this terminal is not meant for it."""
    if _taken(host, port):
        _wait_for_a_busy_one(port, api)
        return
    home = Path(PREFECT_HOME.value())
    log = home / "netsim-server.log"
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    with log.open("ab") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | OFFLINE,
        )
    try:
        if not _wait(api, seconds=START_SECONDS, alive=lambda: server.poll() is None):
            raise RunError(f"no Prefect server came up at {api}; its log is {log}")
    except BaseException:
        server.terminate()
        server.wait()
        raise
    (home / "server.pid").write_text(str(server.pid))  # for `prefect server stop`


def _wait_for_a_busy_one(port: int, api: str) -> None:
    if not _wait(api, seconds=BUSY_SECONDS):
        raise RunError(
            f"port {port} is in use by something that is not a Prefect server; "
            "set PREFECT_SERVER_API_PORT to a free port, or PREFECT_API_URL to a server"
        )


def _wait(api: str, *, seconds: float, alive: Callable[[], bool] = lambda: True) -> bool:
    """Until the server is healthy. It may be another one: two runs that start together need only one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and alive():
        if _healthy(api):
            return True
        time.sleep(0.25)
    return _healthy(api)


def _taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0
