"""The preset `fast` against the published steps, at equal loss: `python -m benchmarks.presets`.

Networks are trained, standard and adversarially (benchmarks.trained), and inverted by both presets until every image
has the same loss.

The first table shows whether the other networks represent the images of both presets alike: the unbiased CKA of the
inverted network to each of the others, its difference between the presets, and the standard error of the difference by
a jackknife over groups of images.

The second table shows CPU seconds against the published code. The real `robustness` library runs it for as many
iterations as the median image needs, alternating with `fast` on the same images, for the fewest iterations after which
its mean loss is no higher.
"""

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.inversion import processor
from benchmarks.published import attacker_model, published
from benchmarks.trained import ARCHITECTURES, accuracies, add_choices, draw_images, image_sets, trained
from benchmarks.usage import usage_of
from netsim.inversion.calibrate import choose_precision
from netsim.inversion.engine import relative_distance
from netsim.inversion.invert import Inversion, invert_batches
from netsim.inversion.precision import Precision
from netsim.networks import Network
from netsim.settings import InversionSettings
from netsim.similarity.cka import PairSimilarity
from netsim.similarity.cka import similarity as over_shards
from netsim.similarity.uncertainty import jackknife_se

GROUP = 8
"""Images that the jackknife deletes at a time."""


@dataclass(frozen=True)
class PresetResult:
    """Inversions through a network by one preset, and the similarity of the other networks on them."""

    record: Inversion
    cka: dict[str, PairSimilarity]  # with each of the other networks


def agreement(
    networks: Mapping[str, Network],
    through: str,
    seed: Tensor,
    target: Tensor,
    *,
    preset: str,
    precision: Precision,
    **settings: Any,
) -> PresetResult:
    """Invert `through` by a preset, and compare all other networks with it on the images."""
    record = invert_batches(
        networks[through],
        seed,
        target,
        InversionSettings(preset=preset, **settings),
        precision=precision,
    )
    seen = {name: _represent(network, record.images) for name, network in networks.items()}
    groups = range(0, len(seed), GROUP)

    def similarity(other: str) -> PairSimilarity:
        return over_shards([(seen[through][k : k + GROUP], seen[other][k : k + GROUP]) for k in groups], [(0, 1)])[0, 1]

    return PresetResult(record, {name: similarity(name) for name in networks if name != through})


@torch.no_grad()
def _represent(network: Network, images: Tensor) -> np.ndarray:
    return torch.cat([network.represent(batch) for batch in images.split(64)]).numpy()


def difference(slow: PresetResult, fast: PresetResult) -> list[str]:
    """Format the cells of the first table, after the network's name."""
    shown = []
    for name, theirs in slow.cka.items():
        ours = fast.cka[name]
        error = jackknife_se(ours.leave_one_out_unbiased - theirs.leave_one_out_unbiased)
        shown.append(
            f"{name}: {theirs.cka_unbiased:.3f}, {ours.cka_unbiased:.3f}; "
            f"{ours.cka_unbiased - theirs.cka_unbiased:+.3f} ± {error:.3f}"
        )
    return [
        *(f"{result.record.iterations.double().mean():.0f}" for result in (slow, fast)),
        *(f"{result.record.final_loss.mean():.4f}" for result in (slow, fast)),
        *(f"{result.record.distance.mean():.2f}" for result in (slow, fast)),
        "\n".join(shown),
    ]


def time_to_equal_loss(
    network: Network, seed: Tensor, target: Tensor, *, iterations: int, precision: Precision, pairs: int
) -> list[str]:
    """Time both codes to the same mean loss, and format the cells of the second table."""
    theirs, goal = attacker_model(network), network.represent(target)

    def slow() -> Tensor:
        return published(theirs, seed, target, iterations=iterations)[0]

    def fast(iterations: int) -> Inversion:
        settings = InversionSettings(preset="fast", iterations=iterations, batch_size=len(seed))
        return invert_batches(network, seed, target, settings, precision=precision)

    loss = relative_distance(network.represent(slow()), goal).mean()
    best_so_far = fast(iterations).history.cummin(dim=0).values.mean(dim=1)
    fewest = int((best_so_far > loss).sum())
    reached = fast(fewest).final_loss.mean()
    seconds = [(usage_of(slow).cpu, usage_of(lambda: fast(fewest)).cpu) for _ in range(pairs)]
    ratios = sorted(slow / fast for slow, fast in seconds)
    return [
        network.name,
        f"{iterations}, {fewest}",
        f"{loss:.4f}, {reached:.4f}",
        f"{statistics.median(s for s, _ in seconds):.1f}, {statistics.median(s for _, s in seconds):.1f}",
        f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})",
        str(precision),
    ]


def main() -> None:
    """Train the networks, unless they are kept, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_choices(parser)
    parser.add_argument("--count", type=int, default=128, help="pairs of images for the CKA")
    parser.add_argument("--stop-loss", type=float, default=0.1)
    parser.add_argument("--iterations", type=int, default=2000, help="maximum number of iterations per image")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=3, help="pairs of timed runs, on the first batch")
    parser.add_argument("--precision", default="auto", choices=("float32", "tf32", "float16", "bfloat16", "auto"))
    options = parser.parse_args()
    torch.set_num_threads(1)

    console = Console(width=150)
    training, test = image_sets(options.images)
    seed, target = draw_images(test, options.count)
    agreed = Table("network", title=f"published and fast, every image at {options.stop_loss}, {options.count} pairs")
    for column in ("steps", "fast", "loss", "fast", "distance", "fast", "CKA published, fast; difference ± its error"):
        agreed.add_column(column)
    timed = Table(
        "network", "iterations", "mean loss", "CPU s", "ratio (median)", "precision", title="published code, fast"
    )
    for radius in options.radius:
        networks = {name: trained(name, training, radius=radius) for name in ARCHITECTURES}
        for name, network in networks.items():
            clean, attacked = accuracies(network, test, radius=0.5)
            console.print(f"{network.name}: accuracy {clean:.3f}, attacked within 0.5 {attacked:.3f}")
            precision = choose_precision(network, options.precision, seed[:8])
            settings = {"stop_loss": options.stop_loss, "iterations": options.iterations, "batch_size": options.batch}
            slow, fast = (
                agreement(networks, name, seed, target, preset=preset, precision=precision, **settings)
                for preset in ("published", "fast")
            )
            agreed.add_row(network.name, *difference(slow, fast))
            some = seed[: options.batch], target[: options.batch]
            iterations = int(slow.record.iterations.median())
            timed.add_row(
                *time_to_equal_loss(network, *some, iterations=iterations, precision=precision, pairs=options.pairs)
            )
    console.print(agreed)
    console.print(timed)
    console.print(f"{date.today()}, {processor()}")


if __name__ == "__main__":
    main()
