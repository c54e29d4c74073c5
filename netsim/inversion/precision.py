"""Numeric precision of a network's layers during inversion."""

from dataclasses import dataclass
from typing import Literal

import torch

PrecisionName = Literal["float32", "float16", "bfloat16", "auto"]


Dtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Precision:
    """In which precision layers work. Recorded with a run, so that all its shards are computed alike.

    Grouped convolutions, depthwise ones among them, have their own: on CPUs with fast 16-bit matrix units, these are of
    no use to them, and they are several times slower in 16 bits than in 32.
    """

    dtype: Dtype = "float32"
    grouped: Dtype = "float32"

    def __str__(self) -> str:
        return self.dtype if self.grouped == self.dtype else f"{self.dtype}, grouped convolutions {self.grouped}"


def fast_precisions(device: torch.device) -> tuple[Dtype, ...]:
    """The 16-bit precisions that the device computes in by itself; elsewhere they are emulated, many times slower."""
    if device.type == "cuda":
        return ("float16", "bfloat16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("float16",)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        supported: dict[Dtype, bool] = {
            "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported(),
            "bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        }
        return tuple(name for name, fast in supported.items() if fast)
    return ()
