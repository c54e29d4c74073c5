"""Record what every network says of some shards of a set."""

from typing import Any

from prefect import task

from netsim.stages import EMBED
from tasks.shards import OPTIONS, run_block


@task(name="embed", task_run_name="embed-{name}-{shards[0]:04d}", **OPTIONS)
def embed(store: str, name: str, shards: list[int]) -> dict[str, Any]:
    """Record what every network says of some shards of a set."""
    return run_block(store, EMBED, name, shards)
