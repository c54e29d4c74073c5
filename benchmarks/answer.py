"""What an answer costs, by the published code and by netsim: `make bench BENCH=answer`, hours.

The answer is the mean similarity after inversion of three trained networks of CIFAR-10's size (unbiased CKA, six
cells), known to within `--half-width` at 95 % over images. Each way of inverting goes on, one shard at a time, until
its sweep would have stopped by itself (`pairs.until`), all in turn in one process of one thread. Printed is what that
took, and what the fewest shards would have taken that are enough: a user who chose n in hindsight.

The published code (the real `robustness` library, 2000 steps, float32) makes the same images as netsim's preset
`published`, which a test shows, so that it needs as many pairs. Its seconds are those of that preset, times the ratio
of both on the same images, measured in turn.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.inversion import processor
from benchmarks.published import attacker_model, published
from benchmarks.trained import ARCHITECTURES, accuracies, add_choices, draw_images, image_sets, trained
from benchmarks.usage import so_far, usage_of
from flows.cli.console import table_of
from netsim.inversion.calibrate import choose_precision
from netsim.inversion.invert import Inversion, invert_batches
from netsim.inversion.precision import Precision
from netsim.networks import Network
from netsim.settings import InversionSettings
from netsim.similarity.cka import similarity
from netsim.similarity.uncertainty import Estimate, jackknife
from netsim.statistics.sequential import FIRST_LOOK, looks, width_interval

PUBLISHED = "published"
"""The way that all others are compared with."""


@dataclass
class Way:
    """A way of inverting, and what it has computed so far.

    Attributes
    ----------
    name
        The way, as printed.
    settings
        Of the inversion.
    seconds
        CPU seconds of each shard: inversions through all networks, and what these see.
    seen
        For each shard, row and observer -> representations (images, d).
    losses, steps
        Final losses of all inversions, and the steps that they took.
    """

    name: str
    settings: InversionSettings
    seconds: list[float] = field(default_factory=list)
    seen: list[dict[tuple[str, str], np.ndarray]] = field(default_factory=list)
    losses: list[np.ndarray] = field(default_factory=list)
    steps: list[np.ndarray] = field(default_factory=list)

    def compute(
        self, networks: Mapping[str, Network], precisions: Mapping[str, Precision], seed: Tensor, target: Tensor
    ) -> None:
        """Invert another shard through each network, and show the images to all."""
        before, seen = so_far(), {}
        for row, network in networks.items():
            record = invert_batches(network, seed, target, self.settings, precision=precisions[row])
            with torch.no_grad():
                for column, observer in networks.items():
                    seen[row, column] = observer.represent(record.images).numpy()
            self._keep(record)
        self.seconds.append((so_far() - before).cpu)
        self.seen.append(seen)

    def _keep(self, record: Inversion) -> None:
        self.losses.append(record.final_loss.numpy())
        self.steps.append(record.iterations.numpy())

    def replicates(self, shards: int) -> np.ndarray:
        """Return the mean of all cells over the first shards, then without each of them: (1 + G,)."""
        names = {row for row, _ in self.seen[0]}
        cells = []
        for row in sorted(names):
            rows = [{column: shard[row, column] for column in names} for shard in self.seen[:shards]]
            pairs = [(row, column) for column in sorted(names - {row})]
            cells += [[cell.cka_unbiased, *cell.leave_one_out_unbiased] for cell in similarity(rows, pairs).values()]
        return np.mean(cells, axis=0)

    def mean(self, shards: int) -> Estimate:
        """Estimate the mean of all cells from the first shards."""
        values = self.replicates(shards)
        return jackknife(values[0], values[1:])

    def cost(self, shards: int) -> float:
        """CPU seconds of the first shards."""
        return sum(self.seconds[:shards])

    @property
    def above(self) -> float:
        """Share of images that have not converged."""
        return float((np.concatenate(self.losses) > self.settings.tolerance).mean())


def half(interval: tuple[float, float]) -> float:
    """Return half the width of an interval."""
    return (interval[1] - interval[0]) / 2


def fewest(way: Way, half_width: float) -> int | None:
    """Return the fewest shards whose usual interval is narrow enough, or None if all are too few."""
    enough = (
        shards for shards in range(FIRST_LOOK, len(way.seen) + 1) if half(way.mean(shards).interval) <= half_width
    )
    return next(enough, None)


def ways(stop_losses: list[float], iterations: int) -> Iterator[Way]:
    """Yield the ways to compare, the preset `published` first."""
    yield Way(PUBLISHED, InversionSettings(iterations=iterations))
    for preset in ("published", "fast"):
        for stop_loss in stop_losses:
            settings = InversionSettings(preset=preset, iterations=iterations, stop_loss=stop_loss)
            yield Way(f"{preset}, stop_loss {stop_loss:g}", settings)


def times_published(
    networks: Mapping[str, Network], seed: Tensor, target: Tensor, *, iterations: int, runs: int
) -> list[float]:
    """Measure the CPU seconds of the published code, divided by those of netsim's preset in float32, in turn."""
    settings = InversionSettings(iterations=iterations)
    theirs = {name: attacker_model(network) for name, network in networks.items()}

    def slow() -> None:
        for model in theirs.values():
            published(model, seed, target, iterations=iterations)

    def ours() -> None:
        for network in networks.values():
            invert_batches(network, seed, target, settings)

    return [usage_of(slow).cpu / usage_of(ours).cpu for _ in range(runs)]


