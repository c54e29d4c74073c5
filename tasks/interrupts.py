"""Reasons to stop the sweep of this process: Ctrl-C, cancelled in Prefect, or marked as crashed by Prefect."""

from threading import Event

interrupted = Event()
"""Set when the user pressed Ctrl-C."""

cancelled_in_prefect = Event()
"""Set when the sweep of this process was cancelled in the UI or through the API."""

marked_crashed = Event()
"""Set when Prefect marked the sweep of this process as crashed, for example because no heartbeat arrived."""


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if the process was told to stop.

    A library may have turned the original KeyboardInterrupt into an error of its own, such as that of a server that
    did not answer, and such errors do not end a sweep.
    """
    if any(event.is_set() for event in (interrupted, cancelled_in_prefect, marked_crashed)):
        raise KeyboardInterrupt
