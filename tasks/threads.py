"""Background threads that know the Prefect context."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread


@contextmanager
def background_thread(work: Callable[[Event], None]) -> Iterator[None]:
    """`work` in a thread, until the event that it is given is set: at the end of the body."""
    over = Event()
    # in this context, which knows the server: without, Prefect would start a temporary one at every look
    Thread(target=copy_context().run, args=(work, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
