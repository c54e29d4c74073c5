"""Batch sizes that fit into memory, and the memory that an evaluation takes."""

import os
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from netsim.allocator import retained_bytes

MAX_BATCH_SIZE = {"cpu": 32, "cuda": 256}
"""Largest batch size that is chosen: larger ones are hardly faster, unless images and network are tiny."""

MEMORY_SHARE = 0.7
"""Share of the free memory that a batch may take: convolutions need work space that the probe does not see."""

OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "Cannot allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)
"""Parts of the RuntimeErrors that mean out of memory on a CPU: torch's, the system's, C++'s, and oneDNN's."""


def fitting_batch_size(bytes_of: Callable[[int], int], device: torch.device, *, kept_bytes: int = 0) -> int:
    """Return the largest power of two of images that fits into free memory, extrapolated from one and two images.

    On a CPU, the free memory is shared among as many workers as there are cores.

    Parameters
    ----------
    bytes_of
        Measures the peak memory of evaluating so many images at once. It raises an error, for which
        `is_out_of_memory` is True, if they do not fit.
    device
        Where the images are evaluated.
    kept_bytes
        Memory that an image takes between evaluations, on top of the evaluation itself.
    """
    one = bytes_of(1)
    try:
        per_image = max(bytes_of(2) - one, 1)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return 1
    available = MEMORY_SHARE * free_bytes(device) - (one - per_image)
    fitting = max(1, min(MAX_BATCH_SIZE.get(device.type, 32), int(available // (per_image + kept_bytes))))
    return 1 << (fitting.bit_length() - 1)


def free_bytes(device: torch.device) -> float:
    """Return the free memory of a GPU, or one core's share of the free memory of the machine.

    What this process has retained is free for it, and as much again in each worker beside it.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available / (os.cpu_count() or 1) + retained_bytes()


def peak_bytes(evaluate: Callable[[], object], device: torch.device) -> int:
    """Measure the peak memory of the tensors that `evaluate` allocates on `device`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        evaluate()
        return torch.cuda.max_memory_allocated(device) - before
    with LiveBytes() as live:
        evaluate()
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Context manager that tracks the memory of all storages allocated inside it.

    Attributes
    ----------
    peak
        Most bytes that these storages held at once, as of the end of any operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {storage._cdata for storage in _storages((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in inputs:
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def _storages(values: Any) -> list[torch.UntypedStorage]:
    """Return the storages of all tensors in nested lists, tuples and dicts."""
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for the errors that torch raises when memory is exhausted, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(message in str(error) for message in OUT_OF_MEMORY)


def is_capturing(device: torch.device) -> bool:
    """Return True while work on `device` is captured as a CUDA graph, where memory cannot be freed."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
