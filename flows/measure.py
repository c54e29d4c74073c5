"""Other similarity measures of an existing run: every cell of both matrices, from what the store holds."""

from prefect import flow

from flows.clusters.runner import task_runner
from flows.clusters.settings import Cluster, Local
from flows.parameters import Measures, Networks, Pairs, Selected, Store
from flows.server.credentials import use_block
from tasks.artifacts import show_measured
from tasks.dispatch import require_none_quarantined
from tasks.prefect_runs import mark_cancelled, named_after_store, tracked_runs
from tasks.prepare import open_view, prepare_measures
from tasks.verbs import finish_measures


@flow(
    name="measure", flow_run_name=named_after_store("measure"), on_crashed=[mark_cancelled], on_failure=[mark_cancelled]
)
def measure(
    store: Store,
    measures: Measures,
    cluster: Cluster = Local(),  # noqa: B008 (frozen)
    sweep: Selected = None,
    networks: Networks = None,
    pairs: Pairs = None,
) -> str:
    """Compute `measures` of the run at `store`; complete rows are skipped. Returns the store's URL.

    `sweep`, `networks` and `pairs` choose what to measure: by default, all of the sweep that was run last.
    """
    use_block(cluster.credentials)
    run = prepare_measures(open_view(store, sweep, networks, pairs), measures)
    with tracked_runs(run.url), task_runner(cluster) as runner:
        cells.with_options(task_runner=runner)(run.url, measures, sweep, networks, pairs)
        require_none_quarantined(run)
        show_measured(run, measures)
    return run.url


@flow(name="cells", flow_run_name=named_after_store("cells"), on_crashed=[mark_cancelled])
def cells(store: str, measures: list[str], sweep: str | None, networks: list[str] | None, pairs: int | None) -> None:
    """Compute the missing rows of both matrices by `measures`."""
    finish_measures(open_view(store, sweep, networks, pairs), measures)
