"""Train a network that has no weights; look at one that has."""

from typing import Any

from prefect import task

from netsim.stages import TRAIN
from tasks.shards import OPTIONS, run_block


@task(name="train", task_run_name="train-{name}", **OPTIONS)
def train(store: str, name: str, shards: list[int]) -> dict[str, Any]:
    """Train a network that has no weights; look at one that has."""
    return run_block(store, TRAIN, name, shards)
