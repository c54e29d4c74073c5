"""Names of processes that other processes can judge: is it gone? Only what is certain counts.

The number of a process means something in its own PID namespace only, until the machine restarts, and containers and
other machines may have the same host name. So a name holds all of that, and a process is gone if

* it began in the namespace of this process, which has no such process now; or
* it began on this machine, which has restarted since, and neither process is in a container.

A process that is merely not visible from here is not gone.
"""

import os
import socket
import uuid
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import psutil

PREFIX = "process"

HOST_NAMESPACE = "4026531836"
"""PID namespace of all processes of a Linux machine that are in no container (PROC_PID_INIT_INO of the kernel)."""

CLOCK_TOLERANCE = 60.0
"""Seconds by which the start time of a process may move when the clock is corrected."""


class ProcessName(NamedTuple):
    """Identity of a process: its machine, the start of that machine, its PID namespace, its number and its start."""

    host: str
    machine: str
    boot: str
    namespace: str
    pid: int
    created: int

    def __str__(self) -> str:
        """Return it as a tag of runs in Prefect."""
        return ":".join((PREFIX, *map(str, self)))


def this_process() -> ProcessName:
    """Name this process."""
    created = round(psutil.Process().create_time())
    return ProcessName(socket.gethostname(), _machine(), _boot(), _namespace(), os.getpid(), created)


def parse_tag(tag: str) -> ProcessName | None:
    """Return the process that a tag names; None for other tags, and for those of older versions of netsim."""
    kind, *fields = tag.split(":")
    if kind != PREFIX or len(fields) != len(ProcessName._fields):
        return None
    host, machine, boot, namespace, pid, created = fields
    return ProcessName(host, machine, boot, namespace, int(pid), int(created))


def is_gone(name: ProcessName) -> bool:
    """Tell whether a process has certainly ended."""
    this = this_process()
    same_machine = name[:2] == this[:2]
    if name.boot == this.boot and (this.boot or same_machine):
        return name.namespace == this.namespace and not _may_run(name.pid, name.created)
    return same_machine and name.namespace == this.namespace == HOST_NAMESPACE


def _may_run(pid: int, created: int) -> bool:
    """Tell whether the process may run; another process with the same number has another start time."""
    try:
        os.kill(pid, 0)
        return abs(psutil.Process(pid).create_time() - created) < CLOCK_TOLERANCE
    except ProcessLookupError:
        return False
    except (OSError, psutil.Error):  # of another user; with hidepid, /proc does not show it
        return True


def _machine() -> str:
    """Return a digest of what distinguishes machines of the same name: their identifier and network hardware."""
    return blake2b(f"{_read('/etc/machine-id')} {uuid.getnode()}".encode(), digest_size=4).hexdigest()


def _boot() -> str:
    """Return an identifier of this start of the machine; empty on systems other than Linux."""
    return _read("/proc/sys/kernel/random/boot_id").partition("-")[0]


def _namespace() -> str:
    """Return the number of the PID namespace; empty on systems other than Linux."""
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
