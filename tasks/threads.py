"""Background threads that share the Prefect context."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread


@contextmanager
def background_thread(work: Callable[[Event], None]) -> Iterator[None]:
    """Run `work` in a daemon thread for the duration of the block.

    Parameters
    ----------
    work
        Called with an event that is set when the block ends; it should return soon after.
    """
    finished = Event()
    # the copied context knows the server; without it, Prefect would start a temporary one for each request
    Thread(target=copy_context().run, args=(work, finished), daemon=True).start()
    try:
        yield
    finally:
        finished.set()
