"""Task of each stage, named as the stage is."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from prefect import task

from netsim.results.layers import find_spec, layer_stage
from netsim.results.measured import measure_stage
from netsim.store.layout import report_path
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, CHECK, CONTROL, DRAW, EMBED, INVERT, REPORT, TRAIN
from netsim.store.views import WHOLE
from tasks.artifacts import show_results
from tasks.dispatch import finish
from tasks.worker import OPTIONS, run_block


@task(name="check", task_run_name="check-{name}", **OPTIONS)
def check(store: str, name: str, shards: list[int], sweep: str | None = None) -> dict[str, Any]:
    """Decode every image once and record which are unreadable."""
    return run_block(store, CHECK, name, shards, sweep)


@task(name="train", task_run_name="train-{name}", **OPTIONS)
def train(store: str, name: str, shards: list[int], sweep: str | None = None) -> dict[str, Any]:
    """Train a network that has no weights; check and record one that has weights."""
    return run_block(store, TRAIN, name, shards, sweep)


@task(name="draw", task_run_name="draw-{shards[0]:04d}", **OPTIONS)
def draw(store: str, name: str, shards: list[int], sweep: str | None = None) -> dict[str, Any]:
    """Draw the image pairs of some shards and store them."""
    return run_block(store, DRAW, name, shards, sweep)


@task(name="invert", task_run_name="invert-{name}-{shards[0]:04d}", **OPTIONS)
def invert(store: str, name: str, shards: list[int], sweep: str | None = None) -> dict[str, Any]:
    """Invert a network on the image pairs of some shards."""
    return run_block(store, INVERT, name, shards, sweep)


@task(name="embed", task_run_name="embed-{name}-{shards[0]:04d}", **OPTIONS)
def embed(store: str, name: str, shards: list[int], sweep: str | None = None) -> dict[str, Any]:
    """Compute the representations of every network on some shards of an image set."""
    return run_block(store, EMBED, name, shards, sweep)


@task(name="aggregate", task_run_name="aggregate-{name}", **OPTIONS)
def aggregate(store: str, name: str, shards: list[int], sweep: str | None = None) -> dict[str, Any]:
    """Sum the statistics of one row of a CKA matrix over all shards."""
    return run_block(store, AGGREGATE, name, shards, sweep)


@task(name="control", task_run_name="control-{name}", **OPTIONS)
def control(store: str, name: str, shards: list[int], sweep: str | None = None) -> dict[str, Any]:
    """Sum what one row of the inverted matrix shares with the seeds, and what its observers see."""
    return run_block(store, CONTROL, name, shards, sweep)


@task(name="report", task_run_name="report", **OPTIONS)
def report(store: str, name: str, shards: list[int], sweep: str | None = None) -> dict[str, Any]:
    """Write the report to the store, and show its tables, heatmaps and images as artifacts."""
    return run_block(store, replace(REPORT, compute=_shown_report), name, shards, name)


def _shown_report(run: Run, name: str, shard: int) -> Any:
    """Compute the report, and show its results before it is committed: the task is skipped once it is."""
    from netsim.stages.report import compute  # imports torch

    return compute(
        run, name, shard, show=partial(show_results, run, report=run.files.place(report_path(name, "report.html")))
    )


@task(name="measure", task_run_name="measure-{name}", **OPTIONS)
def measure(store: str, name: str, shards: list[int], sweep: str | None = None) -> dict[str, Any]:
    """Compute cells of one row of a matrix of another similarity measure; `name` is that of its unit."""
    return run_block(store, measure_stage([name.partition("/")[0]]), name, shards, WHOLE)


@task(name="layers", task_run_name="layers-{name}-{shards[0]:04d}", **OPTIONS)
def layers(store: str, name: str, shards: list[int], sweep: str | None = None) -> dict[str, Any]:
    """Compare layers on some shards of an image set; `name` is `<key of the specification>/<set>`."""
    return run_block(store, layer_stage(find_spec(Run.open(store), name.partition("/")[0])), name, shards, WHOLE)


def finish_measures(run: Run, measures: Sequence[str]) -> None:
    """Compute every missing row of both matrices of the given measures."""
    finish(run, measure, stage=measure_stage(measures))


def finish_layers(run: Run, key: str, shards_per_task: int) -> None:
    """Compute every missing shard of the comparison of layers that has this key."""
    finish(run, layers, shards_per_task=shards_per_task, stage=layer_stage(find_spec(run, key)))
