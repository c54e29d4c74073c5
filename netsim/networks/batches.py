"""Batch sizes of evaluations: as many images as fit into memory."""

import gc
import logging
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from netsim.errors import NetworkError, first_line
from netsim.networks.memory import fitting_batch_size, is_capturing, is_out_of_memory, peak_bytes
from netsim.networks.network import Network

logger = logging.getLogger(__name__)

# Function of images (n, C, H, W), each by itself, that returns a row for each: (n, d).
Rows = Callable[[Tensor], Tensor]
T = TypeVar("T")


class Batches:
    """Batches of images on the device of a network.

    Attributes
    ----------
    size
        Images that are evaluated at once; halved, for good, whenever they do not fit into memory.
    """

    def __init__(self, network: Network, size: int = 1) -> None:
        self.network, self.device, self.size = network, network.mean.device, size

    @torch.no_grad()
    def evaluate(self, function: Rows, images: Tensor) -> Tensor:
        """Evaluate `function` in batches, without gradients: `images` (n, C, H, W) on any device -> (n, d).

        Raises
        ------
        NetworkError
            If not even one image fits into memory.
        """
        return self.attempt(
            lambda: torch.cat([function(batch.to(self.device)) for batch in images.split(self.size)]), len(images)
        )

    def attempt(self, evaluate: Callable[[], T], count: int) -> T:
        """Call `evaluate`, which works on `count` images in batches of `size`; halve `size` until they fit.

        Within the capture of a CUDA graph, nothing is tried again: the error ends the capture.

        Raises
        ------
        NetworkError
            If not even one image fits into memory.
        """
        while True:
            try:
                return evaluate()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or is_capturing(self.device):
                    raise
                cause = first_line(error)
            self._halve(count, cause)  # outside the handler, where the error no longer holds the memory

    def _halve(self, count: int, cause: str) -> None:
        too_many = min(self.size, count)
        if too_many == 1:
            raise NetworkError(
                f"{self.network.name}: out of memory on {self.device} with a single image ({cause}); "
                "use smaller images, fewer workers, or a device with more memory"
            )
        self.size = -(-too_many // 2)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "%s: out of memory with a batch of %d images; continuing with %d", self.network.name, too_many, self.size
        )


_evaluations: WeakKeyDictionary[Network, dict[torch.Size, Batches]] = WeakKeyDictionary()


def evaluation_batches(network: Network, images: Tensor) -> Batches:
    """Return batches in which `network` classifies or represents images like `images` (n, C, H, W).

    The memory of a forward pass is measured when a network meets images of this shape for the first time.

    Raises
    ------
    NetworkError
        If not even one image fits into memory.
    """
    known = _evaluations.setdefault(network, {})
    if (shape := images.shape[1:]) not in known:
        known[shape] = _measured(network, images[:1])
    return known[shape]


def _measured(network: Network, example: Tensor) -> Batches:
    batches = Batches(network)

    def bytes_of(count: int) -> int:
        return forward_bytes(network, example.expand(count, -1, -1, -1))

    batches.size = batches.attempt(lambda: fitting_batch_size(bytes_of, batches.device), 1)
    return batches


@torch.no_grad()
def forward_bytes(network: Network, images: Tensor) -> int:
    """Measure the peak memory of a forward pass of all `images` (n, C, H, W) at once."""
    images = images.to(network.mean.device)
    return peak_bytes(lambda: network(images), images.device)
