"""The first stages of a sweep: check the images, then train or check every network."""

from prefect import flow

from tasks.dispatch import finish
from tasks.prefect_runs import mark_cancelled, named_after_store
from tasks.prepare import open_run
from tasks.verbs import check
from tasks.verbs import train as verb


@flow(name="train", flow_run_name=named_after_store("train"), on_crashed=[mark_cancelled])
def train(store: str, sweep: str) -> None:
    """Train the networks of the run at `store` that have no weights, from their last epoch if interrupted.

    Photographs are checked first: unreadable ones end the sweep unless the settings let it skip them.
    """
    run = open_run(store, sweep)
    finish(run, check)
    finish(run, verb)
