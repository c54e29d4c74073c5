"""Workers as pods of the Dask operator on Kubernetes."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flows.clusters.environment import ENVIRONMENT, NO_MEMORY_LIMIT
from flows.clusters.scheduler import SchedulerAddress
from flows.clusters.settings import Kubernetes
from netsim.errors import SettingsError

IDLE_TIMEOUT = 4 * 3600
"""Seconds without work after which the operator deletes a cluster, because its sweep was killed. It also deletes one
that waits that long for its first worker; the next run resumes."""

SCHEDULER_LIMITS = {"cpu": "1", "memory": "4Gi"}


@contextmanager
def start_kubernetes(cluster: Kubernetes) -> Iterator[SchedulerAddress]:
    """Start a scheduler and workers as pods. Raises SettingsError if dask-kubernetes is not installed."""
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError:
        raise SettingsError(
            "kind kubernetes requires dask-kubernetes, which is not installed. It is in requirements-cluster.lock"
        ) from None
    with KubeCluster(custom_cluster_spec=kubernetes_spec(cluster), namespace=cluster.namespace) as started:
        started.adapt(minimum=cluster.minimum, maximum=cluster.maximum)
        yield SchedulerAddress(started.scheduler_address)


def kubernetes_spec(cluster: Kubernetes) -> dict[str, Any]:
    """Return the DaskCluster resource of a sweep, under a new name, since two sweeps may run at once."""
    from dask_kubernetes.operator import make_cluster_spec

    resources = ["--resources", "GPU=1"] if cluster.gpus else []
    spec = make_cluster_spec(
        name=f"netsim-{uuid.uuid4().hex[:8]}",
        image=cluster.image,
        n_workers=cluster.minimum,
        env=ENVIRONMENT,
        worker_command=["dask", "worker", "--nthreads", "1", *NO_MEMORY_LIMIT, *resources],
        idle_timeout=IDLE_TIMEOUT,
    )
    worker, scheduler = (spec["spec"][component]["spec"] for component in ("worker", "scheduler"))
    limits = {"cpu": str(cluster.cores), "memory": str(cluster.memory_bytes)}
    _complete(worker, cluster, limits | ({"nvidia.com/gpu": "1"} if cluster.gpus else {}))
    _complete(scheduler, cluster, SCHEDULER_LIMITS)
    (container,) = scheduler["containers"]
    container["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]  # Dask has no command dask-scheduler any more
    del container["livenessProbe"]  # it would kill a scheduler whose event loop is busy, and the sweep with it
    return spec


def _complete(pod: dict[str, Any], cluster: Kubernetes, limits: Mapping[str, str]) -> None:
    """Add what dask-kubernetes has no options for: limits per component, the Secret, no privileges, and the account."""
    (container,) = pod["containers"]
    container["resources"] = {"requests": limits, "limits": limits}
    container["envFrom"] = [{"secretRef": {"name": cluster.secret}}] if cluster.secret else []
    container["securityContext"] = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    pod["restartPolicy"] = "Always"
    if cluster.service_account:
        pod["serviceAccountName"] = cluster.service_account
