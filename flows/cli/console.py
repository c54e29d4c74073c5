"""Progress of a run in a terminal: a status table, and bars that follow the store while a sweep works."""

import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import groupby
from threading import Event, Thread
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
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

WIDE = 100
"""Characters of a line that goes to a file or a pipe, unless COLUMNS says otherwise: readable in any pager."""

UNBROKEN = re.compile(r"`[^`\n]*`| ± |(?<=\d) %|(?<=WARNING)  | [<=] ")
"""Text that a line break would spoil: a command to copy, or a number with its sign, error or unit."""

SPACE = "\ue000"
"""Stands for a space of such text while lines are broken; names have none, because it is not printable."""


class _LastingConsole(Console):
    """A console that a sweep outlives: without a reader, as after `| head`, output is dropped and work continues."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def _width() -> int | None:
    """Return the characters of a line; None is the width of the terminal, or COLUMNS."""
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else WIDE


# Results go to `console`, what is told on the way to `progress`, errors and warnings to `errors`.
# Text is never markup: a path or a name may have brackets and colons.
console = _LastingConsole(markup=False, emoji=False, highlight=False, width=_width())
progress = _LastingConsole(markup=False, emoji=False, highlight=False, width=_width())
errors = _LastingConsole(stderr=True, markup=False, emoji=False, highlight=False)

GAP = 2
"""Characters between two columns."""

LONGEST = 24
"""Characters of a word that a column of text always has room for; longer ones are broken."""

SHORT = 16
"""Characters of a text that is not wrapped in any column, such as `aggregate 3/12`."""

MAX_NAMED = 3
"""Unreadable images, and incomplete networks, listed by name; --json lists all."""


def table_of(first: str, *others: str) -> Table:
    """Return an empty table with a left-aligned first column and right-aligned others."""
    table = _empty_table()
    table.add_column(first, overflow="fold")
    for title in others:
        table.add_column(title, justify="right")
    return table


def set_up(*, quiet: bool = False, as_json: bool = False) -> None:
    """Print progress nowhere if `quiet`, and beside the results, to standard error, if those are JSON for a program."""
    progress.quiet, progress.stderr = quiet, as_json


def _empty_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)


def plain(text: str) -> Text:
    """Return text from a store or a server as it is, without markup or control characters."""
    return Text(printable(text))


def say(text: str, style: str | None = None, *, indent: int = 2) -> None:
    """Print sentences, a paragraph for each line of `text`, wrapped at words to the width of the terminal.

    Lines after the first of a paragraph are indented.
    """
    for line in printable(text).splitlines():
        console.print(Text(wrapped(line, console.width, indent)), style=style, soft_wrap=True)


def wrapped(text: str, width: int, indent: int = 2) -> str:
    """Break a paragraph into lines of at most `width` characters; commands, numbers and long words stay whole.

    Examples
    --------
    >>> print(wrapped("Natural similarity 0.931 ± 0.002; see `netsim results runs/demo`.", 30))
    Natural similarity
      0.931 ± 0.002; see
      `netsim results runs/demo`.
    """
    kept = UNBROKEN.sub(lambda match: match[0].replace(" ", SPACE), text)
    return textwrap.fill(
        kept, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ).replace(SPACE, " ")


def show(title: str, table: Table) -> None:
    """Print a table under a bold title, folded: columns that do not fit follow below, beside the first one again."""
    say(title, "bold")
    first, *others = table.columns
    for column in table.columns:  # a short label stays on one line
        longest = max(map(_length, [column.header, *column.cells]))
        column.no_wrap = column.justify != "right" and longest <= (LONGEST if column is first else SHORT)
    widths = [GAP + _least_width(column) for column in others]
    for indices in column_blocks(widths, console.width - _least_width(first)):
        part = _part(first, *(others[index] for index in indices))
        lines = console.render(part, console.options.update(width=console.width))
        console.print(Segments(lines), crop=False, soft_wrap=True, end="")
        console.print()


def _part(*columns: Column) -> Table:
    """Return a table of some columns; where it is too wide, titles and text are wrapped, but no number is."""
    cells = [list(column.cells) for column in columns]
    natural = sum(
        GAP + max(map(_length, [column.header, *texts])) for column, texts in zip(columns, cells, strict=True)
    )
    part = _empty_table()
    for column in columns:
        least = _least_width(column)
        fixed = column.justify == "right" and natural - GAP > console.width
        part.add_column(
            column.header,
            justify=column.justify,
            overflow=column.overflow,
            no_wrap=column.no_wrap,
            width=least if fixed else None,
            min_width=least,
        )
    for row in zip(*cells, strict=True):
        part.add_row(*row)
    return part


def _length(cell: Any) -> int:
    return cell_len(cell.plain if isinstance(cell, Text) else str(cell))


def column_blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Divide columns into blocks that fit into `room` characters; each has at least one column.

    Examples
    --------
    >>> column_blocks([5, 5, 5, 20, 5], room=12)
    [[0, 1], [2], [3], [4]]
    """
    blocks: list[list[int]] = []
    used = room
    for index, width in enumerate(widths):
        if used + width > room:
            blocks.append([])
            used = 0
        blocks[-1].append(index)
        used += width
    return blocks


def _least_width(column: Column) -> int:
    """Return the characters that a column needs: whole numbers and labels, and the longest word, up to 24, of text."""
    cells = [cell.plain if isinstance(cell, Text) else str(cell) for cell in column.cells]
    if column.no_wrap:
        return max(map(cell_len, [*cells, str(column.header)]))
    parts = cells if column.justify == "right" else [word[:LONGEST] for cell in cells for word in cell.split()]
    return max(map(cell_len, [*parts, *str(column.header).split()]), default=0)


