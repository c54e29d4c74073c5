"""The environment and imports of every worker."""

QUIET_DASK = {
    "distributed.worker.profile.enabled": False,  # samples every thread 100 times a second
    "distributed.admin.tick.interval": "1s",  # event loops check 50 times a second by default whether they are late
    "distributed.admin.system-monitor.interval": "5s",
}
"""Dask settings that slow its periodic work down: by default it took 6 % of the processor beside inversions."""


ENVIRONMENT = {
    # one thread per worker: BLAS, torch and Dask threads would multiply
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "6640",  # what Dask gives to workers that it starts itself
    **{f"DASK_{key.replace('.', '__').replace('-', '_').upper()}": str(value) for key, value in QUIET_DASK.items()},
}
"""Environment variables of every worker."""


NO_MEMORY_LIMIT = ["--memory-limit", "0"]
"""Options of a Dask worker. By default, Dask limits a worker to its share of the cores of the memory too and pauses it
near that limit, for ever, because freed memory stays with the process. netsim chooses batch sizes by the free memory.
"""


MODULES = ("tasks.verbs", "netsim.stages.train", "netsim.stages.invert", "netsim.stages.embed")
"""Modules that a worker imports, and with them all of Prefect and Dask."""

COLLECTIONS = ("prefect_dask", "prefect_docker", "prefect_kubernetes")
"""Packages that Prefect imports for the first task of a process, if they are installed: a second of each worker."""

PRELOADED = ("netsim.networks.sources.small", "netsim.stages.aggregate", "distributed.worker", *COLLECTIONS)
"""Modules that workers of one machine share besides. None may start a thread when it is imported, as pandas does. Those
that are not installed are passed over."""
