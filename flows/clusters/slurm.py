"""Workers as SLURM jobs."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from prefect import get_run_logger

from flows.clusters.certificates import read_certificates
from flows.clusters.environment import ENVIRONMENT, NO_MEMORY_LIMIT
from flows.clusters.scheduler import SchedulerAddress
from flows.clusters.settings import Slurm
from netsim.errors import SettingsError
from tasks.threads import background_thread

POLL_INTERVAL = 30.0
"""Seconds between two calls of squeue."""


@contextmanager
def start_slurm(cluster: Slurm) -> Iterator[SchedulerAddress]:
    """Start a scheduler in this process, and jobs as its work requires. Raises SettingsError if SLURM rejects a job."""
    if shutil.which("sbatch") is None:
        raise SettingsError("sbatch must be on the PATH, and is not. Run the sweep on a node that can submit jobs")
    options = slurm_options(cluster)
    with slurm_cluster()(**options) as started:
        check_submission(started.job_script())
        started.adapt(minimum_jobs=cluster.minimum, maximum_jobs=cluster.maximum)
        with replacing_lost_jobs(started):
            yield SchedulerAddress(started.scheduler_address, options["security"])


def slurm_cluster() -> Any:
    """Return dask-jobqueue's SLURMCluster, restoring the handler of Ctrl-C that importing the package replaces."""
    handler = signal.getsignal(signal.SIGINT)
    from dask_jobqueue import SLURMCluster

    signal.signal(signal.SIGINT, handler)
    return SLURMCluster


def slurm_options(cluster: Slurm) -> dict[str, Any]:
    """Return the arguments of SLURMCluster: one single-threaded worker per job, which ends before SLURM kills it."""
    stagger = cluster.worker_lifetime // 10  # workers that started together do not all end together
    lifetime = ["--lifetime", f"{cluster.worker_lifetime - stagger}s", "--lifetime-stagger", f"{stagger}s"]
    resources = ["--resources", "GPU=1"] if cluster.gpus else []
    variables = ENVIRONMENT | {"DASK_LOGGING__DISTRIBUTED": "info"}  # jobs log to files of their own
    return {
        "queue": cluster.partition,
        "account": cluster.account,
        "walltime": cluster.walltime,
        "memory": cluster.memory,
        "job_cpu": cluster.cores,
        "cores": 1,  # threads of the worker
        "processes": 1,
        "job_extra_directives": [*(["--gres=gpu:1"] if cluster.gpus else []), *cluster.directives],
        "job_script_prologue": [*(f"export {name}={value}" for name, value in variables.items()), *cluster.prologue],
        "worker_extra_args": [*lifetime, *resources, *NO_MEMORY_LIMIT],  # SLURM limits the memory
        "python": cluster.python or sys.executable,
        "interface": cluster.interface,
        "log_directory": str(Path(cluster.logs).absolute()),
        "local_directory": None,
        "job_name": "netsim",
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},  # the dashboard has no authentication
        "security": None if cluster.tls is None else read_certificates(cluster.tls),
    }


def check_submission(script: str) -> None:
    """Raise SettingsError if SLURM would reject such a job: dask-jobqueue would resubmit it for ever, silently."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".sh") as file:
        file.write(script)
        file.flush()
        tested = subprocess.run(["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False)
    if tested.returncode:
        reason = " ".join(tested.stderr.split())
        raise SettingsError(f"SLURM rejects the jobs of this cluster: {reason}. Change `cluster:`")


@contextmanager
def replacing_lost_jobs(cluster: Any) -> Iterator[None]:
    """Replace jobs that SLURM did not accept or that ended before their worker connected.

    dask-jobqueue replaces the workers that its scheduler loses, but waits for ever for one that never connected.
    """
    logger = get_run_logger()

    def poll(stop: Event) -> None:
        suspected: dict[Any, Any] = {}
        while not stop.wait(POLL_INTERVAL):
            lost = lost_jobs(cluster)
            for name in [name for name, job in lost.items() if suspected.get(name) is job]:
                logger.warning("SLURM job %s ended before its worker connected; replacing it", lost[name].job_id)
                cluster.loop.add_callback(cluster.workers.pop, name, None)
            suspected = lost

    with background_thread(poll):
        yield


def lost_jobs(cluster: Any) -> dict[Any, Any]:
    """Return the jobs of a SLURMCluster, by name, that are not queued and whose worker is not connected (yet)."""
    jobs = dict(cluster.workers)
    squeue = subprocess.run(
        ["squeue", "--me", "--noheader", "--format=%i"], capture_output=True, text=True, check=False
    )
    if squeue.returncode:  # SLURM is unavailable for a while
        return {}
    queued = set(squeue.stdout.split())
    connected = {worker["name"] for worker in cluster.scheduler_info["workers"].values()}
    return {name: job for name, job in jobs.items() if job.job_id not in queued and name not in connected}
