"""What surrounds a flow in a terminal: server, progress bars, Ctrl-C, and what is printed at the end."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import Any

import typer

from flows.clusters.settings import AnyCluster


def cluster_options(cluster: AnyCluster, file: str | None) -> str:
    """Options that say this cluster again; `file` is where it is said if it is no other."""
    said = f" --credentials {quote(cluster.credentials)}" if cluster.credentials else ""
    if cluster.kind == "scheduler":
        said += f" --scheduler {quote(cluster.address)}" + (f" --tls {quote(cluster.tls)}" if cluster.tls else "")
    elif cluster.kind != "local" and file:
        said += f" --cluster {quote(file)}"
    return said


def use_credentials(credentials: str | None, debug: bool) -> None:
    """Before the store is opened. Blocks are kept by a Prefect server, so there must be one now."""
    if credentials is None:
        return
    silence_logs(debug)
    from flows.server.credentials import use_block
    from flows.server.server import prefect_server

    with prefect_server():
        use_block(credentials)


def report_nothing_to_do(opened: Any, debug: bool) -> None:
    """Nothing is missing. Whoever computed the last of it may have been killed before Prefect heard that it ended."""
    silence_logs(debug)
    from flows.cli import console
    from flows.server.server import prefect_server_that_is_up
    from tasks.prefect_runs import close_orphaned_runs

    with prefect_server_that_is_up() as up:
        if up:
            close_orphaned_runs(opened.url)
    console.console.print("everything is done already; nothing was computed")


@contextmanager
def watched(opened: Any, units: Sequence[Any], debug: bool) -> Iterator[None]:
    """For a flow: with a Prefect server, and bars that follow the store."""
    silence_logs(debug)
    from flows.cli import console
    from flows.server.server import prefect_server

    with prefect_server() as ui:
        console.console.print(f"watch it at {ui} (the server stays; `prefect server stop` ends it)", soft_wrap=True)
        with console.progress_bars(opened, units), ctrl_c_stays_ctrl_c():
            yield


@contextmanager
def ctrl_c_stays_ctrl_c() -> Iterator[None]:
    """Libraries make errors of their own of a KeyboardInterrupt that meets them in the middle of something."""
    from tasks.interrupts import interrupted, marked_crashed

    before = signal.getsignal(signal.SIGINT)

    def press(*_: Any) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    if before is signal.default_int_handler:  # and not one that a shell had ignored
        signal.signal(signal.SIGINT, press)
    try:
        yield
    except Exception as error:
        if interrupted.is_set() and not marked_crashed.is_set():  # which has an error of its own
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        interrupted.clear()  # another sweep of this process is none of its business


@contextmanager
def resumable() -> Iterator[None]:
    from flows.cli import console

    try:
        yield
    except KeyboardInterrupt:
        console.errors.print("\nstopped. Nothing done is lost; the same command goes on from here.")
        raise typer.Exit(130) from None


def report_stopped(opened: Any, again: str) -> None:
    from flows.cli import console
    from netsim.store.status import status
    from tasks.interrupts import cancelled_in_prefect

    how = "cancelled in Prefect" if cancelled_in_prefect.is_set() else "stopped"
    done = ", ".join(f"{stage.name} {stage.done}/{stage.total}" for stage in status(opened))
    console.errors.print(f"\n{how}. Done: {done}.\nNothing done is lost; `{again}` goes on from here.", soft_wrap=True)


def silence_logs(debug: bool) -> None:
    """Logs go to the Prefect UI; this terminal is for progress, and with --debug for logs too. Before prefect loads."""
    from flows.server.offline import OFFLINE

    os.environ.update({name: value for name, value in OFFLINE.items() if name not in os.environ})
    if not debug:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # workers inherit it
