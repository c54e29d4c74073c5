"""Cancelling work from outside: what computes asks regularly, whoever runs it decides.

An inversion or a training is one long call. It calls `check_cancelled` at each iteration and each read; by default that
does nothing. A task runner installs its own check for the duration of a shard, which raises to end the work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def cancellation(check: Callable[[], None]) -> Iterator[None]:
    """Have `check_cancelled` call `check` inside the block, in this thread.

    Parameters
    ----------
    check
        Called at each iteration, training step and read; it raises `TaskCancelled` to end the work.

    Examples
    --------
    >>> calls = []
    >>> with cancellation(lambda: calls.append("checked")):
    ...     check_cancelled()
    >>> check_cancelled()
    >>> calls
    ['checked']
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def check_cancelled() -> None:
    """Raise whatever the installed check raises; do nothing if there is none."""
    if check := _check.get():
        check()
