"""CPU time saved by stopping each image by itself: `python -m benchmarks.stopping`.

A small network is trained on the images that come with netsim and inverted twice: once with `stop_loss`, where the next
image takes the place of a finished one, and once in batches that wait for their slowest image. The two alternate, and
the result is the ratio of CPU seconds. Each image must have the same loss at the step at which it stopped in both.
"""

import argparse
import statistics
from typing import Any

import torch

from benchmarks.inversion import processor
from benchmarks.trained import draw_images
from benchmarks.usage import usage_of
from netsim.images import load_images
from netsim.inversion.invert import Inversion, invert_batches
from netsim.networks import Network, load_network
from netsim.networks.training import train_epochs
from netsim.settings import InversionSettings


def trained(name: str) -> Network:
    """Train a small network as the demo does."""
    network = load_network(f"small:{name}@none")
    images = load_images("fashion-mnist", "train", None)
    train_epochs(network, images, epochs=8, batch_size=128, learning_rate=0.2, weight_decay=0.01, rng_seed=0)
    return network


def waiting_for_the_slowest(
    network: Network, seed: torch.Tensor, target: torch.Tensor, steps: torch.Tensor, *, batch_size: int
) -> list[Inversion]:
    """Invert in whole batches, each for as many steps as its slowest image needs; `steps` (n,) are known beforehand."""
    return [
        invert_batches(network, *batch, InversionSettings(batch_size=batch_size, iterations=int(needed.max())))
        for *batch, needed in zip(*(tensor.split(batch_size) for tensor in (seed, target, steps)), strict=True)
    ]


def compare(network: Network, seed: torch.Tensor, target: torch.Tensor, *, runs: int, **settings: Any) -> str:
    """Time both ways, and describe steps, the ratio, and the differences of losses in a sentence."""
    stopped = invert_batches(network, seed, target, InversionSettings(**settings))
    batch_size, ratios, slow = settings["batch_size"], [], []

    def stop() -> None:
        invert_batches(network, seed, target, InversionSettings(**settings))

    def wait() -> None:
        slow[:] = waiting_for_the_slowest(network, seed, target, stopped.iterations, batch_size=batch_size)

    for _ in range(runs):
        seconds = usage_of(stop).cpu
        ratios.append(usage_of(wait).cpu / seconds)
    # The loss of each image at the step at which it stopped, in a batch that continued, against its loss there.
    ends = zip(slow, stopped.iterations.split(batch_size), strict=True)
    continued = torch.cat([record.history[k, torch.arange(len(k))] for record, k in ends])
    differences = (continued / stopped.history[stopped.iterations, torch.arange(len(seed))] - 1).abs()
    return (
        f"steps mean {stopped.iterations.float().mean():.0f}, slowest {stopped.iterations.max()}; "
        f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f}) less CPU than waiting for the "
        f"slowest of {batch_size}; their losses differ by {differences.median():.1e} (median), "
        f"{differences.max():.1e} (most)"
    )


def main() -> None:
    """Print a sentence per network, and the processor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["resnet18", "vgg"], help="small networks (resnet18 vgg)")
    parser.add_argument("--count", type=int, default=256, help="pairs of images")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=1000, help="maximum number of iterations per image")
    parser.add_argument("--stop-loss", type=float, default=0.1)
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs")
    options = parser.parse_args()
    torch.set_num_threads(1)

    seed, target = draw_images(load_images("fashion-mnist", "test", None), options.count)
    for name in options.networks:
        sentence = compare(
            trained(name),
            seed,
            target,
            runs=options.pairs,
            batch_size=options.batch,
            iterations=options.iterations,
            stop_loss=options.stop_loss,
        )
        print(f"{name}: {sentence}")
    print(processor())


if __name__ == "__main__":
    main()
