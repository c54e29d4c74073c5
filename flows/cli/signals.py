"""Signals that stop a flow in a terminal: Ctrl-C, SIGTERM and SIGHUP all end it in the same, orderly way."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; `kill`, and job schedulers before a kill -9; a terminal that is closed."""

DEFAULT_HANDLERS = (signal.SIG_DFL, signal.default_int_handler)


class Stopped(KeyboardInterrupt):
    """Raised instead of a KeyboardInterrupt that came of a signal.

    Attributes
    ----------
    exit_code
        128 and the number of the signal, as in shells.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number))
        self.exit_code = 128 + number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise Stopped on a signal, even where a library turns the interrupt into an exception of its own.

    A signal that is ignored stays so: `nohup` ignores SIGHUP, and shells ignore SIGINT for what is in the background.
    """
    from tasks.interrupts import interrupted, marked_crashed

    received: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        received.append(number)
        interrupted.set()
        raise KeyboardInterrupt

    try:
        with _handled(interrupt):
            yield
    except BaseException as error:
        if received and not marked_crashed.is_set():  # that has its own error
            raise Stopped(received[0]) from error
        raise
    finally:
        interrupted.clear()  # for the next sweep of this process


@contextmanager
def _handled(handler: Any) -> Iterator[None]:
    """Handle the signals that stop and are not ignored."""
    with ExitStack() as restored:
        numbers = [number for number in STOPPING if signal.getsignal(number) in DEFAULT_HANDLERS]
        for number in numbers:
            restored.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
        resource_tracker.ensure_running()  # inherits that: it would end before the workers that it serves
        for number in numbers:
            signal.signal(number, handler)
        yield
