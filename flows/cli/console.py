"""Progress of a run in a terminal: a status table, and bars that follow the store while a sweep works."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from threading import Event, Thread
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.segment import Segments
from rich.table import Column, Table
from rich.text import Text

from netsim.errors import StoreError, printable
from netsim.storage.concurrency import concurrently
from netsim.storage.stopwatch import Stopwatch
from netsim.store.quarantine import quarantined
from netsim.store.run import Run
from netsim.store.stages import STAGES, Stage, unit_label
from netsim.store.status import StageStatus, stage_status, status, unreadable
from netsim.store.throughput import Throughput, throughput_table

WIDE = 120
"""Columns of output that goes to a file or a pipe: enough for nine networks."""


class _LastingConsole(Console):
    """A console that a sweep outlives: without a reader, as after `| head`, output is dropped and work continues."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


# Text is never markup: a path or a name may have brackets and colons.
console = _LastingConsole(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else WIDE)
errors = _LastingConsole(stderr=True, markup=False, emoji=False, highlight=False)

LONGEST = 24
"""Characters of a word that a column of text always has room for; longer ones are broken."""

MAX_NAMED = 3
"""Unreadable images, and incomplete networks, listed by name; --json lists all."""


def table_of(first: str, *others: str) -> Table:
    """Return an empty table with a left-aligned first column and right-aligned others."""
    table = Table(Column(first, overflow="fold"), box=box.SIMPLE_HEAD, pad_edge=False)
    for title in others:
        table.add_column(title, justify="right")
    return table


def plain(text: str) -> Text:
    """Return text from a store or a server as it is, without markup or control characters."""
    return Text(printable(text))


def show(title: str, table: Table) -> None:
    """Print a table under a bold title, wider than the terminal if names or numbers would be cut otherwise."""
    console.print(Text(title, style="bold"), soft_wrap=True)
    for column in table.columns:
        column.min_width = _least_width(column)
    lines = console.render(table, console.options.update(width=console.width))
    console.print(Segments(lines), crop=False, soft_wrap=True, end="")


def _least_width(column: Column) -> int:
    """Return the characters that a column needs: whole numbers, and the longest word of a title or text, up to 24."""
    cells = [cell.plain if isinstance(cell, Text) else str(cell) for cell in column.cells]
    parts = cells if column.justify == "right" else [word[:LONGEST] for cell in cells for word in cell.split()]
    return max(map(cell_len, [*parts, *str(column.header).split()]), default=0)


def show_status(run: Run) -> None:
    """Print one line per stage (done, missing, rate, time left), then skipped images and quarantined shards."""
    table = table_of("stage", "done", "missing", "per minute", "time left")
    table.add_column("missing from")
    parts: list[Callable[[Run], Any]] = [status, unreadable, quarantined]
    stages, splits, units = concurrently(lambda part: part(run), parts)
    for stage in stages:
        behind = [f"{name} {total - done}" for name, (done, total) in stage.by_name.items() if done < total]
        rate = f"{60 * stage.rate:.1f}" if stage.rate and behind else ""
        left = _duration(stage.seconds_left) if behind else ""
        missing = _first_few(behind)
        table.add_row(stage.name, str(stage.done), str(stage.total - stage.done), rate, left, missing)
    label = f", sweep {run.sweep.label}" if run.sweep.label else ""
    if run.sweep.at_most is not None:
        label += f", look at {run.settings.pairs.count:,} of at most {run.sweep.at_most:,} pairs"
    show(f"{run.url}  (run {run.digest}{label})", table)
    for split, checked in splits.items():
        if names := [f"{image.name} ({image.why})" for image in checked.unreadable]:
            summary = f"{len(names)} of {checked.listed} {split} images are unreadable and skipped"
            console.print(plain(f"{summary}: {_first_few(names)}"), soft_wrap=True)
        for sentence in checked.passed_over:
            console.print(plain(sentence), soft_wrap=True)
    for unit, why in units.items():
        console.print(plain(f"{unit_label(unit)} is quarantined: {why['error']}"), soft_wrap=True)


def _first_few(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def show_throughput(throughputs: list[Throughput]) -> None:
    """Print one table per stage, with one line per worker."""
    for stage, workers in groupby(throughputs, key=lambda throughput: throughput.stage):
        rows = throughput_table(list(workers))
        table = table_of("worker")
        table.add_column("device")
        for column in list(rows[0])[2:]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*row.values())
        show(f"{stage}: images per second while computing, and share of the peak speed of matrix products", table)


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


@contextmanager
def progress_bars(run: Run, stages: Sequence[Stage] = STAGES, *, every: float = 1.0) -> Iterator[None]:
    """Show bars that follow the store until the block ends; without a terminal, print one line per finished stage."""
    stop = Event()
    stages = [stage for stage in stages if stage.total(run.sweep)]
    follow = _draw_bars if console.is_terminal else _print_stages
    thread = Thread(target=follow, args=(run, stages, stop, every), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Show one bar; yields the function to call after each of `total` steps, from any thread."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda: progress.advance(bar)


def _try_stage_status(run: Run, stage: Stage) -> StageStatus | None:
    """Return None if the store can't be listed: the sweep itself fails if that lasts."""
    try:
        return stage_status(run, stage)
    except StoreError:
        return None


def _try_latest(run: Run) -> Run:
    """Return the run at its present look likewise."""
    try:
        return run.latest()
    except StoreError:
        return run


LISTING_SHARE = 0.05
"""Largest share of the time spent listing: a large run takes seconds to list, and object stores charge per page."""


def _poll_interval(every: float, took: float) -> float:
    """Return the seconds until the next listing: `every`, or longer if the last one `took` long."""
    return max(every, took / LISTING_SHARE)


class _RateAndTimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        stage: StageStatus | None = task.fields.get("status")
        if stage is None or stage.finished or not stage.rate:
            return Text("")
        return Text(f"{60 * stage.rate:.1f} per minute, {_duration(stage.seconds_left)} left", style="cyan")


def _draw_bars(run: Run, stages: Sequence[Stage], stop: Event, every: float) -> None:
    columns = (
        TextColumn("{task.description:24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _RateAndTimeLeft(),
    )
    with Progress(*columns, console=console) as progress:
        bars = [progress.add_task(stage.label, total=stage.total(run.sweep), start=False) for stage in stages]
        ended, took = False, 0.0
        while not ended:
            ended = stop.wait(_poll_interval(every, took))  # and once more after the end
            watch, before = Stopwatch(), run.sweep
            run = _try_latest(run)
            for bar, stage in zip(bars, stages, strict=True):
                if progress.tasks[bar].finished and run.sweep == before:
                    continue
                now = _try_stage_status(run, stage)
                if now is None:
                    break
                if now.done:
                    progress.start_task(bar)
                progress.update(bar, completed=now.done, total=now.total, status=now)
                if not now.finished:
                    progress.start_task(bar)
                    break
            took = watch()


def _print_stages(run: Run, stages: Sequence[Stage], stop: Event, every: float) -> None:
    waiting = list(stages)
    ended, took = False, 0.0
    while waiting and not ended:
        ended = stop.wait(_poll_interval(every, took))
        watch, run = Stopwatch(), _try_latest(run)
        while waiting and (now := _try_stage_status(run, waiting[0])) and now.finished:
            console.print(f"{now.label}: {now.done} of {now.total}")
            waiting.pop(0)
        took = watch()
