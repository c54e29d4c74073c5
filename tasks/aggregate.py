"""Compare the networks on a set, over all its shards."""

from typing import Any

from prefect import task

from netsim.stages import AGGREGATE
from tasks.shards import OPTIONS, run_block


@task(name="aggregate", task_run_name="aggregate-{name}", **OPTIONS)
def aggregate(store: str, name: str, shards: list[int]) -> dict[str, Any]:
    """Compare the networks on a set, over all its shards."""
    return run_block(store, AGGREGATE, name, shards)
