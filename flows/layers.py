"""Layers of two networks of a run that is there, naturally and after inversion."""

from typing import Literal

from prefect import flow

from flows.clusters.runner import task_runner
from flows.clusters.settings import Cluster, Local
from flows.server.credentials import use_block
from tasks.dispatch import require_none_quarantined
from tasks.prefect_runs import mark_cancelled, named_after_store, tracked_runs
from tasks.prepare import prepare_layers
from tasks.verbs import finish_layers


@flow(
    name="layers", flow_run_name=named_after_store("layers"), on_crashed=[mark_cancelled], on_failure=[mark_cancelled]
)
def layers(
    store: str,
    networks: list[str],
    layers: list[str],
    activations: Literal["pooled", "flattened"],
    cluster: Cluster = Local(),  # noqa: B008 (frozen)
) -> str:
    """Compare the layers whose names fit the patterns `layers`; what is done is not done again. Returns a key."""
    use_block(cluster.credentials)
    store, key = prepare_layers(store, networks, layers, activations)
    with tracked_runs(store), task_runner(cluster) as runner:
        look.with_options(task_runner=runner)(store, key, cluster.shards_per_task)
        require_none_quarantined(store)
    return key


@flow(name="look", flow_run_name=named_after_store("look"))
def look(store: str, key: str, shards_per_task: int) -> None:
    """Every missing shard of the natural set and of both networks' inverted ones."""
    finish_layers(store, key, shards_per_task)
