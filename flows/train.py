"""The networks of a sweep: trained where they have no weights, looked at where they have."""

from prefect import flow

from tasks.shards import finish
from tasks.train import train as verb


@flow(name="train")
def train(store: str) -> None:
    """Train every network of the run at `store` that is not trained yet. An interrupted one goes on at its last epoch."""
    finish(store, verb)
