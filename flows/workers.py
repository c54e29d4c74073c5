"""The workers of a sweep: started where its `cluster:` says, and gone when the sweep is, but for a scheduler's own."""

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

import dask
from dask.system import CPU_COUNT  # heeds affinity and container limits
from distributed import Client, Nanny, Scheduler, SpecCluster, WorkerPlugin
from distributed.security import Security
from prefect import get_run_logger
from prefect.task_runners import TaskRunner
from prefect_dask import DaskTaskRunner

from flows import cluster as where
from flows.certificates import read_certificates
from flows.credentials import UseBlock
from netsim.errors import SettingsError
from tasks.devices import GPU, visible_gpus
from tasks.threads import beside

CALM = {
    "distributed.worker.profile.enabled": False,  # looks at every thread 100 times a second
    "distributed.admin.tick.interval": "1s",  # event loops ask whether they are late, 50 times a second by default
    "distributed.admin.system-monitor.interval": "5s",
}
"""What Dask does all the time, made less: by default it took 6 % of the processor beside inversions."""

ENVIRONMENT = {
    # one thread a worker: BLAS, torch and Dask threads would multiply
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Dask has workers give every freed block back to the system, and fetching it again took a fifth of an inversion
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    **{f"DASK_{key.replace('.', '__').replace('-', '_').upper()}": str(value) for key, value in CALM.items()},
}
"""What workers are started with."""

UNLIMITED = ["--memory-limit", "0"]
"""For workers. Dask would give one its share of the cores, of memory too, and have it pause for ever near that: what is
freed stays with the process. How many images are inverted at a time goes by the memory there is.
"""

MODULES = ("tasks.verbs", "netsim.stages.train", "netsim.stages.invert", "netsim.stages.embed")
"""What workers import, all of Prefect and Dask with it."""


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
    if isinstance(cluster, where.Elsewhere):
        return cluster.maximum
    return len(visible_gpus(cluster.gpus)) or cluster.workers or CPU_COUNT


@dataclass(frozen=True)
class Found:
    """A scheduler, and what it takes to be let in."""

    address: str
    security: Security | None = None  # None: the scheduler lets everybody in


def import_in_scheduler(client: Client) -> None:
    """Have it import in a thread what it needs to read the first task run.

    It would in its event loop otherwise, and where that takes more than 30 s, the flow loses its connection and all
    that it has submitted. Raises SettingsError if netsim is not there.
    """
    try:
        client.run_on_scheduler(asyncio.to_thread, import_module, "tasks.verbs")
    except ImportError as error:
        raise SettingsError(f"the Dask scheduler can't import netsim ({error}); install it there, as here") from None


# ---- this machine


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


# ---- a scheduler that is there


@contextmanager
def find_scheduler(cluster: where.Scheduler) -> Iterator[Found]:
    found = Found(cluster.address, None if cluster.tls is None else read_certificates(cluster.tls))
    try:
        Client(found.address, security=found.security, timeout=10).close()
    except (OSError, TimeoutError, ValueError) as error:
        way_out = (
            f"are the certificates in {cluster.tls} its own?" if cluster.tls else "one with certificates is tls://"
        )
        why = f"{error}; {error.__cause__}" if error.__cause__ else str(error)
        raise SettingsError(f"no Dask scheduler answers at {cluster.address} ({why}); {way_out}") from None
    yield found


# ---- SLURM


@contextmanager
def start_slurm(cluster: where.Slurm) -> Iterator[Found]:
    if shutil.which("sbatch") is None:
        raise SettingsError("sbatch is not on the PATH of this machine; run the sweep where jobs are submitted from")
    options = slurm_options(cluster)
    with slurm_cluster()(**options) as started:
        try_submission(started.job_script())
        started.adapt(minimum_jobs=cluster.minimum, maximum_jobs=cluster.maximum)
        with forgetting_lost_jobs(started):
            yield Found(started.scheduler_address, options["security"])


def slurm_cluster() -> Any:
    """dask-jobqueue's class. Its package takes Ctrl-C for itself when it is imported: that is given back."""
    before = signal.getsignal(signal.SIGINT)
    from dask_jobqueue import SLURMCluster

    signal.signal(signal.SIGINT, before)
    return SLURMCluster


