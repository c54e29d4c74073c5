"""Find or start the Prefect server that flows on this machine use.

It is the configured server, one that runs here already, or a new one; never Prefect's temporary server, which fails
with Dask workers, leaves processes behind, and records few task runs.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)

from flows.server.offline import OFFLINE
from netsim.errors import RunError

LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}
"""Settings that let concurrency leases survive a restart: without them, a restart ends the runs of deployments."""

START_TIMEOUT = 300
"""Seconds to wait for a new server: creating its database takes 9 to 28 s on an idle machine."""

BUSY_TIMEOUT = 15
"""Seconds to wait for a server that holds the port but does not answer: it may be loaded, or just starting."""

LISTENING = "0A"
"""State of a listening socket in /proc/net/tcp."""

LOCAL_ADDRESSES = {"0100007F", "7F000001", "0" * 8, "0" * 32}
"""127.0.0.1 in either byte order, and any address, as written in /proc/net/tcp."""


@contextmanager
def prefect_server() -> Iterator[str]:
    """Run flows against a Prefect server, started if there is none; yields the address of its UI.

    A server started here keeps running afterwards, so that its UI can be used. Raises RunError if the server does not
    answer, rejects this user or does not start, or if the port belongs to another program or another user.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        _require_access(f"the Prefect server at {redact_password(configured)}")
        yield redact_password(configured).removesuffix("/api")
        return
    host, port = "127.0.0.1", PREFECT_SERVER_API_PORT.value()
    api = f"http://{host}:{port}/api"
    if not _healthy(api):
        _start(host, port, api)
    with temporary_settings({PREFECT_API_URL: api}):
        _require_own_server(port)
        _require_access(f"the Prefect server at {api}")
        yield api.removesuffix("/api")


@contextmanager
def existing_prefect_server() -> Iterator[bool]:
    """Use a Prefect server if one is up, without starting any; yields whether there is one."""
    if PREFECT_API_URL.value():
        yield _access_problem() is None
        return
    port = PREFECT_SERVER_API_PORT.value()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        yield not _other_users(port) and _access_problem() is None


def redact_password(url: str) -> str:
    """Return `url` without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _require_access(server: str) -> None:
    problem = _access_problem()
    if problem is not None:
        raise RunError(f"{server} {problem}")


def _access_problem() -> str | None:
    """Return why this user can't use the server at PREFECT_API_URL, or None. Prefect's client adds the credentials."""
    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()  # needs no authentication
        if failure is not None:
            return f"does not answer ({failure}). Start it, or unset PREFECT_API_URL"
        try:
            client.read_flows(limit=1)
        except PrefectHTTPStatusError as error:
            status = error.response.status_code
            if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                hint = "Set PREFECT_API_AUTH_STRING to the USER:PASSWORD that it was started with"
                return f"rejects this user ({status}). {hint}"
            return f"answers with status {status}"
        except httpx.HTTPError as error:
            return f"does not answer ({type(error).__name__}: {error})"
    return None


def _require_own_server(port: int) -> None:
    """Reject a server of another user, who could read everything sent to it and run code in its clients."""
    users = _other_users(port)
    if users:
        raise RunError(
            f"the Prefect server at port {port} belongs to another user of this machine (uid {min(users)}). "
            "Set PREFECT_SERVER_API_PORT to a free port, or PREFECT_API_URL if you trust it"
        )


def _other_users(port: int) -> set[int]:
    """Return the uids of other users, except root, that listen at a local port; empty on systems other than Linux."""
    tables = [path for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]
    users = set()
    for row in (line.split() for table in tables for line in table.read_text().splitlines()[1:]):
        address, _, port_hex = row[1].rpartition(":")
        if row[3] == LISTENING and address in LOCAL_ADDRESSES and int(port_hex, 16) == port:
            users.add(int(row[7]))
    return users - {os.getuid(), 0}


def _healthy(api: str) -> bool:
    try:  # without verification: loading the certificate authorities takes longer than the request
        return httpx.get(f"{api}/health", timeout=5, verify=False).json() is True
    except (httpx.HTTPError, ValueError):
        return False


def _start(host: str, port: int, api: str) -> None:
    """Start a server in a session of its own, out of reach of Ctrl-C in this terminal."""
    if _port_in_use(host, port):
        _wait_for_busy_server(port, api)
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
            env=_browser_protection(port) | LEASES | os.environ | OFFLINE,
        )
    try:
        if not _wait(api, seconds=START_TIMEOUT, alive=lambda: server.poll() is None):
            raise RunError(f"the Prefect server at {api} did not start. See its log {log}")
    except BaseException:
        server.terminate()
        server.wait()
        raise
    (home / "server.pid").write_text(str(server.pid))  # for `prefect server stop`


def _browser_protection(port: int) -> dict[str, str]:
    """Return settings that keep pages of other sites, open in a user's browser, from using the server."""
    return {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }


def _wait_for_busy_server(port: int, api: str) -> None:
    if not _wait(api, seconds=BUSY_TIMEOUT):
        raise RunError(
            f"port {port} is in use by a program that is not a Prefect server. "
            "Set PREFECT_SERVER_API_PORT to a free port, or PREFECT_API_URL to a server"
        )


def _wait(api: str, *, seconds: float, alive: Callable[[], bool] = lambda: True) -> bool:
    """Wait until a server is healthy, even one that another run started meanwhile; return whether one is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and alive():
        if _healthy(api):
            return True
        time.sleep(0.25)
    return _healthy(api)


def _port_in_use(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0
