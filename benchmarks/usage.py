"""User time, system time and page faults of the work in a benchmark."""

import resource
from collections.abc import Callable
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


def so_far(who: int = resource.RUSAGE_SELF) -> Usage:
    """Return what this process, or with RUSAGE_CHILDREN its ended children, used so far."""
    used = resource.getrusage(who)
    return Usage(used.ru_utime, used.ru_stime, used.ru_minflt)


def usage_of(work: Callable[[], object]) -> Usage:
    """Run `work`, and return what it used."""
    before = so_far()
    work()
    return so_far() - before
