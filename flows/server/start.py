"""Start a Prefect server on this machine, once, however many commands want one at the same time.

Two servers that create their database in the same folder at once destroy it, so a lock in PREFECT_HOME is held from the
decision to start one until it answers. The kernel releases it when its holder dies, and the server it had begun is
waited for by the next holder.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import BinaryIO

import psutil
from distributed.security import Security
from prefect.settings import PREFECT_HOME

from flows.server.access import healthy
from flows.server.listeners import is_listening, listening_process
from flows.server.offline import OFFLINE
from netsim.errors import RunError
from tasks.logs import announcements

HOST = "127.0.0.1"

LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}
"""Settings that let concurrency leases survive a restart: without them, a restart ends the runs of deployments."""

START_TIMEOUT = 300
"""Seconds to wait for a new server: creating its database takes 9 to 28 s on an idle machine."""

BUSY_TIMEOUT = 15
"""Seconds to wait for a server that holds the port but does not answer: it may be loaded, or just starting."""

MIN_FREE = 50_000_000
"""Bytes that the database of a server must have room for; it grows by 20 kB per task run."""

POLL_INTERVAL = 0.25
"""Seconds between two attempts to reach a server, or to get the lock."""

WATCH_INTERVAL = 2.0
"""Seconds between two looks at whether the server of a sweep still listens."""


def ensure_running(port: int, api: str) -> None:
    """Start a server at `port` unless one answers there or is about to.

    Raises RunError if it does not start, PREFECT_HOME is not writable, or another program has the port.
    """
    if healthy(api):
        return
    home = _writable_home()
    require_space()
    with _exclusive(home / "netsim-server.lock", until=lambda: healthy(api)):
        if healthy(api):
            return
        if is_listening(HOST, port):
            _wait_for_busy_server(port, api)
        elif _starting_servers(port):  # begun by a command that was killed meanwhile
            _require_start(api, alive=lambda: bool(_starting_servers(port)))
        else:
            _start(port, api)


def keep_running(port: int, api: str, finished: Event) -> None:
    """Start the server at `port` again whenever it has ended, with one warning, until `finished` is set.

    Work goes on meanwhile, and Prefect repeats the reports that the server missed for about a minute. A server that
    does not start again is a second warning, and is left alone.
    """
    while not finished.wait(WATCH_INTERVAL):
        if is_listening(HOST, port):
            continue
        announcements.warning("the Prefect server at %s has ended and is started again; work goes on meanwhile", api)
        try:
            ensure_running(port, api)
        except RunError as error:
            announcements.warning("%s; completed shards are kept", error)
            return
        record_process(port)


def require_home() -> None:
    """Raise RunError if a server that is started here could not write its database."""
    _writable_home()
    require_space()


def require_space() -> None:
    """Raise RunError if the disk of a server on this machine is nearly full: its answers would be errors."""
    with suppress(OSError):
        free = shutil.disk_usage(_home()).free
        if free < MIN_FREE:
            raise RunError(
                f"the disk of {_home()}, where a Prefect server keeps its database, must have {MIN_FREE / 1e6:.0f} MB "
                f"free, got {free / 1e6:.0f} MB. Free some, or set PREFECT_HOME to another folder"
            )


def record_process(port: int) -> bool:
    """Write the process that listens at `port` to server.pid, for `prefect server stop`; return whether it is known."""
    pid = listening_process(port)
    if pid is None:
        return False
    file = _home() / "server.pid"
    try:
        if not file.exists() or file.read_text() != str(pid):
            file.write_text(str(pid))
    except OSError:  # a server that runs is of use without
        return False
    return True


def short_authorities() -> str | None:
    """Return a file of one certificate, for clients of a server that uses no TLS; None if it can't be written.

    Prefect reads the certificates of all authorities twice per task run, 140 of them, which was 60 % of what a task run
    costs a worker. This one is made here, and nothing else trusts it.
    """
    file = _home() / "netsim-authority.pem"
    try:
        if not file.exists():
            written = file.with_suffix(f".{os.getpid()}")
            written.write_text(Security.temporary().tls_ca_file)
            written.rename(file)
    except OSError:
        return None
    return str(file)


def _home() -> Path:
    return Path(PREFECT_HOME.value())


def _writable_home() -> Path:
    """Return PREFECT_HOME, created if it is missing. Raises RunError if nothing can be written there."""
    home = _home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / "netsim-server.log").open("ab"):
            return home
    except OSError as error:
        raise RunError(
            f"cannot write to {home}, where a Prefect server keeps its database ({error.strerror}). "
            "Set PREFECT_HOME to a folder on a local disk, or PREFECT_API_URL to a server"
        ) from None


@contextmanager
def _exclusive(path: Path, *, until: Callable[[], bool]) -> Iterator[None]:
    """Hold the lock at `path` during the block; enter without it once `until` is true, or after START_TIMEOUT."""
    deadline = time.monotonic() + START_TIMEOUT
    with path.open("ab") as file:
        while not _try_lock(file) and not until() and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)
        yield


def _try_lock(file: BinaryIO) -> bool:
    """Lock a file unless another process has; where the file system knows no locks (some NFS), act as if locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _start(port: int, api: str) -> None:
    """Start a server in a session of its own, out of reach of Ctrl-C in this terminal."""
    with _log().open("ab") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=_browser_protection(port) | LEASES | os.environ | OFFLINE,
        )
    try:  # where it ends because another program has started one, that one may come up
        _require_start(api, alive=lambda: server.poll() is None or bool(_starting_servers(port)))
    except BaseException:
        server.terminate()
        server.wait()
        raise


def _log() -> Path:
    return _home() / "netsim-server.log"


def _browser_protection(port: int) -> dict[str, str]:
    """Return settings that keep pages of other sites, open in a user's browser, from using the server."""
    return {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }


def _starting_servers(port: int) -> list[int]:
    """List the processes of this user that run `prefect server start --port PORT`."""
    pids = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if {"server", "start", "--port", str(port)} <= set(words) and process.uids().real == os.getuid():
                pids.append(process.pid)
    return pids


def _require_start(api: str, *, alive: Callable[[], bool]) -> None:
    if not _wait(api, seconds=START_TIMEOUT, alive=alive):
        raise RunError(f"the Prefect server at {api} did not start. See its log {_log()}")


def _wait_for_busy_server(port: int, api: str) -> None:
    if not _wait(api, seconds=BUSY_TIMEOUT):
        raise RunError(
            f"port {port} is in use by a program that is not a Prefect server. "
            "Set PREFECT_SERVER_API_PORT to a free port, or PREFECT_API_URL to a server"
        )


def _wait(api: str, *, seconds: float, alive: Callable[[], bool] = lambda: True) -> bool:
    """Wait until a server is healthy, whoever started it; return whether one is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and alive():
        if healthy(api):
            return True
        time.sleep(POLL_INTERVAL)
    return healthy(api)
