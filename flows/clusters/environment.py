"""The environment and modules of every worker."""

from dataclasses import dataclass

from distributed.security import Security

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


@dataclass(frozen=True)
class Found:
    """A scheduler, and what it takes to be let in."""

    address: str
    security: Security | None = None  # None: the scheduler lets everybody in
