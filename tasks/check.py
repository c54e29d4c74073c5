"""Look at the images: which can't be read."""

from typing import Any

from prefect import task

from netsim.stages import CHECK
from tasks.shards import OPTIONS, run_block


@task(name="check", task_run_name="check-{name}", **OPTIONS)
def check(store: str, name: str, shards: list[int]) -> dict[str, Any]:
    """Look at the images: which can't be read."""
    return run_block(store, CHECK, name, shards)
