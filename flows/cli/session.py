"""The environment of a flow in a terminal: server, progress bars, Ctrl-C, and the closing lines."""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from flows.clusters.settings import AnyCluster


def cluster_options(cluster: "AnyCluster", file: str | None) -> str:
    """Return the options that select this cluster again; `file` is the settings file that describes it, if any."""
    options = f" --credentials {quote(cluster.credentials)}" if cluster.credentials else ""
    if cluster.kind == "scheduler":
        options += f" --scheduler {quote(cluster.address)}" + (f" --tls {quote(cluster.tls)}" if cluster.tls else "")
    elif cluster.kind != "local" and file:
        options += f" --cluster {quote(file)}"
    return options


def use_credentials(credentials: str | None, debug: bool) -> None:
    """Load a credentials block before the store is opened; starts a Prefect server if none runs, which holds blocks."""
    if credentials is None:
        return
    silence_logs(debug)
    from flows.server.credentials import use_block
    from flows.server.server import prefect_server

    with prefect_server():
        use_block(credentials)


def report_nothing_to_do(opened: Any, debug: bool) -> None:
    """Tell that nothing is missing, and close flow runs that were killed before Prefect heard of their end."""
    silence_logs(debug)
    from flows.cli import console
    from flows.server.server import existing_prefect_server
    from tasks.prefect_runs import close_orphaned_runs

    with existing_prefect_server() as running:
        if running:
            close_orphaned_runs(opened.url)
    console.console.print("nothing to do: the run is complete")


@contextmanager
def flow_session(opened: Any, stages: Sequence[Any], debug: bool) -> Iterator[None]:
    """Provide what a flow needs in a terminal: a Prefect server, progress bars of `stages`, and a sound Ctrl-C."""
    silence_logs(debug)
    from flows.cli import console
    from flows.server.server import prefect_server

    with prefect_server() as server:
        keeps = " (the server keeps running; stop it with `prefect server stop`)" if server.stoppable else ""
        console.console.print(f"follow it at {server.ui}{keeps}", soft_wrap=True)
        with console.progress_bars(opened, stages), printed_announcements(), preserve_keyboard_interrupt():
            yield


@contextmanager
def printed_announcements() -> Iterator[None]:
    """Print what the flow announces."""
    from flows.cli import console
    from tasks.logs import announcements

    class Printer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.errors.print(console.plain(record.getMessage()), soft_wrap=True)

    printer = Printer()
    announcements.addHandler(printer)
    try:
        yield
    finally:
        announcements.removeHandler(printer)


@contextmanager
def preserve_keyboard_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C even where a library turns it into an exception of its own."""
    from tasks.interrupts import interrupted, marked_crashed

    previous = signal.getsignal(signal.SIGINT)

    def interrupt(*_: Any) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    if previous is signal.default_int_handler:  # a shell may have set SIGINT to be ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if interrupted.is_set() and not marked_crashed.is_set():  # that has its own error
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
        interrupted.clear()  # for the next sweep of this process


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Exit with code 130 on Ctrl-C, and say how to resume."""
    from flows.cli import console

    try:
        yield
    except KeyboardInterrupt:
        console.errors.print("\nstopped. Completed shards are kept; run the same command again to resume.")
        raise typer.Exit(130) from None


def report_stopped(opened: Any, resume: str) -> None:
    """Print how far a stopped sweep came and the command that resumes it."""
    from flows.cli import console
    from netsim.store.status import status
    from tasks.interrupts import cancelled_in_prefect

    how = "cancelled in Prefect" if cancelled_in_prefect.is_set() else "stopped"
    done = ", ".join(f"{stage.name} {stage.done}/{stage.total}" for stage in status(opened))
    console.errors.print(f"\n{how}. Done: {done}.\nrun `{resume}` to resume", soft_wrap=True)


def silence_logs(debug: bool) -> None:
    """Keep logs out of this terminal unless `debug`; the Prefect UI has them. Call it before Prefect is imported."""
    from flows.server.offline import OFFLINE

    os.environ.update({name: value for name, value in OFFLINE.items() if name not in os.environ})
    if not debug:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # inherited by workers
