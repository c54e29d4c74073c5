"""The sweep: how similar are these networks, naturally and after inversion?"""

from prefect import flow

from flows.cluster import Execution, task_runner
from flows.compare import compare
from flows.credentials import use_block
from flows.names import after_the_store
from flows.train import train
from netsim.config import SweepSettings
from tasks.accounts import accounted
from tasks.prepare import prepare


@flow(name="sweep", flow_run_name=after_the_store("sweep"))
def sweep(settings: SweepSettings, store: str, execution: Execution = Execution()) -> str:  # noqa: B008 (frozen)
    """Train what has no weights, invert every network, and compare all of them on all sets.

    The store remembers what is done: the same call goes on where an earlier one ended. Returns the store's URL.
    """
    use_block(execution.credentials)
    store = prepare(settings, store)
    with accounted(store), task_runner(execution) as runner:
        train.with_options(task_runner=runner)(store)
        compare.with_options(task_runner=runner)(store, execution.shards_per_task)
    return store
