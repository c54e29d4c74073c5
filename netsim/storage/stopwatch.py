"""Elapsed time, and the part of it that is spent waiting for storage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Stopwatch:
    """Seconds since it was made: call it to read it."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self) -> float:
        """Return the seconds since it was made."""
        return time.perf_counter() - self._start


class WaitingTime:
    """Seconds spent waiting, so far."""

    def __init__(self) -> None:
        self.seconds = 0.0


_counter: ContextVar[WaitingTime | None] = ContextVar("counter", default=None)


@contextmanager
def count_waiting() -> Iterator[WaitingTime]:
    """Add up the time that this thread spends in `waiting` blocks.

    Examples
    --------
    >>> with count_waiting() as waited:
    ...     with waiting():
    ...         pass
    >>> waited.seconds < 1
    True
    """
    counter = WaitingTime()
    token = _counter.set(counter)
    try:
        yield counter
    finally:
        _counter.reset(token)


@contextmanager
def waiting() -> Iterator[None]:
    """Count the duration of the block as time spent waiting for storage."""
    watch = Stopwatch()
    try:
        yield
    finally:
        if counter := _counter.get():
            counter.seconds += watch()