def show_status(run: Run) -> None:
    """Print one line per stage (done, missing, rate, time left), then skipped images and quarantined shards."""
    table = table_of("stage", "done", "missing", "per minute", "time left")
    table.add_column("missing from")
    parts: list[Callable[[Run], Any]] = [status, unreadable, quarantined]
    stages, splits, units = concurrently(lambda part: part(run), parts)
    for stage in stages:
        behind = [_behind(stage, name) for name, (done, total) in stage.by_name.items() if done < total]
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
            say(f"{summary}: {_first_few(names)}")
        for sentence in checked.passed_over:
            say(sentence)
    for unit, why in units.items():
        say(f"{unit_label(unit)} is quarantined: {why['error']}")


def _behind(stage: StageStatus, name: str) -> str:
    """Name what misses shards, with their number, or with its epochs if it is a network in training."""
    if name in stage.epochs:
        return f"{name} (epoch {stage.epochs[name][0]} of {stage.epochs[name][1]})"
    done, total = stage.by_name[name]
    return f"{name} {total - done}"


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
    """Show bars that follow the store until the block ends; without a terminal or a notebook, print lines instead."""
    stop = Event()
    stages = [stage for stage in stages if stage.total(run.sweep)]
    follow = _draw_bars if progress.is_terminal or progress.is_jupyter else _print_lines
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
    with Progress(*columns, console=progress, transient=True) as bars:
        bar = bars.add_task(label, total=total)
        yield lambda: bars.advance(bar)


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


class _Pace:
    """Speed of a stage, and the time left: by the times of commits, and of trainings by the epochs that pass."""

    def __init__(self) -> None:
        self._watch = Stopwatch()
        self._first: tuple[float, int] | None = None

    def text(self, stage: StageStatus) -> str:
        """Describe the pace of a stage that is not finished; "" of any other."""
        if stage.finished:
            return ""
        names = [_behind(stage, name) for name, (done, total) in stage.epochs.items() if 0 < done < total]
        rate = [f"{60 * stage.rate:.1f} per minute"] if stage.rate and not stage.epochs else []
        left = self._of_training(stage) if stage.epochs else stage.seconds_left
        return ", ".join(
            [*([_first_few(names)] if names else []), *rate, *([f"{_duration(left)} left"] if left else [])]
        )

    def _of_training(self, stage: StageStatus) -> float | None:
        done, total = (sum(values) for values in zip(*stage.epochs.values(), strict=True))
        now = self._watch()
        if self._first is None:
            self._first = now, done
        since, before = self._first
        return (total - done) * (now - since) / (done - before) if done > before else None


class _NotebookBars(Progress):
    """Bars in one output of a notebook, which is drawn again in place. Rich's own way to do so requires ipywidgets."""

    def start(self) -> None:
        from IPython.display import display

        self._output = display(self._drawn(), raw=True, display_id=True)

    def refresh(self) -> None:
        self._output.update(self._drawn(), raw=True)

    def stop(self) -> None:
        self.refresh()

    def _drawn(self) -> dict[str, str]:
        """Return the bars as HTML, and as plain text for what shows no HTML."""
        page = Console(file=io.StringIO(), record=True, force_jupyter=False, color_system="truecolor", width=WIDE)
        page.print(self.get_renderable())
        shown = page.export_html(clear=False, inline_styles=True, code_format="<pre>{code}</pre>")
        return {"text/html": shown, "text/plain": page.export_text()}


def _draw_bars(run: Run, stages: Sequence[Stage], stop: Event, every: float) -> None:
    columns = (
        TextColumn("{task.description:24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}", style="cyan", markup=False),
    )
    with (_NotebookBars if progress.is_jupyter else Progress)(*columns, console=progress) as drawn:
        bars = [drawn.add_task(stage.label, total=stage.total(run.sweep), start=False, pace="") for stage in stages]
        ended, took, pace = False, 0.0, _Pace()
        while not ended:
            ended = stop.wait(_poll_interval(every, took))  # and once more after the end
            watch, before = Stopwatch(), run.sweep
            run = _try_latest(run)
            for bar, stage in zip(bars, stages, strict=True):
                if drawn.tasks[bar].finished and run.sweep == before:
                    continue
                now = _try_stage_status(run, stage)
                if now is None:
                    break
                if now.done:
                    drawn.start_task(bar)
                drawn.update(bar, completed=now.done, total=now.total, pace=pace.text(now))
                if not now.finished:
                    drawn.start_task(bar)
                    break
            drawn.refresh()
            took = watch()


LOG_INTERVAL = 60.0
"""Seconds between two lines on a stage, where there is no terminal."""


def _print_lines(run: Run, stages: Sequence[Stage], stop: Event, every: float) -> None:
    """Print a line when a stage is finished, and every minute one on the stage at work."""
    waiting, pace, since = list(stages), _Pace(), Stopwatch()
    ended, took = False, 0.0
    while waiting and not ended:
        ended = stop.wait(_poll_interval(every, took))
        watch, run = Stopwatch(), _try_latest(run)
        while waiting and (now := _try_stage_status(run, waiting[0])) and now.finished:
            _print_line(now, "")
            waiting.pop(0)
        if waiting and now:
            text = pace.text(now)
            if since() >= LOG_INTERVAL and not ended:
                since = Stopwatch()
                _print_line(now, text)
        took = watch()


def _print_line(stage: StageStatus, pace: str) -> None:
    line = f"{datetime.now():%Y-%m-%d %H:%M}  {stage.label}: {stage.done:,} of {stage.total:,}"
    progress.print(plain(f"{line}, {pace}" if pace else line), soft_wrap=True)
