"""Checks whether a task is still wanted, and whether its worker has time for this shard and for the next one.

Dask cannot interrupt a thread: without these checks, a task whose flow was cancelled or killed would run to its end,
and a worker whose job ends would be killed in the middle of a shard. The worker itself knows both; no server is asked.
"""

import asyncio
import math
import time
from typing import Any

import psutil
from distributed import Status, get_worker
from distributed.worker import thread_state

from netsim.errors import RunError, TaskCancelled
from netsim.store.stages import Stage

CHECK_INTERVAL = 1.0
"""Minimum number of seconds between two checks; work calls much more often."""

SAFETY_FACTOR = 1.2
"""A shard is begun only if the worker lives this many times as long as the last shard took."""

HANDOVER = 2.0
"""Seconds that the result of a task needs to reach the scheduler before its worker leaves."""

_durations: dict[str, float] = {}
"""Seconds that the last shard of each stage took in this process."""


class CancellationCheck:
    """Check of one task run, for the thread that executes it.

    Outside a Dask worker every check passes.

    Attributes
    ----------
    shard
        The shard in progress, or the first one that there was no time for.
    leaves
        Set once the worker is leaving because its remaining lifetime is too short for another shard.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage, self._checked, self._began = stage, 0.0, 0.0
        self.shard: int | None = None
        self.leaves = False
        try:
            self._worker: Any = get_worker()
        except ValueError:
            self._worker = None
        self._key = getattr(thread_state, "key", None)

    def __call__(self) -> None:
        """Check whether the shard in progress may continue.

        Raises
        ------
        TaskCancelled
            If Dask has dropped the task, because its flow was cancelled or is dead.
        RunError
            If the worker must leave before the shard is done, and so would any other worker.
        """
        now = time.monotonic()
        if self._worker is None or now < self._checked + CHECK_INTERVAL:
            return
        since, self._checked = now - self._checked, now
        if self._is_dropped():
            raise TaskCancelled("the task was dropped because its flow was cancelled or died")
        # the last check before the worker leaves
        if self._remaining() < HANDOVER + 2 * since and not self._stage.resumes:
            self._require_time(now - self._began)

    def _require_time(self, taken: float) -> None:
        """Fail if the shard had most of a worker's lifetime; one that was begun late is left to another worker."""
        lifetime = self._worker.lifetime
        if taken > lifetime / 2:
            raise RunError(
                f"{self._stage.name} shard {self.shard} was not finished after {taken / 60:,.1f} minutes, but a worker "
                f"lives for {lifetime / 60:,.1f} (the walltime minus `leave_early`); {self._stage.time_limit_hint}"
            )

    @property
    def worker(self) -> str | None:
        """Address of the worker; None outside a worker."""
        return getattr(self._worker, "address", None)

    def _is_dropped(self) -> bool:
        task = self._worker.state.tasks.get(self._key)
        return task is None or task.state == "cancelled"

    def record_duration(self, seconds: float) -> None:
        """Record the duration of a shard. Later tasks of the stage use it too, since a task may have only one shard."""
        _durations[self._stage.name] = seconds

    def may_begin(self, shard: int) -> bool:
        """Tell whether the worker lives long enough for a shard as long as the last one; if not, make it leave."""
        self.shard, self._began = shard, time.monotonic()
        self._checked = self._began
        if SAFETY_FACTOR * _durations.get(self._stage.name, 0.0) + HANDOVER < self._remaining():
            return True
        self.leaves = True
        self._worker.loop.add_callback(_leave, self._worker)
        return False

    def _remaining(self) -> float:
        """Return the remaining lifetime of the worker in seconds."""
        lifetime = getattr(self._worker, "lifetime", None)
        return psutil.Process().create_time() + lifetime - time.time() if lifetime else math.inf


async def _leave(worker: Any) -> None:
    """Have the worker begin no further task, and close it; its queued tasks go to other workers."""
    worker.status = Status.closing_gracefully
    await asyncio.sleep(HANDOVER)
    # what Worker.close_gracefully does, which returns at once for a worker with this status
    await worker.scheduler.retire_workers(workers=[worker.address], close_workers=False, remove=True)
    await worker.close(reason="no time for another shard")
