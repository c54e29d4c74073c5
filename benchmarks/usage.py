"""User time, system time and page faults of the work in a benchmark."""

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Seconds of all threads in the program and in the system, and page faults without disk access."""

    user: float
    system: float
    faults: float

    @property
    def cpu(self) -> float:
        """CPU seconds, user and system."""
        return self.user + self.system

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.user - other.user, self.system - other.system, self.faults - other.faults)

    def __truediv__(self, count: float) -> "Usage":
        return Usage(self.user / count, self.system / count, self.faults / count)

    def __str__(self) -> str:
        return f"user {self.user:.1f} s, system {self.system:.1f} s, {self.faults:,.0f} page faults"


PR_SET_CHILD_SUBREAPER = 36
"""Option of Linux' prctl."""

ORPHANS_END = 5.0
"""Seconds that processes without a parent are given to end."""


def adopt_orphans() -> None:
    """Become the parent of processes whose parent ends, so that they count as children: workers, for example.

    Only on Linux; elsewhere, what they use is not counted.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans() -> None:
    """Wait a moment for adopted processes. Call it while no child of this process's own is running."""
    deadline = time.monotonic() + ORPHANS_END
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)


def so_far(who: int = resource.RUSAGE_SELF) -> Usage:
    """Return what this process, or with RUSAGE_CHILDREN its ended children, used so far."""
    used = resource.getrusage(who)
    return Usage(used.ru_utime, used.ru_stime, used.ru_minflt)


def usage_of(work: Callable[[], object]) -> Usage:
    """Run `work`, and return what it used."""
    before = so_far()
    work()
    return so_far() - before
