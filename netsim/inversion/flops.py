"""What an inversion multiplies, and what its device can: for the share of the peak that workers reach.

Useful are two forwards an iteration: one for the loss, and as much again for the gradient by the images. The peak is
that of a square matrix product in the same precision on the same device, in this process, beside whatever else runs.
"""

import time
from functools import lru_cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from netsim.networks import Network

SIDES = {"cpu": 512, "cuda": 4096}
"""Of the matrices: a product of these takes milliseconds, and larger ones are no faster."""

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention
FORMULAS = flop_registry | {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[ATTENTION]}
"""By operation; torch has none for attention on CPUs."""

TRYING = 0.2
"""Seconds in which products are tried again and again; the fastest counts, as the others were interrupted."""


def forward_flops(network: Network, images: torch.Tensor) -> int:
    """Floating-point operations of representing `images` (n, C, H, W): those of convolutions and products.

    As in an inversion, with gradients: without, torch has operations for whole attention layers, which say nothing of
    what they multiply.
    """
    with _Counting() as counting, torch.enable_grad():
        network.represent(images.detach().requires_grad_())
    return counting.total


class _Counting(TorchDispatchMode):
    """torch's FlopCounterMode without its tracker of modules, whose hooks meet the other threads of a worker too."""

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
    """FLOP/s of the fastest product of two square matrices of `dtype`, measured once in a process."""
    side = SIDES.get(torch.device(device).type, SIDES["cpu"])
    left, right = torch.rand(2, side, side, generator=torch.Generator().manual_seed(0)).to(
        device, getattr(torch, dtype)
    )
    best, ends = float("inf"), time.perf_counter() + TRYING
    torch.matmul(left, right)  # the first one prepares more than it computes
    while True:
        _finish(left)
        started = time.perf_counter()
        torch.matmul(left, right)
        _finish(left)
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() > ends:
            return 2 * side**3 / best


def _finish(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
