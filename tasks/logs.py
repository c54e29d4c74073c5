"""What the library says while a task works, in the task's log of Prefect, with the shard in each line."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

library = logging.getLogger("netsim")
library.setLevel(logging.INFO)


class _Forward(logging.Handler):
    def __init__(self, to: Any, where: Callable[[], str]) -> None:
        super().__init__()
        self._to, self._where, self._thread = to, where, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:  # a worker may have a task in each of its threads
            self._to.log(record.levelno, "%s: %s", self._where(), record.getMessage())


@contextmanager
def forwarded(to: Any, where: Callable[[], str]) -> Iterator[None]:
    """Have what the logger `netsim` is told by this thread go to the logger `to`, behind what `where` says."""
    handler = _Forward(to, where)
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)
