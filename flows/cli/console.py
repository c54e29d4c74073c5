"""What the command line shows of a run's progress: a table, or bars that follow the store while it works."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from threading import Event, Thread

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from netsim.errors import StoreError, printable
from netsim.storage.stopwatch import Stopwatch
from netsim.store.quarantine import quarantined
from netsim.store.run import Run
from netsim.store.stages import STAGES, Stage, unit_label
from netsim.store.status import StageStatus, stage_status, status, unreadable
from netsim.store.throughput import Throughput, throughput_table

WIDE = 120  # columns for nine networks, where there is no terminal that has a width

console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, highlight=False)


NAMED = 3
"""Unreadable images that are named; --json has all."""


def table_of(first: str, *others: str) -> Table:
    table = Table(first, box=box.SIMPLE_HEAD, pad_edge=False)
    for title in others:
        table.add_column(title, justify="right")
    return table


def plain(text: str) -> Text:
    """What a store or a server says, for a terminal: it is neither markup nor does it move the cursor."""
    return Text(printable(text))


def show(title: str, table: Table) -> None:
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(table)


def show_status(run: Run) -> None:
    """A line per stage: done, missing, rate, time left, and where shards are missing."""
    table = table_of("stage", "done", "missing", "a minute", "time left")
    table.add_column("missing from")
    for stage in status(run):
        behind = [f"{name} {total - done}" for name, (done, total) in stage.by_name.items() if done < total]
        more = f" and {len(behind) - 3} more" if len(behind) > 3 else ""
        rate = f"{60 * stage.rate:.1f}" if stage.rate and behind else ""
        left = _duration(stage.seconds_left) if behind else ""
        missing = ", ".join(behind[:3]) + more
        table.add_row(stage.name, str(stage.done), str(stage.total - stage.done), rate, left, missing)
    show(f"{run.url}  (run {run.digest})", table)
    for split, found in unreadable(run).items():
        if names := [f"{image.name} ({image.why})" for image in found.unreadable]:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            says = f"{len(names)} of {found.listed} {split} images can't be read and are left out"
            console.print(plain(f"{says}: {', '.join(names[:NAMED])}{more}"), soft_wrap=True)
    for unit, why in quarantined(run).items():
        console.print(plain(f"{unit_label(unit)} is set aside: {why['error']}"), soft_wrap=True)


def show_throughput(found: list[Throughput]) -> None:
    """A table per stage, a line per worker."""
    for stage, workers in groupby(found, key=lambda one: one.stage):
        rows = throughput_table(list(workers))
        table = table_of("worker")
        table.add_column("device")
        for column in list(rows[0])[2:]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*row.values())
        show(f"{stage}: images a second while computing, and share of the peak of a matrix product", table)


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


@contextmanager
def progress_bars(run: Run, stages: Sequence[Stage] = STAGES, *, every: float = 1.0) -> Iterator[None]:
    """Bars that follow what the store says is done, until the block ends. On no terminal: a line per finished stage."""
    stop = Event()
    stages = [stage for stage in stages if stage.total(run.settings)]
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
    """One bar; gives what is to be called after each of `total` steps, from any thread."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda: progress.advance(bar)


def _look(run: Run, stage: Stage) -> StageStatus | None:
    """None when the store can't be listed just now: the run will say so if it matters."""
    try:
        return stage_status(run, stage)
    except StoreError:
        return None


LISTING_SHARE = 0.05
"""The largest share of the time spent looking: a large run takes seconds to list, and every page is paid for."""


def _next_look(every: float, took: float) -> float:
    """Seconds until the next look, which comes `every` so many, or more rarely when the last one `took` long."""
    return max(every, took / LISTING_SHARE)


class _RateAndTimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        stage: StageStatus | None = task.fields.get("status")
        if stage is None or stage.finished or not stage.rate:
            return Text("")
        return Text(f"{60 * stage.rate:.1f} a minute, {_duration(stage.seconds_left)} left", style="cyan")


def _draw_bars(run: Run, stages: Sequence[Stage], stop: Event, every: float) -> None:
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _RateAndTimeLeft(),
    )
    with Progress(*columns, console=console) as progress:
        bars = [progress.add_task(stage.label, total=stage.total(run.settings), start=False) for stage in stages]
        ended, took = False, 0.0
        while not ended:
            ended = stop.wait(_next_look(every, took))  # one last look after the end
            watch = Stopwatch()
            for bar, stage in zip(bars, stages, strict=True):
                if progress.tasks[bar].finished:
                    continue
                now = _look(run, stage)
                if now is None:
                    break
                if now.done:
                    progress.start_task(bar)
                progress.update(bar, completed=now.done, status=now)
                if not now.finished:
                    progress.start_task(bar)
                    break
            took = watch()


def _print_stages(run: Run, stages: Sequence[Stage], stop: Event, every: float) -> None:
    waiting = list(stages)
    ended, took = False, 0.0
    while waiting and not ended:
        ended = stop.wait(_next_look(every, took))
        watch = Stopwatch()
        while waiting and (now := _look(run, waiting[0])) and now.finished:
            console.print(f"{now.label}: {now.done} of {now.total}")
            waiting.pop(0)
        took = watch()
