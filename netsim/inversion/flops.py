"""Floating-point operations of an inversion, and the peak of a device: their ratio is how well workers use it.

The useful operations of an iteration are those of two forward passes: one for the loss, and as many again for the
gradient with respect to the images. The peak is the rate of a square matrix product in the same precision on the same
device, in this process, beside whatever else runs.
"""

import time
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from netsim.networks import Network
from netsim.networks.ambient import tf32_numbers

_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention
FORMULAS = flop_registry | {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[_ATTENTION]}
"""Formulas for the FLOPs of an operation. torch's registry lacks the one for attention on CPUs."""

MATRIX_SIDES = {"cpu": 512, "cuda": 4096}
"""Rows and columns of the matrices behind a peak: one product takes milliseconds, and larger ones are no faster."""

PEAK_SECONDS = 0.2
"""Seconds of repeated products behind a peak. The fastest one counts, because the others were interrupted."""


def forward_flops(network: Network, images: torch.Tensor) -> int:
    """Count the floating-point operations of representing `images` (n, C, H, W): convolutions and matrix products.

    Gradients are enabled, as in an inversion. Without them, torch uses operations for whole attention layers whose
    matrix products cannot be counted.
    """
    with _FlopCounter() as counter, torch.enable_grad():
        network.represent(images.detach().requires_grad_())
    return counter.total


class _FlopCounter(TorchDispatchMode):
    """torch's FlopCounterMode without its module tracker, whose hooks also see the other threads of a worker."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func._overloadpacket)
        self.total += formula(*args, **(kwargs or {}), out_val=result) if formula else 0
        return result


@lru_cache(maxsize=8)
def peak_flops(device: str, dtype: str) -> float:
    """Measure the FLOP/s of the fastest product of two square matrices, once per process.

    Parameters
    ----------
    device
        Name of a torch device, as in "cpu" or "cuda:0".
    dtype
        Name of a torch dtype, as in "float32", or "tf32".
    """
    side = MATRIX_SIDES.get(torch.device(device).type, MATRIX_SIDES["cpu"])
    rounded = dtype == "tf32"
    left, right = torch.rand(2, side, side, generator=torch.Generator().manual_seed(0)).to(
        device, torch.float32 if rounded else getattr(torch, dtype)
    )
    fastest, end = float("inf"), time.perf_counter() + PEAK_SECONDS
    with tf32_numbers() if rounded else nullcontext():
        torch.matmul(left, right)  # warm-up
        while time.perf_counter() < end or fastest == float("inf"):
            _synchronize(left)
            start = time.perf_counter()
            torch.matmul(left, right)
            _synchronize(left)
            fastest = min(fastest, time.perf_counter() - start)
    return 2 * side**3 / fastest


def _synchronize(tensor: torch.Tensor) -> None:
    """Wait until the device of `tensor` has finished."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
