"""The workers of a sweep: started where its `cluster:` says, and gone when the sweep is, but for a scheduler's own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from dask.system import CPU_COUNT  # heeds affinity and container limits
from distributed import Client
from prefect.task_runners import TaskRunner
from prefect_dask import DaskTaskRunner

from flows.clusters import settings as where
from flows.clusters.environment import Found
from flows.clusters.kubernetes import start_kubernetes
from flows.clusters.local import start_local
from flows.clusters.scheduler import find_scheduler, import_in_scheduler
from flows.clusters.slurm import start_slurm
from flows.server.credentials import UseBlock
from netsim.errors import SettingsError
from tasks.devices import visible_gpus


@contextmanager
def task_runner(cluster: where.AnyCluster) -> Iterator[TaskRunner[Any]]:
    """A task runner for the flows of one sweep, with workers as `cluster` says.

    Raises SettingsError if there can be none, or one of a scheduler's workers can't have the credentials.
    """
    with STARTS[type(cluster)](cluster) as found:
        if not isinstance(cluster, where.Local):  # its scheduler is in this process, and workers have this environment
            with Client(found.address, security=found.security) as client:
                import_in_scheduler(client)
                if cluster.credentials is not None:
                    client.register_plugin(UseBlock(cluster.credentials))
        yield DaskTaskRunner(address=found.address, client_kwargs={"security": found.security})


def workers_at_most(cluster: where.AnyCluster) -> int:
    """Workers that share the work that gains from a GPU: those with one, where there are any. Raises SettingsError."""
    if isinstance(cluster, where.Scheduler):
        raise SettingsError(
            f"{cluster.address} has as many workers as come; say how many to plan with, as in --workers 8"
        )
    if isinstance(cluster, where.ElasticCluster):
        return cluster.maximum
    return len(visible_gpus(cluster.gpus)) or cluster.workers or CPU_COUNT


# ---- this machine


# ---- a scheduler that is there


# ---- SLURM


# ---- Kubernetes


STARTS: dict[type[where.AnyCluster], Callable[[Any], AbstractContextManager[Found]]] = {
    where.Local: start_local,
    where.Scheduler: find_scheduler,
    where.Slurm: start_slurm,
    where.Kubernetes: start_kubernetes,
}