def slurm_options(cluster: where.Slurm) -> dict[str, Any]:
    """What SLURMCluster is made with: a job is one worker of one thread, which leaves before SLURM kills it."""
    spread = cluster.lives // 10  # workers that started together do not all leave together
    leaves = ["--lifetime", f"{cluster.lives - spread}s", "--lifetime-stagger", f"{spread}s"]
    resources = ["--resources", "GPU=1"] if cluster.gpus else []
    told = ENVIRONMENT | {"DASK_LOGGING__DISTRIBUTED": "info"}  # jobs have logs of their own, no terminal
    return {
        "queue": cluster.partition,
        "account": cluster.account,
        "walltime": cluster.walltime,
        "memory": cluster.memory,
        "job_cpu": cluster.cores,
        "cores": 1,  # threads of the worker
        "processes": 1,
        "job_extra_directives": [*(["--gres=gpu:1"] if cluster.gpus else []), *cluster.directives],
        "job_script_prologue": [*(f"export {name}={value}" for name, value in told.items()), *cluster.prologue],
        "worker_extra_args": [*leaves, *resources, *UNLIMITED],  # SLURM sees to it
        "python": cluster.python or sys.executable,
        "interface": cluster.interface,
        "log_directory": str(Path(cluster.logs).absolute()),
        "local_directory": None,
        "job_name": "netsim",
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},  # it asks nobody who they are
        "security": None if cluster.tls is None else read_certificates(cluster.tls),
    }


def try_submission(script: str) -> None:
    """Ask SLURM whether it would take such a job: later it would only be tried again and again, without a word."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        tried = subprocess.run(["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise SettingsError(f"SLURM does not take such a job: {' '.join(tried.stderr.split())}")


LOOK = 30.0
"""Seconds between two looks at the queue."""


@contextmanager
def forgetting_lost_jobs(cluster: Any) -> Iterator[None]:
    """Has others submitted for jobs that ended before their worker came, and for those that SLURM did not take.

    dask-jobqueue replaces what its scheduler loses. What never came it would wait for as long as the sweep lives.
    """
    logger = get_run_logger()

    def look(over: Event) -> None:
        suspected: dict[Any, Any] = {}
        while not over.wait(LOOK):
            lost = lost_jobs(cluster)
            for name in [name for name, job in lost.items() if suspected.get(name) is job]:
                logger.warning("job %s of SLURM ended before its worker came; another is asked for", lost[name].job_id)
                cluster.loop.add_callback(cluster.workers.pop, name, None)
            suspected = lost

    with beside(look):
        yield


def lost_jobs(cluster: Any) -> dict[Any, Any]:
    """Of a SLURMCluster, by name: jobs that are not in the queue and whose worker is not there. It may yet come."""
    jobs = dict(cluster.workers)
    asked = subprocess.run(["squeue", "--me", "--noheader", "--format=%i"], capture_output=True, text=True, check=False)
    if asked.returncode:  # SLURM is away for a while
        return {}
    queued = set(asked.stdout.split())
    there = {worker["name"] for worker in cluster.scheduler_info["workers"].values()}
    return {name: job for name, job in jobs.items() if job.job_id not in queued and name not in there}


# ---- Kubernetes


@contextmanager
def start_kubernetes(cluster: where.Kubernetes) -> Iterator[Found]:
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError:
        raise SettingsError("dask-kubernetes is not installed here; requirements-cluster.lock has it") from None
    with KubeCluster(custom_cluster_spec=kubernetes_spec(cluster), namespace=cluster.namespace) as started:
        started.adapt(minimum=cluster.minimum, maximum=cluster.maximum)
        yield Found(started.scheduler_address)


IDLE = 4 * 3600
"""Seconds after which the operator takes back what a sweep has whose pod was killed. It also ends a sweep that waits so
long for its first worker; the next goes on."""


def kubernetes_spec(cluster: where.Kubernetes) -> dict[str, Any]:
    """The DaskCluster that the Dask operator is asked for; a name of its own, as two sweeps may run at once."""
    name = f"netsim-{uuid.uuid4().hex[:8]}"
    limits = {"cpu": str(cluster.cores), "memory": str(cluster.memory_bytes)}
    limits |= {"nvidia.com/gpu": "1"} if cluster.gpus else {}
    resources = ["--resources", "GPU=1"] if cluster.gpus else []
    work = ["dask", "worker", "--nthreads", "1", *UNLIMITED, *resources, "--name", "$(DASK_WORKER_NAME)"]
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


def pod(
    cluster: where.Kubernetes, name: str, command: list[str], limits: dict[str, str], **more: Any
) -> dict[str, Any]:
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


STARTS: dict[type[where.AnyCluster], Callable[[Any], AbstractContextManager[Found]]] = {
    where.Local: start_local,
    where.Scheduler: find_scheduler,
    where.Slurm: start_slurm,
    where.Kubernetes: start_kubernetes,
}
