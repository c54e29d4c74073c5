"""Comparison of the layers of two networks of an existing run, on natural images and after inversion."""

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
    """Compare the layers that match the patterns `layers`; complete shards are skipped.

    Returns the key of this comparison in the store.
    """
    use_block(cluster.credentials)
    store, key = prepare_layers(store, networks, layers, activations)
    with tracked_runs(store), task_runner(cluster) as runner:
        compare_layers.with_options(task_runner=runner)(store, key, cluster.shards_per_task)
        require_none_quarantined(store)
    return key


@flow(name="look", flow_run_name=named_after_store("look"))
def compare_layers(store: str, key: str, shards_per_task: int) -> None:
    """Compute the missing shards of the natural set and of both networks' inverted sets."""
    finish_layers(store, key, shards_per_task)
