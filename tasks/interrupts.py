"""Why the sweep of this process is to end: Ctrl-C, cancelled in Prefect, or taken for crashed."""

from threading import Event

interrupted = Event()
"""Whether somebody pressed Ctrl-C."""


cancelled_in_prefect = Event()
"""Whether somebody cancelled the sweep of this process, in the UI or by the API."""


marked_crashed = Event()
"""Whether Prefect has the sweep of this process for crashed, as when no heartbeat came through."""


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt if there was one: a library may have made an error of its own of it, as of a server that
    did not answer, and such errors end no sweep.
    """
    if any(event.is_set() for event in (interrupted, cancelled_in_prefect, marked_crashed)):
        raise KeyboardInterrupt
