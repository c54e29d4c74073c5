"""The sweep: how similar are these networks, naturally and after inversion?"""

from pathlib import PurePosixPath

from prefect import flow, runtime

from flows.cluster import Execution, task_runner
from flows.compare import compare
from flows.train import train
from netsim.config import SweepSettings
from tasks.prepare import prepare


def _run_name() -> str:
    return f"sweep-{PurePosixPath(runtime.flow_run.parameters['store']).name}"


@flow(name="sweep", flow_run_name=_run_name, validate_parameters=True)
def sweep(settings: SweepSettings, store: str, execution: Execution = Execution()) -> str:  # noqa: B008 (frozen)
    """Train what has no weights, invert every network, and compare all of them on all sets.

    The store remembers what is done: the same call goes on where an earlier one ended. Returns the store's URL.
    """
    store = prepare(settings, store)
    with task_runner(execution) as runner:
        train.with_options(task_runner=runner)(store)
        compare.with_options(task_runner=runner)(store, execution.shards_per_task)
    return store
