"""Workers as jobs of SLURM."""

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

from flows.clusters import settings as where
from flows.clusters.certificates import read_certificates
from flows.clusters.environment import ENVIRONMENT, UNLIMITED, Found
from netsim.errors import SettingsError
from tasks.threads import background_thread


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

    with background_thread(look):
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
