"""The environment of a flow in a terminal: server, progress bars, Ctrl-C, and the closing lines."""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from flows.cli.orchestrators import load_orchestrators, load_prefect, quieten
from flows.cli.signals import stopped_by_signals
from flows.clusters.forkserver import start_fork_server

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
    load_orchestrators(debug)
    from flows.server.credentials import use_block
    from flows.server.server import prefect_server

    with prefect_server():
        use_block(credentials)


def report_nothing_to_do(opened: Any, debug: bool) -> None:
    """Tell that nothing is missing, and close flow runs that were killed before Prefect heard of their end."""
    load_prefect(debug)
    from flows.cli import console
    from flows.server.server import existing_prefect_server
    from tasks.prefect_runs import close_orphaned_runs

    with existing_prefect_server() as running:
        if running:
            close_orphaned_runs(opened.url)
    console.progress.print("nothing to do: the run is complete")


def describe_flow(url: str, debug: bool) -> tuple[str, dict[str, Any] | None]:
    """Describe the flow run on a store that began last, in a sentence and for JSON; None if no server tells."""
    load_prefect(debug)
    import httpx
    from prefect.settings import PREFECT_API_URL

    from flows.server.server import existing_prefect_server
    from netsim.results.listing import age
    from tasks.landing import redact_password, run_page
    from tasks.prefect_runs import latest_flow

    with existing_prefect_server() as answers:
        server = redact_password(PREFECT_API_URL.value() or "").removesuffix("/").removesuffix("/api")
        try:
            flow = latest_flow(url) if answers else None
            page = run_page(flow.id) if flow and flow.running else ""
        except httpx.HTTPError:
            answers = False
    if not answers:
        return f"Whether a flow is running is unknown: no Prefect server answers at {server}.", None
    if flow is None:
        return f"No flow is running, and none is known to the Prefect server at {server}.", {"running": False}
    content = {"running": flow.running} | flow._asdict()
    if flow.running:
        return f"{flow.name} is {flow.state.lower()}, since {age(flow.since)}: {page}", content
    why = f": {flow.message}" if flow.message else ""
    return f"No flow is running; {flow.name}, the last one, {flow.state.lower()} {age(flow.since)} ago{why}", content


@contextmanager
def flow_session(opened: Any, stages: Sequence[Any], cluster: "AnyCluster", debug: bool) -> Iterator[None]:
    """Provide what a flow needs in a terminal: a Prefect server, progress bars of `stages`, and a sound Ctrl-C."""
    quieten(debug)
    if cluster.kind == "local":
        start_fork_server()
    load_orchestrators(debug)
    from flows.cli import console
    from flows.server.server import prefect_server

    with stopped_by_signals(), prefect_server() as server:
        keeps = "; it keeps running, and `prefect server stop` stops it" if server.stoppable else ""
        console.progress.print(f"Prefect server {server.ui}{keeps}", soft_wrap=True)
        with console.progress_bars(opened, stages), printed_announcements():
            yield


@contextmanager
def printed_announcements() -> Iterator[None]:
    """Print what the flow announces: information as progress, and warnings among the errors."""
    from flows.cli import console
    from tasks.logs import announcements

    class Printer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            target = console.errors if record.levelno >= logging.WARNING else console.progress
            target.print(console.plain(record.getMessage()), soft_wrap=True)

    printer = Printer()
    announcements.addHandler(printer)
    try:
        yield
    finally:
        announcements.removeHandler(printer)


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Exit on a signal that stops, and say how to resume."""
    try:
        yield
    except KeyboardInterrupt as error:
        _report("stopped. Completed shards are kept; run the same command again to resume.")
        raise typer.Exit(exit_code(error)) from None


def report_stopped(opened: Any, resume: str) -> None:
    """Print how far a stopped sweep came and the command that resumes it."""
    from netsim.store.status import progress_line
    from tasks.interrupts import cancelled_in_prefect

    how = "cancelled in Prefect" if cancelled_in_prefect.is_set() else "stopped"
    _report(f"{how}. Done: {progress_line(opened)}.\nrun `{resume}` to resume")


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of a command that was stopped: by Ctrl-C, if nothing else is known."""
    return getattr(interrupt, "exit_code", 128 + signal.SIGINT)


def _report(text: str) -> None:
    from flows.cli import console

    with suppress(OSError):  # the terminal may be closed
        console.errors.print(f"\n{text}", soft_wrap=True)
