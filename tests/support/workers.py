"""The processes that a command computes in: workers, and the one that they are forked from."""

import contextlib

import psutil


def forkserver_of(pid: int) -> psutil.Process | None:
    """Return the process that the workers of a command are forked from; None while there is none."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "forkserver" in " ".join(child.cmdline()):
                    return child
    return None


def workers_of(pid: int) -> list[psutil.Process]:
    """List the worker processes of a command."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if forkserver := forkserver_of(pid):
            return forkserver.children()
    return []
