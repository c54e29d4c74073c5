"""What limits adversarial training on this machine: `make bench BENCH=training`, a minute.

A step of adversarial training, as the sweep `fashion-robust` takes it (an attack of two gradient steps, then one step
of the weights), in milliseconds of the whole machine, by what could be changed: the layout of tensors, the precision, a
copy of the network for the attack with BatchNorm folded into its convolutions, and processes of one thread against one
process with a thread for each core. Ways are interleaved, and each has its fastest step of several.
"""

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import prod
from multiprocessing import get_context

import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.inversion import processor
from flows.cli.console import table_of
from netsim.inversion.folding import prepared_body
from netsim.inversion.precision import Precision
from netsim.networks import Network, load_network
from netsim.networks.adversarial import attack
from netsim.networks.sources.small import GREY, SMALL
from netsim.networks.sources.small32 import COLOUR
from netsim.settings import AdversarialSettings

SCALES = {"small": GREY, "small32": COLOUR}

WAYS = ("netsim", "contiguous", "bfloat16", "folded attack", "folded attack, bfloat16")
"""All in processes of one thread; the last two change the attack only."""

ATTACK = AdversarialSettings(norm="l2", eps=0.5, steps=2)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(SMALL), choices=list(SMALL))
    parser.add_argument("--source", default="small", choices=list(SCALES))
    parser.add_argument("--batch", type=int, default=128, help="images in a step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    names = [f"{options.source}:{name}" for name in options.networks]
    table = table_of("", *WAYS, f"one process of {options.processes} threads")
    ratios = []
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        for name in names:
            work = partial(times, name, options.batch, options.repeats)
            apart = list(pool.map(work, [1] * options.processes))
            together = pool.submit(work, options.processes, WAYS[:1]).result()[0]
            steps = [1e3 / sum(1 / process[way] for process in apart) for way in range(len(WAYS))]
            steps.append(1e3 * together)
            ratios.append([step / steps[0] for step in steps])
            table.add_row(name, *(f"{step:.0f}" for step in steps))
    geometric = [prod(column) ** (1 / len(names)) for column in zip(*ratios, strict=True)]
    table.add_row("ratio (geometric mean)", *(f"{ratio:.2f}" for ratio in geometric))
    console = Console(width=160)
    console.print(f"{processor()}; {options.processes} processes, milliseconds for a step of {options.batch} images")
    console.print(table)


def times(name: str, batch: int, repeats: int, threads: int, ways: tuple[str, ...] = WAYS) -> list[float]:
    """Measure a step in each way, in seconds: the fastest of several."""
    torch.set_num_threads(threads)
    shape = SCALES[name.partition(":")[0]].shape
    images = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(batch) % 10
    steps = [step_of(load_network(name), images, labels, way) for way in ways]
    seconds = [float("inf")] * len(ways)
    for repeat in range(1 + repeats):
        for way, step in enumerate(steps):
            begun = time.perf_counter()
            step()
            if repeat:  # the first one allocates
                seconds[way] = min(seconds[way], time.perf_counter() - begun)
    return seconds


def step_of(network: Network, images: Tensor, labels: Tensor, way: str) -> Callable[[], None]:
    """Return a step of adversarial training."""
    if way == "contiguous":
        network.to(memory_format=torch.contiguous_format)
    network.requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=0.015, nesterov=True)
    half = torch.autocast("cpu", torch.bfloat16, enabled=way == "bfloat16")

    def logits(pixels: Tensor) -> Tensor:
        return network.head(network.body(network.normalised(pixels)))  # without switching autocast off

    def step() -> None:
        network.eval()
        attacks = folded(network, images, way) if way.startswith("folded") else in_half(logits, half)
        attacked = attack(attacks, images, labels, ATTACK)
        network.train()
        loss = nn.functional.cross_entropy(in_half(logits, half)(attacked), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def in_half(logits: Callable[[Tensor], Tensor], half: torch.autocast) -> Callable[[Tensor], Tensor]:
    """Compute logits in the precision of an autocast."""

    def compute(pixels: Tensor) -> Tensor:
        with half:
            return logits(pixels).float()

    return compute


def folded(network: Network, images: Tensor, way: str) -> Callable[[Tensor], Tensor]:
    """Copy the network as it is now, as inversions do, for an attack."""
    body = prepared_body(network, images[:1], Precision("bfloat16") if way.endswith("bfloat16") else Precision())
    return lambda pixels: network.head(body(network.normalised(pixels)).float())


if __name__ == "__main__":
    main()
