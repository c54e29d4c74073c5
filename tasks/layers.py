"""Look at some shards of a set, layer by layer."""

from typing import Any

from prefect import task

from netsim.layers import find_spec, layer_stage
from netsim.store.run import Run
from tasks.shards import OPTIONS, finish, run_block


@task(name="layers", task_run_name="layers-{name}-{shards[0]:04d}", **OPTIONS)
def layers(store: str, name: str, shards: list[int]) -> dict[str, Any]:
    """Compare layers on some shards of a set: `name` is `<key of the spec>/<set>`."""
    return run_block(store, layer_stage(find_spec(Run.open(store), name.partition("/")[0])), name, shards)


def finish_layers(store: str, key: str, shards_per_task: int) -> None:
    """See every shard of a spec's sets through."""
    finish(store, layers, shards_per_task=shards_per_task, stage=layer_stage(find_spec(Run.open(store), key)))
