"""Cost of an inversion step, against the published code: `make bench`.

Both run in this process, one after the other, again and again, on one thread; what counts is the ratio of CPU seconds
within a pair of runs, and its median over pairs. Weights are random: they do not change what a step costs.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.published import attacker_model, published
from netsim.inversion import invert_batches
from netsim.networks import load_network

NINE = (
    "densenet161",
    "mobilenet_v2",
    "resnext50_32x4d",
    "resnet18",
    "resnet50",
    "shufflenet_v2_x1_0",
    "vgg16_bn",
    "wide_resnet50_2",
    "wide_resnet50_4",
)


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(name: str, *, pixels: int, batch: int, iterations: int, pairs: int) -> list[tuple[float, float]]:
    """CPU seconds an iteration, (published, netsim), of each pair of runs after one that does not count."""
    network = load_network(f"torchvision:{name}@none", input_shape=(3, pixels, pixels))
    theirs = attacker_model(network)
    seed, target = (torch.rand(batch, 3, pixels, pixels, generator=torch.manual_seed(k)) for k in (1, 2))
    found = []
    for _ in range(pairs + 1):
        slow = cpu_seconds(lambda: published(theirs, seed, target, iterations=iterations))
        fast = cpu_seconds(lambda: invert_batches(network, seed, target, batch_size=batch, iterations=iterations))
        found.append((slow / iterations, fast / iterations))
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NINE, help="torchvision names; default: the paper's nine")
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=3)
    options = vars(parser.parse_args())
    torch.set_num_threads(1)

    table = Table(
        "network", title=f"CPU seconds an iteration, batch {options['batch']}, {options['pixels']} px, one thread"
    )
    for column in ("published", "netsim", "ratio (median)", "ratio (range)"):
        table.add_column(column, justify="right")
    for name in options.pop("networks"):
        found = compare(name, **options)
        ratios = sorted(slow / fast for slow, fast in found)
        slow, fast = (statistics.median(seconds) for seconds in zip(*found, strict=True))
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        table.add_row(name, f"{slow:.3f}", f"{fast:.3f}", f"{statistics.median(ratios):.2f}", spread)
    Console(width=100).print(table)
    print(f"{date.today()}, {platform.machine()}, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")


if __name__ == "__main__":
    main()
