"""Where a sweep executes: worker processes on this machine, or a Dask scheduler that is already there.

None of this changes a number, so none of it is in the settings that name a run.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from dask.system import CPU_COUNT  # heeds affinity and container limits
from distributed import Client, LocalCluster, WorkerPlugin
from prefect.task_runners import TaskRunner
from prefect_dask import DaskTaskRunner
from pydantic import BaseModel, ConfigDict, Field

from flows.credentials import UseBlock
from netsim.errors import SettingsError


class Execution(BaseModel):
    """Where and in what portions a sweep executes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int | None = Field(
        None, gt=0, description="worker processes on this machine, one thread each; default: one a core"
    )
    scheduler: str | None = Field(None, description="address of a Dask scheduler to use instead, as in tcp://host:8786")
    shards_per_task: int = Field(4, gt=0, description="shards that one task run works through: aim at 30 s or more")
    credentials: str | None = Field(
        None, description="name of a block of type AWS Credentials, for an s3:// store; default: what each process has"
    )


ENVIRONMENT = {
    # one thread a worker: BLAS, torch and Dask threads would multiply
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Dask has workers give every freed block back to the system, and fetching it again took a fifth of an inversion
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
}
"""What worker processes here are started with."""


class LeaveInterruptsToTheFlow(WorkerPlugin):
    """Ctrl-C reaches every process of a terminal; only the flow answers it, and ends its workers itself."""

    def setup(self, worker: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def task_runner(execution: Execution) -> Iterator[TaskRunner[Any]]:
    """A task runner for the flows of one sweep; workers started here end with it.

    Raises SettingsError if there is no scheduler at the address, or one of its workers can't have the credentials.
    """
    if execution.scheduler:
        with _client(execution.scheduler) as client:
            if execution.credentials is not None:
                client.register_plugin(UseBlock(execution.credentials))
        yield DaskTaskRunner(address=execution.scheduler)
        return
    with (  # workers started here have the environment of this process, and so its credentials
        dask.config.set({"distributed.nanny.pre-spawn-environ": ENVIRONMENT}),
        LocalCluster(
            n_workers=execution.workers or CPU_COUNT,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=":0",  # 8787 may be taken
        ) as cluster,
    ):
        with Client(cluster) as client:
            client.register_plugin(LeaveInterruptsToTheFlow())
        yield DaskTaskRunner(address=cluster.scheduler_address)


def _client(scheduler: str) -> Client:
    try:
        return Client(scheduler, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise SettingsError(f"no Dask scheduler answers at {scheduler} ({error})") from None
