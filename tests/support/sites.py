"""A real site on this machine: a Prefect server on PostgreSQL, and workers of work pools; every part can be killed.

Requires Debian's `postgresql`. PostgreSQL refuses to run as root, so for root it runs as the user `postgres`.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import psutil

from flows.server.start import LEASES
from support.faults import PrefectServer, kill_group, start
from support.seaweed import free_ports
from support.servers import wait_until


class Postgres:
    """A database server with its data in its own folder; Prefect connects to `url`."""

    def __init__(self) -> None:
        self._programs = newest_programs()
        self.folder = Path(tempfile.mkdtemp(prefix="netsim-postgres-"))
        self._as: dict[str, Any] = {"cwd": self.folder}
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self._as |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        password, (self._port,) = secrets.token_hex(16), free_ports(1)
        self.url = f"postgresql+asyncpg://prefect:{password}@127.0.0.1:{self._port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._initialise(password)

    def _initialise(self, password: str) -> None:
        path = self.folder / "password"
        path.write_text(password)
        if "user" in self._as:
            shutil.chown(path, self._as["user"])
        path.chmod(0o400)
        options = ["--username=prefect", "--auth=scram-sha-256", f"--pwfile={path}"]
        command = [self._programs / "initdb", f"--pgdata={self.folder / 'data'}", *options]
        subprocess.run(command, check=True, capture_output=True, **self._as)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        settings = {"listen_addresses": "127.0.0.1", "port": self._port, "unix_socket_directories": self.folder}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [self._programs / "postgres", "-D", self.folder / "data", *options]
        with (self.folder / "log").open("ab") as log:
            options = {"stdout": log, "stderr": log, "start_new_session": True}
            self._process = subprocess.Popen(command, **options, **self._as)
        is_ready = [self._programs / "pg_isready", "--host=127.0.0.1", f"--port={self._port}"]
        wait_until(
            lambda: subprocess.run(is_ready, capture_output=True, check=False).returncode == 0,
            seconds=60,
            what=lambda: (self.folder / "log").read_text()[-2000:],
        )

    def stop(self) -> None:
        """Stop the server fast and remove its data. If it were killed, its children would keep their shared memory."""
        if self._process:
            self._process.send_signal(signal.SIGINT)  # "fast shutdown"
            self._process.wait(timeout=60)
        shutil.rmtree(self.folder)


def newest_programs() -> Path:
    """Return the folder of the newest PostgreSQL; Debian keeps it off the PATH."""
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not servers:
        raise SystemExit("PostgreSQL is missing; apt-get install postgresql")
    return servers[-1].parent


class Worker:
    """A worker of a work pool of type process, started by Prefect's command."""

    def __init__(self, pool: str, environment: Mapping[str, str], folder: Path) -> None:
        self.log = folder / "worker.log"
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        self.process = start(command, env=environment, cwd=folder, log=self.log)

    def kill(self, *, but: Collection[psutil.Process] = ()) -> None:
        """Kill the worker with all its runs, as when a machine loses power; `but` spares some of its processes."""
        if self.process.poll() is None:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                if process not in but:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            kill_group(self.process)


class Site(PrefectServer):
    """A Prefect server on PostgreSQL with the settings of deploy/compose.yaml."""

    def __init__(self, folder: Path, database: Postgres) -> None:
        auth = f"admin:{secrets.token_hex(16)}"
        super().__init__(
            folder,
            PREFECT_API_DATABASE_CONNECTION_URL=database.url,
            PREFECT_SERVER_API_AUTH_STRING=auth,
            **LEASES,
        )
        self.environment |= {"PREFECT_API_AUTH_STRING": auth}
