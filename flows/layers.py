"""Comparison of the layers of two networks of an existing run, on natural images and after inversion."""

from typing import Literal

from prefect import flow

from flows.clusters.runner import task_runner
from flows.clusters.settings import Cluster, Local
from flows.parameters import Pairs, Patterns, Selected, Store, TwoNetworks
from flows.server.credentials import use_block
from tasks.artifacts import show_layers
from tasks.dispatch import require_none_quarantined
from tasks.prefect_runs import mark_cancelled, named_after_store, tracked_runs
from tasks.prepare import open_view, prepare_layers
from tasks.verbs import finish_layers


@flow(
    name="layers", flow_run_name=named_after_store("layers"), on_crashed=[mark_cancelled], on_failure=[mark_cancelled]
)
def layers(
    store: Store,
    networks: TwoNetworks,
    layers: Patterns,
    activations: Literal["pooled", "flattened"],
    cluster: Cluster = Local(),  # noqa: B008 (frozen)
    sweep: Selected = None,
    pairs: Pairs = None,
) -> str:
    """Compare the layers that match the patterns `layers`; complete shards are skipped.

    `sweep` and `pairs` choose what to compare on: by default, all pairs of the sweep that was run last.

    Returns the key of this comparison in the store.
    """
    use_block(cluster.credentials)
    run = open_view(store, sweep, pairs=pairs)
    key = prepare_layers(run, networks, layers, activations)
    with tracked_runs(run.url), task_runner(cluster) as runner:
        compare_layers.with_options(task_runner=runner)(run.url, key, cluster.shards_per_task, sweep, pairs)
        require_none_quarantined(run)
        show_layers(run, key)
    return key


@flow(name="look", flow_run_name=named_after_store("look"), on_crashed=[mark_cancelled])
def compare_layers(store: str, key: str, shards_per_task: int, sweep: str | None, pairs: int | None) -> None:
    """Compute the missing shards of the natural set and of both networks' inverted sets."""
    finish_layers(open_view(store, sweep, pairs=pairs), key, shards_per_task)
