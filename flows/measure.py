"""Other similarity measures of an existing run: every cell of both matrices, from what the store holds."""

from prefect import flow

from flows.clusters.runner import task_runner
from flows.clusters.settings import Cluster, Local
from flows.server.credentials import use_block
from tasks.dispatch import require_none_quarantined
from tasks.prefect_runs import mark_cancelled, named_after_store, tracked_runs
from tasks.prepare import prepare_measures
from tasks.verbs import finish_measures


@flow(
    name="measure", flow_run_name=named_after_store("measure"), on_crashed=[mark_cancelled], on_failure=[mark_cancelled]
)
def measure(store: str, measures: list[str], cluster: Cluster = Local()) -> str:  # noqa: B008 (frozen)
    """Compute `measures` of the run at `store`; complete rows are skipped. Returns the store's URL."""
    use_block(cluster.credentials)
    store = prepare_measures(store, measures)
    with tracked_runs(store), task_runner(cluster) as runner:
        cells.with_options(task_runner=runner)(store, measures)
        require_none_quarantined(store)
    return store


@flow(name="cells", flow_run_name=named_after_store("cells"))
def cells(store: str, measures: list[str]) -> None:
    """Compute the missing rows of both matrices by `measures`."""
    finish_measures(store, measures)