def main() -> None:
    """Train the networks, unless they are kept, and print a table of each training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_choices(parser)
    parser.add_argument("--half-width", type=float, default=0.02, help="half the width of the interval of the mean")
    parser.add_argument("--stop-loss", type=float, nargs="*", default=[0.1, 0.05])
    parser.add_argument("--iterations", type=int, default=2000, help="maximum number of iterations per image")
    parser.add_argument("--shard", type=int, default=32, help="pairs in a shard")
    parser.add_argument("--shards", type=int, default=48, help="shards at most")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of the published code, on the first shard")
    parser.add_argument("--timed", type=int, default=100, help="iterations of each timed run")
    parser.add_argument("--precision", default="float32", choices=("float32", "tf32", "float16", "bfloat16", "auto"))
    options = parser.parse_args()
    torch.set_num_threads(1)

    console = Console(width=150)
    training, test = image_sets(options.images)
    seed, target = draw_images(test, options.shard * options.shards)
    shards = list(zip(seed.split(options.shard), target.split(options.shard), strict=True))
    planned = set(looks(options.shards))
    for radius in options.radius:
        networks = {name: trained(name, training, radius=radius) for name in ARCHITECTURES}
        for network in networks.values():
            clean, attacked = accuracies(network, test, radius=0.5)
            console.print(f"{network.name}: accuracy {clean:.3f}, attacked within 0.5 {attacked:.3f}")
        ratios = times_published(networks, *shards[0], iterations=options.timed, runs=options.runs)
        precisions = {name: choose_precision(net, options.precision, seed[:8]) for name, net in networks.items()}
        compared = list(ways(options.stop_loss, options.iterations))
        stopped: dict[str, int] = {}
        for number, (seeds, targets) in enumerate(shards, start=1):
            for way in compared:
                if way.name in stopped:
                    continue
                way.compute(networks, precisions, seeds, targets)
                if number in planned:
                    reached = half(width_interval(way.mean(number)))
                    console.print(f"{way.name}: ± {reached:.4f} with {number} shards, {way.cost(number):.0f} CPU s")
                    if reached <= options.half_width:
                        stopped[way.name] = number
            if len(stopped) == len(compared):
                break
        show(console, compared, stopped, ratios, options.half_width, options.shard, title=f"radius {radius:g}")
    console.print(f"{date.today()}, {options.precision}, {processor()}")


def show(
    console: Console,
    compared: list[Way],
    stopped: Mapping[str, int],
    ratios: list[float],
    half_width: float,
    shard: int,
    *,
    title: str,
) -> None:
    """Print what each way found and took, against the published code with n in hindsight."""
    first = compared[0]
    needed = fewest(first, half_width) or len(first.seen)
    ratio = statistics.median(ratios)
    theirs = ratio * first.cost(needed)
    table = table_of(
        "way",
        "mean after inversion",
        "minus published",
        "steps",
        "above tolerance",
        "n, hindsight",
        "CPU s",
        "times less",
    )
    for column in ("n, until", "CPU s", "times less"):
        table.add_column(column, justify="right")
    value = first.mean(needed)
    table.add_row("published code", *[""] * 4, str(needed * shard), f"{theirs:.0f}", "1", *[""] * 3)
    for way in compared:
        enough = fewest(way, half_width) or len(way.seen)
        until = stopped.get(way.name, len(way.seen))
        mean, common = way.mean(enough), min(len(way.seen), len(first.seen))
        paired = way.replicates(common) - first.replicates(common)
        difference = jackknife(paired[0], paired[1:])
        agrees = value.interval[0] <= mean.value <= value.interval[1]
        table.add_row(
            way.name,
            f"{mean.value:.3f} ± {half(mean.interval):.3f}" + ("" if agrees else " (outside)"),
            "" if way is first else f"{difference.value:+.3f} ± {half(difference.interval):.3f}",
            f"{np.concatenate(way.steps).mean():.0f}",
            f"{way.above:.1%}",
            str(enough * shard),
            f"{way.cost(enough):.0f}",
            f"{theirs / way.cost(enough):.1f}",
            f"{until * shard}" + ("" if way.name in stopped else " (not enough)"),
            f"{way.cost(until):.0f}",
            f"{theirs / way.cost(until):.1f}",
        )
    table.title = f"{title}, to ± {half_width:g}"
    table.caption = f"published code: {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) times netsim's `published`"
    console.print(table)


if __name__ == "__main__":
    main()
