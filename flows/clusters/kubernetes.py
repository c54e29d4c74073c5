"""Workers as pods of the Dask operator on Kubernetes."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.clusters.environment import ENVIRONMENT, NO_MEMORY_LIMIT
from flows.clusters.scheduler import SchedulerAddress
from flows.clusters.settings import Kubernetes
from netsim.errors import SettingsError


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


IDLE = 4 * 3600
"""Seconds after which the operator takes back what a sweep has whose pod was killed. It also ends a sweep that waits so
long for its first worker; the next goes on."""


def kubernetes_spec(cluster: Kubernetes) -> dict[str, Any]:
    """The DaskCluster that the Dask operator is asked for; a name of its own, as two sweeps may run at once."""
    name = f"netsim-{uuid.uuid4().hex[:8]}"
    limits = {"cpu": str(cluster.cores), "memory": str(cluster.memory_bytes)}
    limits |= {"nvidia.com/gpu": "1"} if cluster.gpus else {}
    resources = ["--resources", "GPU=1"] if cluster.gpus else []
    work = ["dask", "worker", "--nthreads", "1", *NO_MEMORY_LIMIT, *resources, "--name", "$(DASK_WORKER_NAME)"]
    schedule = ["dask", "scheduler", "--host", "0.0.0.0"]
    ports = [{"name": "tcp-comm", "containerPort": 8786}, {"name": "http-dashboard", "containerPort": 8787}]
    alive = {"httpGet": {"port": "http-dashboard", "path": "/health"}, "periodSeconds": 20}
    labels = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {
            "idleTimeout": IDLE,
            "worker": {
                "replicas": cluster.minimum,
                "spec": pod(cluster, "worker", [*work, "--dashboard-address", ":8788"], limits),
            },
            "scheduler": {
                "spec": pod(
                    cluster, "scheduler", schedule, {"cpu": "1", "memory": "4Gi"}, ports=ports, readinessProbe=alive
                ),
                "service": {
                    "type": "ClusterIP",
                    "selector": labels,
                    "ports": [
                        {"name": "tcp-comm", "protocol": "TCP", "port": 8786, "targetPort": "tcp-comm"},
                        {"name": "http-dashboard", "protocol": "TCP", "port": 8787, "targetPort": "http-dashboard"},
                    ],
                },
            },
        },
    }


def pod(cluster: Kubernetes, name: str, command: list[str], limits: dict[str, str], **more: Any) -> dict[str, Any]:
    """A pod of one container, which is not root and gets the keys of the Secret as variables."""
    container = {
        "name": name,
        "image": cluster.image,
        "args": command,
        "env": [{"name": name, "value": value} for name, value in ENVIRONMENT.items()],
        "envFrom": [{"secretRef": {"name": cluster.secret}}] if cluster.secret else [],
        "resources": {"requests": limits, "limits": limits},
        "securityContext": {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    account = {"serviceAccountName": cluster.service_account} if cluster.service_account else {}
    return {"containers": [container | more], "restartPolicy": "Always"} | account
