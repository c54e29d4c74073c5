"""Announcements while a sweep waits because no worker can take its work, which Dask does silently and for ever."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any

from distributed import Client

from flows.clusters.scheduler import SchedulerAddress, connect
from tasks.logs import announce
from tasks.threads import background_thread

POLL_INTERVAL = 10.0
"""Seconds between two looks at the workers."""

PATIENCE = 10.0
"""Seconds of waiting before the first announcement; each further one comes after four times as long."""

CLOSE_TIMEOUT = 5.0
"""Seconds to wait at the end for the connection to the scheduler to be closed."""


@contextmanager
def announced_waits(scheduler: SchedulerAddress, hint: str) -> Iterator[None]:
    """Announce during the block, ever more rarely, that no worker can take the work, with a `hint` what to do."""
    closed = Event()

    def poll(finished: Event) -> None:
        with suppress(OSError, TimeoutError), connect(scheduler) as client:  # the flow itself reports a loss
            _announce(client, scheduler.address, hint, finished)
        closed.set()

    with background_thread(poll):
        yield
    closed.wait(CLOSE_TIMEOUT)  # a client that is open when its scheduler ends complains


def _announce(client: Client, address: str, hint: str, finished: Event) -> None:
    since, patience, had_gpus = time.monotonic(), PATIENCE, False
    while not finished.wait(POLL_INTERVAL) and client.status == "running":
        workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
        gpus = any(worker["resources"].get("GPU") for worker in workers)
        stuck = had_gpus and not gpus and client.run_on_scheduler(count_stuck) > 0
        had_gpus |= gpus
        reason = explain_wait([worker["status"] for worker in workers], stuck=stuck, address=address)
        if reason is None:
            since, patience = time.monotonic(), PATIENCE
        elif time.monotonic() - since >= patience:
            announce(f"waiting: {reason}. {hint}")
            patience *= 4


def count_stuck(dask_scheduler: Any) -> int:
    """Count, in the scheduler, the tasks that no worker can take."""
    return len(dask_scheduler.unrunnable)


def explain_wait(workers: list[str], *, stuck: bool, address: str) -> str | None:
    """Return why no worker takes the work, None if some do.

    `workers` are their states in Dask; `stuck` tells that tasks need a GPU and none has one any more.
    """
    scheduler = f"the Dask scheduler at {address}"
    if not workers:
        return f"no worker is connected to {scheduler}"
    if "running" not in workers:
        return f"all {len(workers)} workers of {scheduler} are {workers[0]}; a --memory-limit has them pause"
    if stuck:
        return f"none of the {len(workers)} workers of {scheduler} has the GPU that the work needs"
    return None
