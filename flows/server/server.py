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
"""A server that forgets them when it is restarted ends what runs under a concurrency limit, as deployments do."""

START_SECONDS = 300  # a fresh database takes 9 to 28 s, on a machine with nothing else to do
BUSY_SECONDS = 15  # a server that is loaded, or that another run is starting just now


@contextmanager
def prefect_server() -> Iterator[str]:
    """Run flows against a server; gives the address of its UI. A server that is started here stays, for looking.

    Raises RunError if a server does not answer or let this user in, the port belongs to another program or another
    user, or none starts.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        _require_access(f"the Prefect server at {shown(configured)}")
        yield shown(configured).removesuffix("/api")
        return
    host, port = "127.0.0.1", PREFECT_SERVER_API_PORT.value()
    api = f"http://{host}:{port}/api"
    if not _healthy(api):
        _start(host, port, api)
    with temporary_settings({PREFECT_API_URL: api}):
        _require_ours(port)
        _require_access(f"the Prefect server at {api}")
        yield api.removesuffix("/api")


@contextmanager
def prefect_server_that_is_up() -> Iterator[bool]:
    """The same for what can be left out: nothing is started, and it gives whether there is a server to be used."""
    if PREFECT_API_URL.value():
        yield _fault() is None
        return
    port = PREFECT_SERVER_API_PORT.value()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        yield not _strangers(port) and _fault() is None


def shown(url: str) -> str:
    """A URL without a password in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _require_access(server: str) -> None:
    fault = _fault()
    if fault is not None:
        raise RunError(f"{server} {fault}")


def _fault() -> str | None:
    """What keeps this user from the server at PREFECT_API_URL. Asked through Prefect's client, which knows its keys."""
    with get_client(sync_client=True) as client:
        silence = client.api_healthcheck()  # everybody gets an answer to that
        if silence is not None:
            return f"does not answer ({silence}); start it, or unset PREFECT_API_URL"
        try:
            client.read_flows(limit=1)
        except PrefectHTTPStatusError as error:
            status = error.response.status_code
            if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                key = "PREFECT_API_AUTH_STRING, USER:PASSWORD as it was started with"
                return f"does not let this user in ({status}); set {key}"
            return f"answers {status}"
        except httpx.HTTPError as error:
            return f"does not answer ({type(error).__name__}: {error})"
    return None


def _require_ours(port: int) -> None:
    """Whoever has the server reads what it is told, and can have its clients run code."""
    strangers = _strangers(port)
    if strangers:
        raise RunError(
            f"the Prefect server at port {port} is of another user of this machine (uid {min(strangers)}); "
            "set PREFECT_SERVER_API_PORT to a free port, or PREFECT_API_URL if you trust it"
        )


LISTENS = "0A"
HERE = {"0100007F", "7F000001", "0" * 8, "0" * 32}
"""127.0.0.1, in either order of bytes, and any address."""


def _strangers(port: int) -> set[int]:
    """Other users, but root, who listen at a port of this machine; Linux tells, and nobody is known elsewhere."""
    tables = [path for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]
    found = set()
    for row in (line.split() for table in tables for line in table.read_text().splitlines()[1:]):
        address, _, at = row[1].rpartition(":")
        if row[3] == LISTENS and address in HERE and int(at, 16) == port:
            found.add(int(row[7]))
    return found - {os.getuid(), 0}


def _healthy(api: str) -> bool:
    try:  # in the clear: certificates of authorities take longer to read than the answer
        return httpx.get(f"{api}/health", timeout=5, verify=False).json() is True
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
            env=_guarded(port) | LEASES | os.environ | OFFLINE,
        )
    try:
        if not _wait(api, seconds=START_SECONDS, alive=lambda: server.poll() is None):
            raise RunError(f"no Prefect server came up at {api}; its log is {log}")
    except BaseException:
        server.terminate()
        server.wait()
        raise
    (home / "server.pid").write_text(str(server.pid))  # for `prefect server stop`


def _guarded(port: int) -> dict[str, str]:
    """Settings that keep other sites' pages, in the browser of whoever looks at them, from using the server."""
    return {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }


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
