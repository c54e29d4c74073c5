"""How many images of an inversion fit into memory, and the memory that one iteration takes."""

import os
from typing import Any, Protocol

import psutil
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from netsim.networks import Network

MOST_IMAGES = {"cpu": 32, "cuda": 256}
"""Images at a time that no probe goes beyond: more are hardly faster, unless images and network are tiny."""


MEMORY_SHARE = 0.7
"""Of the free memory, what a batch may take: convolutions have work space that the probe does not see."""


class Iterating(Protocol):
    """The part of an `Engine` that a memory probe drives."""

    network: Network
    device: torch.device
    batch_size: int

    def loss_and_descent(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compute one iteration's loss and descent direction."""
        ...


def fitting_batch_size(engine: Iterating, example: Tensor, *, kept_bytes: int = 0) -> int:
    """The largest power of two that fits into the memory that is free, going by what one and two images take.

    `kept_bytes` is what an image takes besides, between iterations.
    On a CPU, the free memory is shared among as many workers as there are cores.
    """
    most = MOST_IMAGES.get(engine.device.type, 32)
    engine.batch_size = 2
    one, two = (peak_bytes(engine, example.expand(n, -1, -1, -1)) for n in (1, 2))
    if engine.batch_size == 1:  # two were too many
        return 1
    each = max(two - one, 1)
    room = MEMORY_SHARE * _free_bytes(engine.device) - (one - each)
    each += kept_bytes
    fitting = max(1, min(most, int(room // each)))
    return 1 << (fitting.bit_length() - 1)


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available / (os.cpu_count() or 1)


def peak_bytes(engine: Iterating, images: Tensor) -> int:
    """Most memory that tensors made by one iteration hold at once."""
    target = torch.ones(len(images), engine.network.width, dtype=images.dtype, device=engine.device)
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(engine.device)
        before = torch.cuda.memory_allocated(engine.device)
        engine.loss_and_descent(images, target)
        return torch.cuda.max_memory_allocated(engine.device) - before
    with LiveBytes() as live:
        engine.loss_and_descent(images, target)
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Adds up, after every operation, the storages that operations have made and that nothing has freed yet."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in _storages((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in given:
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._made = {key: made for key, made in self._made.items() if not made[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._made.values()))
        return result


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(sign in str(error) for sign in OUT_OF_MEMORY)


OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "Cannot allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)
"""What the plain RuntimeErrors say that a CPU has for it: torch's own, the system's, C++'s, and those of oneDNN."""
