"""The task runner of a sweep, on the workers that `cluster:` asks for. Workers it starts end with the sweep."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from dask.system import CPU_COUNT  # respects affinity and container limits
from prefect.task_runners import TaskRunner
from prefect_dask import DaskTaskRunner

from flows.clusters.kubernetes import start_kubernetes
from flows.clusters.local import start_local
from flows.clusters.scheduler import SchedulerAddress, connect, connect_scheduler, explained_loss, import_in_scheduler
from flows.clusters.settings import AnyCluster, ElasticCluster, Kubernetes, Local, Scheduler, Slurm
from flows.clusters.slurm import start_slurm
from flows.clusters.waiting import announced_waits
from flows.server.credentials import UseBlock
from netsim.errors import SettingsError
from tasks.devices import visible_gpus

STARTERS: dict[type[AnyCluster], Callable[[Any], AbstractContextManager[SchedulerAddress]]] = {
    Local: start_local,
    Scheduler: connect_scheduler,
    Slurm: start_slurm,
    Kubernetes: start_kubernetes,
}

WORKER_HINTS: dict[type[AnyCluster], str] = {
    Local: "They may end as soon as they start: --debug shows why",
    Scheduler: "Start some with `dask worker ADDRESS --nthreads 1 --memory-limit 0`, or press Ctrl-C",
    Slurm: "`squeue --me` shows its jobs, and the folder of their logs what they print",
    Kubernetes: "`kubectl get pods` shows its pods",
}
"""Hints for each kind of cluster whose workers do not take the work."""


@contextmanager
def task_runner(cluster: AnyCluster) -> Iterator[TaskRunner[Any]]:
    """Start or connect to `cluster` and yield a task runner for the flows of one sweep.

    Raises SettingsError if the cluster can't be used, or one of its workers can't read the credentials; RunError if its
    scheduler disappears.
    """
    with STARTERS[type(cluster)](cluster) as scheduler, explained_loss(scheduler):
        if not isinstance(cluster, Local):  # its scheduler is in this process, and its workers inherit the environment
            with connect(scheduler) as client:
                import_in_scheduler(client)
                if cluster.credentials is not None:
                    client.register_plugin(UseBlock(cluster.credentials))
        with announced_waits(scheduler, WORKER_HINTS[type(cluster)]):
            yield DaskTaskRunner(address=scheduler.address, client_kwargs={"security": scheduler.security})


def max_workers(cluster: AnyCluster) -> int:
    """Return the largest number of workers that share GPU work: those with a GPU, or all where none has one.

    Raises SettingsError for an existing scheduler, whose workers come and go.
    """
    if isinstance(cluster, Scheduler):
        raise SettingsError(
            f"the number of workers of {cluster.address} is not known in advance. Give it, as in --workers 8"
        )
    if isinstance(cluster, ElasticCluster):
        return cluster.maximum
    return len(visible_gpus(cluster.gpus)) or cluster.workers or CPU_COUNT
