"""Forwarding of the library's log messages to the Prefect log of the task that caused them, and announcements."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect import get_run_logger

library = logging.getLogger("netsim")
library.setLevel(logging.INFO)

announcements = logging.getLogger("tasks.announcements")
"""Logger of messages for the user of a flow: the command line prints them, though it keeps logs out of the terminal."""

announcements.propagate = False
announcements.setLevel(logging.INFO)
announcements.addHandler(logging.NullHandler())


def announce(message: str, level: int = logging.WARNING) -> None:
    """Tell the user of the current flow something, in the Prefect log and in the terminal."""
    get_run_logger().log(level, message)
    announcements.log(level, message)


class _Forward(logging.Handler):
    def __init__(self, target: Any, prefix: Callable[[], str]) -> None:
        super().__init__()
        self._target, self._prefix, self._thread = target, prefix, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:  # other threads of a worker may run other tasks
            self._target.log(record.levelno, "%s: %s", self._prefix(), record.getMessage())


@contextmanager
def forward_logs(target: Any, prefix: Callable[[], str]) -> Iterator[None]:
    """Forward what this thread logs to the logger `netsim` inside the block.

    Parameters
    ----------
    target
        Logger to forward to, such as the one of a Prefect task run.
    prefix
        Called for each message; its result is put before the message, separated by a colon.
    """
    handler = _Forward(target, prefix)
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)
