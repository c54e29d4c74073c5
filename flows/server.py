"""A Prefect server for runs on this machine: the one that is configured, or the one that is there, or a new one.

Never Prefect's temporary server: with Dask workers it fails and leaves servers behind, and it records few task runs.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)

from flows.offline import OFFLINE
from netsim.errors import RunError

START_SECONDS = 120  # a fresh database takes 9 to 28 s


@contextmanager
def prefect_server() -> Iterator[str]:
    """Run flows against a server; gives the address of its UI. A server that is started here stays, for looking.

    Raises RunError if a configured server does not answer, the port belongs to another program, or none starts.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        if not _healthy(configured):
            raise RunError(f"the Prefect server at {configured} does not answer; start it, or unset PREFECT_API_URL")
        yield _ui(configured)
        return
    host, port = "127.0.0.1", PREFECT_SERVER_API_PORT.value()
    api = f"http://{host}:{port}/api"
    if not _healthy(api):
        _start(host, port, api)
    with temporary_settings({PREFECT_API_URL: api}):
        yield _ui(api)


def _healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5).json() is True
    except (httpx.HTTPError, ValueError):
        return False


def _ui(api: str) -> str:
    return api.removesuffix("/api")


def _start(host: str, port: int, api: str) -> None:
    if _taken(host, port):
        raise RunError(
            f"port {port} is in use by something that is not a Prefect server; "
            f"set PREFECT_SERVER_API_PORT to a free port, or PREFECT_API_URL to a server"
        )
    log = Path(PREFECT_HOME.value()) / "netsim-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    with log.open("ab") as output:
        # a session of its own: Ctrl-C in this terminal is not meant for it
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | OFFLINE,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if _healthy(api):
            (Path(PREFECT_HOME.value()) / "server.pid").write_text(str(server.pid))  # for `prefect server stop`
            return
        time.sleep(0.25)
    server.terminate()
    raise RunError(f"no Prefect server came up at {api}; its log is {log}")


def _taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0
