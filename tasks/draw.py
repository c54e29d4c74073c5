"""Draw the pairs of some shards, with their images."""

from typing import Any

from prefect import task

from netsim.stages import DRAW
from tasks.shards import OPTIONS, run_block


@task(name="draw", task_run_name="draw-{shards[0]:04d}", **OPTIONS)
def draw(store: str, name: str, shards: list[int]) -> dict[str, Any]:
    """Draw the pairs of some shards, with their images."""
    return run_block(store, DRAW, name, shards)
