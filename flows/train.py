"""The networks of a sweep: trained where they have no weights, looked at where they have. The images come first."""

from prefect import flow

from tasks.dispatch import finish
from tasks.prefect_runs import named_after_store
from tasks.verbs import check
from tasks.verbs import train as verb


@flow(name="train", flow_run_name=named_after_store("train"))
def train(store: str) -> None:
    """Train every network of the run at `store` that is not trained yet. Interrupted ones go on at their last epoch.

    Before that, photographs are looked at: those that can't be read end the sweep, unless they may be left out.
    """
    finish(store, check)
    finish(store, verb)
