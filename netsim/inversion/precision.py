"""Numeric precision of a network's layers during inversion."""

from dataclasses import dataclass
from typing import Literal

import torch

Dtype = Literal["float32", "tf32", "float16", "bfloat16"]
PrecisionName = Literal["float32", "tf32", "float16", "bfloat16", "auto"]


@dataclass(frozen=True)
class Precision:
    """Numeric precision of a network's layers, recorded with a run so that all its shards are computed alike.

    Grouped convolutions, depthwise ones among them, have a precision of their own: fast 16-bit matrix units of CPUs do
    not speed them up, and they are several times slower in 16 bits than in 32.

    In tf32, tensors are float32, and a GPU rounds the factors of products and convolutions to 10 bits of mantissa, as
    many as float16 has, with the range of float32.
    """

    dtype: Dtype = "float32"
    grouped: Dtype = "float32"

    @property
    def tensors(self) -> torch.dtype:
        """Type of weights and activations."""
        return _tensors_of(self.dtype)

    @property
    def grouped_tensors(self) -> torch.dtype:
        """Type of weights and activations of grouped convolutions."""
        return _tensors_of(self.grouped)

    def __str__(self) -> str:
        return self.dtype if self.grouped == self.dtype else f"{self.dtype}, grouped convolutions {self.grouped}"


def _tensors_of(name: Dtype) -> torch.dtype:
    return torch.float32 if name == "tf32" else getattr(torch, name)


def fast_precisions(device: torch.device) -> tuple[Dtype, ...]:
    """Return the lower precisions that `device` has instructions for. Emulated ones are many times slower."""
    if device.type == "cuda":
        tf32: tuple[Dtype, ...] = ("tf32",) if torch.cuda.is_tf32_supported() else ()
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return (*tf32, "float16", "bfloat16") if bfloat16 else (*tf32, "float16")
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        supported: dict[Dtype, bool] = {
            "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported(),
            "bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        }
        return tuple(name for name, fast in supported.items() if fast)
    return ()
