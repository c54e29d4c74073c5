"""Execution of an iteration: its bodies are called, or captured once as CUDA graphs and replayed.

A body is a function without arguments that reads and writes tensors at fixed addresses: it allocates no state, never
waits for the device, and takes the same path whatever the values are. On a GPU, most of the time of an iteration of a
small batch is spent on launching its kernels, one by one; a graph launches all of them at once.
"""

import logging
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch

from netsim.errors import first_line

logger = logging.getLogger(__name__)

# What is executed at each iteration.
Body = Callable[[], None]

WARM_UP = 2
"""Calls of a body before it is captured: the first ones load libraries and choose algorithms, which no graph can."""


class Execution(Protocol):
    """A way to execute the bodies of an inversion.

    Attributes
    ----------
    look_every
        Iterations after which the host reads which images are finished. Until then, these keep their place.
    shrink_at
        Share of the slots in use at which the others are given up, when no image is waiting.
    replays
        True if a body must do the same at each call.
    """

    look_every: int
    shrink_at: float
    replays: bool

    def run(self, body: Body) -> None:
        """Execute `body`."""

    def reset(self) -> None:
        """Forget what was captured, because tensors have moved or have another shape."""


class Plain:
    """Calls of the bodies. Looking costs nothing on a CPU, so no image is evaluated once it is finished."""

    look_every, shrink_at, replays = 1, 1.0, False

    def run(self, body: Body) -> None:
        """Call `body`."""
        body()

    def reset(self) -> None:
        """Do nothing: nothing was captured."""


class CudaGraphs:
    """CUDA graphs of the bodies, captured at their third call. What cannot be captured is called, and a log says so.

    Parameters
    ----------
    device
        The GPU.
    name
        Name of the network, for the log.
    """

    look_every, shrink_at, replays = 8, 0.75, True

    def __init__(self, device: torch.device, name: str) -> None:
        self.device, self.name = device, name
        self.failed = False
        self._stream = torch.cuda.Stream(device)
        self.reset()

    def reset(self) -> None:
        """Free the graphs with their memory."""
        self._graphs: dict[Body, torch.cuda.CUDAGraph] = {}
        self._calls: Counter[Body] = Counter()
        self._pool = torch.cuda.graph_pool_handle()  # of all bodies, which run one after the other

    def run(self, body: Body) -> None:
        """Replay the graph of `body`; capture it before, once it has been called often enough."""
        if body not in self._graphs and self._calls[body] == WARM_UP and not self.failed:
            self._capture(body)
        if body in self._graphs:
            self._graphs[body].replay()
        else:
            self._calls[body] += 1
            self._call(body)

    def _call(self, body: Body) -> None:
        """Call `body` on the stream that it is captured on."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            body()
        current.wait_stream(self._stream)

    def _capture(self, body: Body) -> None:
        """Record the kernels of `body` without executing them. If one body cannot be captured, none is replayed."""
        graph = torch.cuda.CUDAGraph()
        # The outer context is for failures, after which torch leaves the capturing stream current. Other threads of a
        # worker may use the device meanwhile.
        options: Any = {"pool": self._pool, "stream": self._stream, "capture_error_mode": "thread_local"}
        try:
            with torch.cuda.stream(torch.cuda.current_stream(self.device)), torch.cuda.graph(graph, **options):
                body()
        except RuntimeError as error:
            cause = first_line(error)
        else:
            self._graphs[body] = graph
            return
        self.failed = True
        self.reset()
        torch.cuda.empty_cache()
        _warn_once(self.name, cause)


@cache
def _warn_once(name: str, cause: str) -> None:
    """Warn once per process: the next shard of a network meets the same."""
    logger.warning("%s: inverting without CUDA graphs (%s)", name, cause)


def execution_on(device: torch.device, name: str) -> Execution:
    """Return the fastest execution on `device` for the network `name`."""
    return CudaGraphs(device, name) if device.type == "cuda" else Plain()
