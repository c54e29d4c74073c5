"""Other measures of a run that is there: every cell of both matrices, on what the store holds."""

from prefect import flow

from flows.cluster import Execution, task_runner
from flows.credentials import use_block
from flows.names import after_the_store
from tasks.accounts import accounted
from tasks.measure import finish_measures
from tasks.prepare import prepare_measures


@flow(name="measure", flow_run_name=after_the_store("measure"))
def measure(store: str, measures: list[str], execution: Execution = Execution()) -> str:  # noqa: B008 (frozen)
    """Compute `measures` of the run at `store`; what is done is not done again. Returns the store's URL."""
    use_block(execution.credentials)
    store = prepare_measures(store, measures)
    with accounted(store), task_runner(execution) as runner:
        cells.with_options(task_runner=runner)(store, measures)
    return store


@flow(name="cells", flow_run_name=after_the_store("cells"))
def cells(store: str, measures: list[str]) -> None:
    """Every missing row of both matrices by these measures."""
    finish_measures(store, measures)
