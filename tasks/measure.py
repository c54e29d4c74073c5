"""Compute rows of a matrix by another measure than CKA."""

from collections.abc import Sequence
from typing import Any

from prefect import task

from netsim.measuring import measure_stage
from tasks.shards import OPTIONS, finish, run_block


@task(name="measure", task_run_name="measure-{name}", **OPTIONS)
def measure(store: str, name: str, shards: list[int]) -> dict[str, Any]:
    """Compute a row of a matrix by a measure: `name` is `<measure>/<row>`."""
    return run_block(store, measure_stage([name.partition("/")[0]]), name, shards)


def finish_measures(store: str, measures: Sequence[str]) -> None:
    """See every row of both matrices by these measures through."""
    finish(store, measure, stage=measure_stage(measures))
