"""What it is worth to let images stop by themselves: `python -m benchmarks.stopping`.

A small network is trained on the images that come with netsim and inverted twice: once with `stop_loss`, where the next
image takes the place of one that is finished, and once in batches that wait for their slowest image. Both take turns;
what counts is the ratio of CPU seconds. Every image must end where it ends in the other.
"""

import argparse
import statistics
from typing import Any

import torch

from benchmarks.inversion import cpu_seconds, processor
from benchmarks.trained import draw_images
from netsim.images import load_images
from netsim.inversion.invert import Inversion, invert_batches
from netsim.networks import Network, load_network
from netsim.networks.training import train_epochs
from netsim.settings import InversionSettings


def trained(name: str) -> Network:
    """As the demo trains it."""
    network = load_network(f"small:{name}@none")
    images = load_images("fashion-mnist", "train", None)
    train_epochs(network, images, epochs=8, batch_size=128, learning_rate=0.2, weight_decay=0.01, rng_seed=0)
    return network


def waiting_for_the_slowest(
    network: Network, seed: torch.Tensor, target: torch.Tensor, steps: torch.Tensor, *, batch_size: int
) -> list[Inversion]:
    """Whole batches, each as long as its slowest image needs: `steps` (n,) of each are known beforehand."""
    return [
        invert_batches(network, *batch, InversionSettings(batch_size=batch_size, iterations=int(needed.max())))
        for *batch, needed in zip(*(tensor.split(batch_size) for tensor in (seed, target, steps)), strict=True)
    ]


def compare(network: Network, seed: torch.Tensor, target: torch.Tensor, *, runs: int, **settings: Any) -> str:
    """A sentence."""
    found = invert_batches(network, seed, target, InversionSettings(**settings))
    batch_size, ratios, slow = settings["batch_size"], [], []

    def stop() -> None:
        invert_batches(network, seed, target, InversionSettings(**settings))

    def wait() -> None:
        slow[:] = waiting_for_the_slowest(network, seed, target, found.iterations, batch_size=batch_size)

    for _ in range(runs):
        seconds = cpu_seconds(stop)
        ratios.append(cpu_seconds(wait) / seconds)
    # the loss of each image at the step at which it stopped, in a batch that went on, against its loss where it stopped
    ends = zip(slow, found.iterations.split(batch_size), strict=True)
    there = torch.cat([record.history[k, torch.arange(len(k))] for record, k in ends])
    parted = (there / found.history[found.iterations, torch.arange(len(seed))] - 1).abs()
    return (
        f"steps mean {found.iterations.float().mean():.0f}, slowest {found.iterations.max()}; "
        f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f}) less CPU than waiting for the "
        f"slowest of {batch_size}; losses there differ by {parted.median():.1e} (median), {parted.max():.1e} (most)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["resnet18", "vgg"], help="small ones; default: resnet18 vgg")
    parser.add_argument("--count", type=int, default=256, help="pairs of images")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=1000, help="after which an image is given up")
    parser.add_argument("--stop-loss", type=float, default=0.1)
    parser.add_argument("--pairs", type=int, default=3, help="of runs")
    options = parser.parse_args()
    torch.set_num_threads(1)

    seed, target = draw_images(load_images("fashion-mnist", "test", None), options.count)
    for name in options.networks:
        found = compare(
            trained(name),
            seed,
            target,
            runs=options.pairs,
            batch_size=options.batch,
            iterations=options.iterations,
            stop_loss=options.stop_loss,
        )
        print(f"{name}: {found}")
    print(processor())


if __name__ == "__main__":
    main()
