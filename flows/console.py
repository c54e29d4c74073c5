"""What the command line shows: tables of results, and bars that follow the store while a run works."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from netsim.results import Matrix, Results, summary, warnings
from netsim.stages import STAGES
from netsim.status import StageStatus, stage_status, status
from netsim.store import Run

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def show_results(results: Results) -> None:
    """Both matrices, the means, the networks, and every reason to doubt them."""
    console.print(_matrix_table("Natural CKA", results.networks, results.natural))
    console.print(_matrix_table("Inverted CKA (row = inverted through)", results.networks, results.inverted))
    console.print(_network_table(results))
    doubts = warnings(results)
    for line in summary(results):
        console.print(line, style="bold red" if line in doubts else "", soft_wrap=True)


def _matrix_table(title: str, networks: tuple[str, ...], matrix: Matrix) -> Table:
    largest = np.nanmax(matrix.cka_unbiased_se)
    table = Table(title=f"{title}, unbiased; largest standard error of a cell {largest:.3f}", title_justify="left")
    table.add_column("")
    for name in networks:
        table.add_column(name, justify="right")
    for row, name in enumerate(networks):
        table.add_row(name, *(_cell(value) for value in matrix.cka_unbiased[row]))
    return table


def _cell(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def _network_table(results: Results) -> Table:
    table = Table(title="Networks and their inversions", title_justify="left")
    table.add_column("")
    for title in ("test accuracy", "median initial loss", "median final loss", "distance from seed", "converged"):
        table.add_column(title, justify="right")
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
    return table


def show_status(run: Run) -> None:
    table = Table(title=f"{run.url}  (run {run.digest})", title_justify="left")
    table.add_column("stage")
    for title in ("done", "missing", "a minute", "time left"):
        table.add_column(title, justify="right")
    table.add_column("missing from")
    for stage in status(run):
        behind = [f"{name} {total - done}" for name, (done, total) in stage.by_name.items() if done < total]
        more = f" and {len(behind) - 3} more" if len(behind) > 3 else ""
        rate = f"{60 * stage.rate:.1f}" if stage.rate and not stage.finished else ""
        row = (str(stage.done), str(stage.total - stage.done), rate, _duration(stage.seconds_left))
        table.add_row(stage.name, *(row if not stage.finished else (*row[:2], "", "")), ", ".join(behind[:3]) + more)
    console.print(table)


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


@contextmanager
def progress_bars(run: Run, *, every: float = 0.5) -> Iterator[None]:
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
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _RateAndTimeLeft())
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
