"""Workers on this machine."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster, WorkerPlugin
from distributed.security import Security

from flows.clusters import settings as where
from flows.clusters.environment import CALM, ENVIRONMENT, Found
from tasks.devices import GPU, visible_gpus


class LeaveInterruptsToTheFlow(WorkerPlugin):
    """Ctrl-C reaches every process of a terminal; only the flow answers it, and ends its workers itself."""

    def setup(self, worker: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def start_local(cluster: where.Local) -> Iterator[Found]:
    """With certificates that are kept in memory: other users of this machine reach 127.0.0.1 too."""
    security = Security.temporary()
    workers = worker_specs(cluster.workers or CPU_COUNT, visible_gpus(cluster.gpus), security)
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": "127.0.0.1",
            "protocol": "tls://",
            "security": security,
            "dashboard": True,
            "dashboard_address": "127.0.0.1:0",  # 8787 may be taken
        },
    }
    with (
        dask.config.set(CALM | {"distributed.nanny.pre-spawn-environ": ENVIRONMENT}),
        SpecCluster(workers=workers, scheduler=scheduler, security=security, name="netsim", silence_logs=0) as started,
    ):
        with Client(started) as client:
            client.register_plugin(LeaveInterruptsToTheFlow())
        yield Found(started.scheduler_address, security)


def worker_specs(workers: int, gpus: list[str], security: Security) -> dict[str, Any]:
    """Processes of one thread: `workers` that see no GPU, and one for each of the GPUs, which sees only that one."""

    def spec(visible: str, resources: dict[str, int], **more: Any) -> dict[str, Any]:
        reached = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
        options = {"nthreads": 1, "memory_limit": 0, "env": {"CUDA_VISIBLE_DEVICES": visible}, "resources": resources}
        return {"cls": Nanny, "options": reached | options | more}

    plain = {f"cpu-{k}": spec("", {}) for k in range(workers)}
    return plain | {f"gpu-{gpu}": spec(gpu, GPU, plugins=keep_near(gpu)) for gpu in gpus}


def keep_near(gpu: str) -> list[WorkerPlugin]:
    """What keeps a worker on the processors next to its GPU: dask-cuda knows them, where it is installed."""
    try:
        from dask_cuda.plugins import CPUAffinity
        from dask_cuda.utils import get_cpu_affinity, nvml_device_index
    except ImportError:
        return []
    return [CPUAffinity(get_cpu_affinity(nvml_device_index(0, gpu)))]
