"""Layers of two networks of a run that is there, naturally and after inversion."""

from typing import Literal

from prefect import flow

from flows.cluster import Execution, task_runner
from flows.credentials import use_block
from flows.names import after_the_store
from tasks.accounts import accounted
from tasks.layers import finish_layers
from tasks.prepare import prepare_layers


@flow(name="layers", flow_run_name=after_the_store("layers"))
def layers(
    store: str,
    networks: list[str],
    layers: list[str],
    activations: Literal["pooled", "flattened"],
    execution: Execution = Execution(),  # noqa: B008 (frozen)
) -> str:
    """Compare the layers whose names fit the patterns `layers`; what is done is not done again. Returns a key."""
    use_block(execution.credentials)
    store, key = prepare_layers(store, networks, layers, activations)
    with accounted(store), task_runner(execution) as runner:
        look.with_options(task_runner=runner)(store, key, execution.shards_per_task)
    return key


@flow(name="look", flow_run_name=after_the_store("look"))
def look(store: str, key: str, shards_per_task: int) -> None:
    """Every missing shard of the natural set and of both networks' inverted ones."""
    finish_layers(store, key, shards_per_task)
