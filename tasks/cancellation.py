"""What work asks its worker in between: does anybody still wait for it, and is there time for this shard, and another?

Dask can't interrupt a thread, so a task whose flow was cancelled or killed would run to its end, and a worker whose job
ends is killed in the middle of a shard. Both are known in the worker itself: no server is asked.
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

EVERY = 1.0
"""Seconds between two looks; work asks much more often."""

SAFETY = 1.2
"""How much longer than the last one a shard may take."""

HANDS_OVER = 2.0
"""Seconds in which what a task returned reaches the scheduler, before its worker leaves."""

_seconds: dict[str, float] = {}
"""What the last shard of each stage took in this process."""


class CancellationCheck:
    """For the thread of one task run. Outside of a Dask worker there is always time, and somebody waits."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._looked, self._began = stage, 0.0, 0.0
        self.shard: int | None = None  # under way, or the first that there was no time for
        self.leaves = False
        try:
            self._worker: Any = get_worker()
        except ValueError:
            self._worker = None
        self._key = getattr(thread_state, "key", None)

    def __call__(self) -> None:
        """Raises TaskCancelled if Dask has dropped this task: its flow was cancelled, or is dead.

        Raises RunError if the worker has to go before the shard is done, and another worker would have to as well.
        """
        now = time.monotonic()
        if self._worker is None or now < self._looked + EVERY:
            return
        since, self._looked = now - self._looked, now
        if self._dropped():
            raise TaskCancelled("Nobody waits for it any more")
        # the last look before it goes
        if self._left() < HANDS_OVER + 2 * since and not self._stage.resumes:
            self._require_time(now - self._began)

    def _require_time(self, taken: float) -> None:
        """A shard that was begun late is for another worker. One that had most of a worker's life never ends."""
        lives = self._worker.lifetime
        if taken > lives / 2:
            raise RunError(
                f"{self._stage.name} shard {self.shard} was not done after {taken / 60:,.1f} minutes, and a worker "
                f"lives for {lives / 60:,.1f}, the walltime without `leave_early`; {self._stage.time_limit_hint}"
            )

    @property
    def worker(self) -> str | None:
        """The worker's address."""
        return getattr(self._worker, "address", None)

    def _dropped(self) -> bool:
        task = self._worker.state.tasks.get(self._key)
        return task is None or task.state == "cancelled"

    def record_duration(self, seconds: float) -> None:
        """What a shard took. A later task of the stage goes by it too: a task may have one shard only."""
        _seconds[self._stage.name] = seconds

    def may_begin(self, shard: int) -> bool:
        """Whether the worker lives long enough for a shard that takes as long as the last one. If not, it leaves."""
        self.shard, self._began = shard, time.monotonic()
        self._looked = self._began
        if SAFETY * _seconds.get(self._stage.name, 0.0) + HANDS_OVER < self._left():
            return True
        self.leaves = True
        self._worker.loop.add_callback(_leave, self._worker)
        return False

    def _left(self) -> float:
        """Seconds that the worker still lives."""
        lifetime = getattr(self._worker, "lifetime", None)
        return psutil.Process().create_time() + lifetime - time.time() if lifetime else math.inf


async def _leave(worker: Any) -> None:
    """What waits in the worker is not begun any more, and goes to others when it closes."""
    worker.status = Status.closing_gracefully
    await asyncio.sleep(HANDS_OVER)
    # as Worker.close_gracefully, which does nothing for one that closes gracefully already
    await worker.scheduler.retire_workers(workers=[worker.address], close_workers=False, remove=True)
    await worker.close(reason="no time for another shard")
