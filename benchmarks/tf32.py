"""What TF32 changes, emulated on a CPU: `python -m benchmarks.tf32 runs/demo`.

In TF32, a GPU rounds the factors of products and convolutions to 10 bits of mantissa, and adds in float32. Here, the
engine's convolutions and linear layers get rounded images and weights in the forward pass, and rounded cotangents and
weights in the gradient. Networks come from a finished run of the small networks, such as `make demo`.

Each network is inverted three times on the same pairs: in float32, in float32 again in batches of another size, which
shows what rounding alone changes, and in TF32. Shown are the change of representations, the final loss, the distance
between the inverted images, and how much the unbiased CKA of the other networks changes, with the standard error of the
CKA and that of the difference (jackknife over groups of images).
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.inversion import processor
from benchmarks.presets import PresetResult, agreement
from benchmarks.trained import draw_images, image_sets
from netsim.inversion import engine
from netsim.inversion.engine import Engine, relative_distance
from netsim.inversion.folding import prepared_body
from netsim.inversion.precision import Precision
from netsim.networks import Network, load_network
from netsim.similarity.uncertainty import jackknife_se

MANTISSA_BITS = 10
"""Bits of mantissa of TF32; float32 has 23."""


def rounded(values: Tensor) -> Tensor:
    """Round float32 to the nearest number of TF32, ties to even."""
    dropped = 23 - MANTISSA_BITS
    bits = values.contiguous().view(torch.int32)
    nearest = bits + (1 << (dropped - 1)) - 1 + ((bits >> dropped) & 1)
    return torch.where(values.isfinite(), ((nearest >> dropped) << dropped).view(torch.float32), values)


class _RoundedForward(torch.autograd.Function):
    """Rounding of the factor of a product; its gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return rounded(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _RoundedBackward(torch.autograd.Function):
    """An identity whose gradient is rounded: the cotangent is a factor of the product that is the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return rounded(gradient)


def emulated_body(network: Network, example: Tensor, precision: Precision) -> nn.Module:
    """Prepare the body that the engine evaluates, with layers that round as those of a GPU do."""
    body = prepared_body(network, example, precision)
    for layer in body.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.weight = nn.Parameter(rounded(layer.weight), requires_grad=False)  # the weights are shared
            layer.register_forward_pre_hook(lambda _, inputs: _RoundedForward.apply(inputs[0]))
            layer.register_forward_hook(lambda *call: _RoundedBackward.apply(call[-1]))
    return body


@contextmanager
def emulated_tf32() -> Iterator[None]:
    """Let engines that are made inside the block compute in TF32."""
    plain, engine.prepared_body = engine.prepared_body, emulated_body
    try:
        yield
    finally:
        engine.prepared_body = plain


def change_of(network: Network, images: Tensor) -> Tensor:
    """Return how far TF32 moves the representation of each image, relative to its length."""
    with emulated_tf32():
        moved = Engine(network, images, batch_size=32).represent_all(images)
    return relative_distance(moved, Engine(network, images, batch_size=32).represent_exactly(images))


def changes(first: PresetResult, second: PresetResult) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences of the unbiased CKA with each of the other networks, and their standard errors."""
    both = [(first.cka[name], second.cka[name]) for name in first.cka]
    errors = [jackknife_se(b.leave_one_out_unbiased - a.leave_one_out_unbiased) for a, b in both]
    return np.array([b.cka_unbiased - a.cka_unbiased for a, b in both]), np.array(errors)


def row(
    networks: Mapping[str, Network], name: str, seed: Tensor, target: Tensor, **settings: Any
) -> tuple[list[str], float]:
    """Invert one network in all ways; return the cells of its row, and the largest change in errors of the CKA."""
    plain = agreement(networks, name, seed, target, precision=Precision(), batch_size=32, **settings)
    again = agreement(networks, name, seed, target, precision=Precision(), batch_size=24, **settings)
    with emulated_tf32():
        low = agreement(networks, name, seed, target, precision=Precision(), batch_size=32, **settings)
    error = np.array([jackknife_se(cell.leave_one_out_unbiased) for cell in plain.cka.values()])
    rounding, (change, change_error) = changes(plain, again)[0], changes(plain, low)
    apart = [
        (result.record.images - plain.record.images).flatten(1).norm(dim=1).median().item() for result in (again, low)
    ]
    moved = change_of(networks[name], target)
    cells = [
        name,
        f"{moved.median():.1e}, {moved.max():.1e}",
        f"{plain.record.final_loss.median():.5f}, {low.record.final_loss.median():.5f}",
        f"{apart[0]:.2f}, {apart[1]:.2f} of {plain.record.distance.median():.2f}",
        f"{error.mean():.4f}",
        f"{np.abs(rounding).max():.4f}",
        f"{np.abs(change).max():.4f} ± {change_error[np.abs(change).argmax()]:.4f}",
    ]
    return cells, float((np.abs(change) / error).max())


def main() -> None:
    """Print a row for each network, and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of a finished run of small networks, with weights/")
    parser.add_argument("--images", default="fashion-mnist", help="image source of the run")
    parser.add_argument("--count", type=int, default=128, help="pairs of images")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--preset", default="fast", choices=("published", "fast"))
    options = parser.parse_args()
    torch.set_num_threads(1)

    files = sorted((options.store / "weights").glob("*.safetensors"))
    test = image_sets(options.images)[1]
    networks = {
        file.stem: load_network(f"small:{file.stem}@{file}", num_classes=len(test.classes), input_shape=test.shape)
        for file in files
    }
    seed, target = draw_images(test, options.count)
    table = Table(
        "network", title=f"float32 and TF32, {options.preset}, {options.iterations} steps, {options.count} pairs"
    )
    for column in (
        "representations move by (median, most)",
        "median loss float32, TF32",
        "images apart: batches, TF32 (L2)",
        "error of CKA",
        "CKA: batches",
        "CKA: TF32",
    ):
        table.add_column(column)
    worst = 0.0
    for name in networks:
        cells, share = row(
            networks, name, seed, target, preset=options.preset, iterations=options.iterations, stop_loss=None
        )
        table.add_row(*cells)
        worst = max(worst, share)
    console = Console(width=160)
    console.print(table)
    console.print(f"TF32 changes CKA by at most {worst:.2f} of its standard error (over images)")
    console.print(f"{date.today()}, {processor()}")


if __name__ == "__main__":
    main()
