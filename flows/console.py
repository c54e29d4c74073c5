"""What the command line shows: tables of results, and bars that follow the store while a run works."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from netsim.findings import biased_headline, headline, number, warnings
from netsim.results import Matrix, Results
from netsim.stages import STAGES
from netsim.status import StageStatus, stage_status, status
from netsim.store import Run

WIDE = 120  # columns for nine networks, where there is no terminal that has a width

console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, highlight=False)


def show_results(results: Results) -> None:
    """Both matrices, the means, the networks, and every reason to doubt them."""
    _show_matrix("Natural CKA", results.networks, results.natural)
    _show_matrix("Inverted CKA, row = inverted through, column = observer", results.networks, results.inverted)
    _show_networks(results)
    console.print(f"{headline(results)}.\n{biased_headline(results)}.", soft_wrap=True)
    for doubt in warnings(results):
        console.print(f"WARNING  {doubt}", style="bold red", soft_wrap=True)


def _show_matrix(title: str, networks: tuple[str, ...], matrix: Matrix) -> None:
    largest = np.nanmax(matrix.cka_unbiased_se)
    table = _table("", *networks)
    for row, name in enumerate(networks):
        table.add_row(name, *(number(value, 2) for value in matrix.cka_unbiased[row]))
    _show(f"{title}, unbiased; the largest standard error of a cell is {largest:.3f}", table)


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=box.SIMPLE_HEAD, pad_edge=False)
    for title in others:
        table.add_column(title, justify="right")
    return table


def _show(title: str, table: Table) -> None:
    console.print(f"[bold]{title}[/bold]", soft_wrap=True)
    console.print(table)


def _show_networks(results: Results) -> None:
    table = _table("", "test accuracy", "initial loss", "final loss", "distance", "converged")
    for name in results.networks:
        loss, converged = results.loss[name], results.converged[name]
        table.add_row(
            name,
            f"{results.facts[name].accuracy:.1%}",
            f"{np.median(loss.initial):.3f}",
            f"{loss.median:.3f}",
            f"{np.median(loss.distance):.2f}",
            Text("yes" if converged else "NO", style="green" if converged else "bold red"),
        )
    _show("Networks and their inversions: medians of relative loss, and of L2 distance from the seed", table)


def show_status(run: Run) -> None:
    """A line per stage: done, missing, rate, time left, and where shards are missing."""
    table = _table("stage", "done", "missing", "a minute", "time left")
    table.add_column("missing from")
    for stage in status(run):
        behind = [f"{name} {total - done}" for name, (done, total) in stage.by_name.items() if done < total]
        more = f" and {len(behind) - 3} more" if len(behind) > 3 else ""
        rate = f"{60 * stage.rate:.1f}" if stage.rate and behind else ""
        left = _duration(stage.seconds_left) if behind else ""
        missing = ", ".join(behind[:3]) + more
        table.add_row(stage.name, str(stage.done), str(stage.total - stage.done), rate, left, missing)
    _show(f"{run.url}  (run {run.digest})", table)


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


@contextmanager
def progress_bars(run: Run, *, every: float = 1.0) -> Iterator[None]:
    """Bars that follow what the store says is done, until the block ends. On no terminal: a line per finished stage."""
    stop = Event()
    follow = _draw_bars if console.is_terminal else _print_stages
    thread = Thread(target=follow, args=(run, stop, every), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class _RateAndTimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        stage: StageStatus | None = task.fields.get("status")
        if stage is None or stage.finished or not stage.rate:
            return Text("")
        return Text(f"{60 * stage.rate:.1f} a minute, {_duration(stage.seconds_left)} left", style="cyan")


def _draw_bars(run: Run, stop: Event, every: float) -> None:
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _RateAndTimeLeft(),
    )
    with Progress(*columns, console=console) as progress:
        bars = [progress.add_task(stage.says, total=stage.total(run.settings), start=False) for stage in STAGES]
        ended = False
        while not ended:
            ended = stop.wait(every)  # one last look after the end
            for bar, stage in zip(bars, STAGES, strict=True):
                if progress.tasks[bar].finished:
                    continue
                now = stage_status(run, stage)
                if now.done:
                    progress.start_task(bar)
                progress.update(bar, completed=now.done, status=now)
                if not now.finished:
                    progress.start_task(bar)
                    break


def _print_stages(run: Run, stop: Event, every: float) -> None:
    waiting = list(STAGES)
    ended = False
    while waiting and not ended:
        ended = stop.wait(every)
        while waiting and (now := stage_status(run, waiting[0])).finished:
            console.print(f"{now.says}: {now.done} of {now.total}")
            waiting.pop(0)
