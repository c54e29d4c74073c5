"""Make images for some shards that a network represents like their targets."""

from typing import Any

from prefect import task

from netsim.stages import INVERT
from tasks.shards import OPTIONS, run_block


@task(name="invert", task_run_name="invert-{name}-{shards[0]:04d}", **OPTIONS)
def invert(store: str, name: str, shards: list[int]) -> dict[str, Any]:
    """Make images for some shards that a network represents like their targets."""
    return run_block(store, INVERT, name, shards)
