"""Workers on this machine."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster, WorkerPlugin
from distributed.security import Security
from distributed.utils import get_mp_context

from flows.clusters.environment import ENVIRONMENT, QUIET_DASK
from flows.clusters.forkserver import start_fork_server
from flows.clusters.scheduler import SchedulerAddress
from flows.clusters.settings import Local
from tasks.devices import GPU, visible_gpus


class ShareTerminal(WorkerPlugin):
    """Leave the terminal to the flow: it prints, and it ends its workers itself.

    Ctrl-C, and the end of a terminal, reach all processes of it.
    """

    def __init__(self) -> None:
        self._print_errors_of_logging = logging.raiseExceptions

    def setup(self, worker: object) -> None:
        """Ignore SIGINT and SIGHUP in this worker, and print of logging what the flow prints."""
        logging.raiseExceptions = self._print_errors_of_logging
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def start_local(cluster: Local) -> Iterator[SchedulerAddress]:
    """Start a scheduler and workers, with certificates in memory: other users of this machine reach 127.0.0.1 too."""
    security = Security.temporary()
    workers = worker_specs(cluster.workers or CPU_COUNT, visible_gpus(cluster.gpus), security)
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": "127.0.0.1",
            "protocol": "tls://",
            "security": security,
            "dashboard": True,
            "dashboard_address": "127.0.0.1:0",  # 8787 may be in use
        },
    }
    forked = {"distributed.worker.multiprocessing-method": "forkserver"}
    with dask.config.set(QUIET_DASK | forked | {"distributed.nanny.pre-spawn-environ": ENVIRONMENT}):
        get_mp_context()  # names modules of its own to import, once
        start_fork_server()
        with SpecCluster(
            workers=workers, scheduler=scheduler, security=security, name="netsim", silence_logs=0
        ) as started:
            with Client(started) as client:
                client.register_plugin(ShareTerminal())
            yield SchedulerAddress(started.scheduler_address, security)


def worker_specs(workers: int, gpus: list[str], security: Security) -> dict[str, Any]:
    """Return Dask's specification of single-threaded processes: `workers` without a GPU, and one for each of `gpus`."""

    def spec(visible: str, resources: dict[str, int], **extra: Any) -> dict[str, Any]:
        connection = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
        options = {"nthreads": 1, "memory_limit": 0, "env": {"CUDA_VISIBLE_DEVICES": visible}, "resources": resources}
        return {"cls": Nanny, "options": connection | options | extra}

    cpu_workers = {f"cpu-{k}": spec("", {}) for k in range(workers)}
    return cpu_workers | {f"gpu-{gpu}": spec(gpu, GPU, plugins=affinity_plugins(gpu)) for gpu in gpus}


def affinity_plugins(gpu: str) -> list[WorkerPlugin]:
    """Return the plugin that pins a worker to the processors next to its GPU, if dask-cuda is installed."""
    try:
        from dask_cuda.plugins import CPUAffinity
        from dask_cuda.utils import get_cpu_affinity, nvml_device_index
    except ImportError:
        return []
    return [CPUAffinity(get_cpu_affinity(nvml_device_index(0, gpu)))]
