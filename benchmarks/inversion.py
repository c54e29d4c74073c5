"""Cost of an inversion step, against the published code: `make bench`.

Both run in this process, alternating, on one thread. The result is the ratio of CPU seconds within a pair of runs, and
its median over pairs. Weights are random: they do not change the cost of a step.

An iteration needs one forward pass and one gradient with respect to the images, so twice the forward pass's
floating-point operations are useful. The peak of the processor is measured too: the fastest of the network's own
convolutions by itself, in the same precision.
"""

import argparse
import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.published import attacker_model, published
from benchmarks.usage import Usage, usage_of
from netsim.inversion.calibrate import choose_precision
from netsim.inversion.engine import Engine
from netsim.inversion.flops import forward_flops
from netsim.inversion.invert import invert_batches
from netsim.inversion.precision import Precision, fast_precisions
from netsim.networks import load_network
from netsim.networks.memory import LiveBytes
from netsim.settings import InversionSettings

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


@dataclass(frozen=True)
class Cost:
    """Cost of one iteration on a batch, and the most bytes of tensors that are alive at the same time."""

    usage: Usage
    bytes: int

    def __str__(self) -> str:
        system, faults = (max(value, 0) for value in (self.usage.system, self.usage.faults))
        return f"{self.usage.cpu:.3f} ({system / self.usage.cpu:.0%}, {faults:,.0f})"


@dataclass(frozen=True)
class Comparison:
    """Costs of the published code and of netsim, and the peak of the processor."""

    published: Cost
    netsim: Cost
    ratios: list[float]  # CPU seconds, published to netsim, one per pair of runs
    flops: float  # useful FLOPs of an iteration
    peak: float  # FLOP/s of the fastest convolution
    precision: Precision

    @property
    def share(self) -> float:
        """Share of the peak that netsim reaches."""
        return self.flops / self.netsim.usage.cpu / self.peak


def each_iteration(work: Callable[[int], None], iterations: int) -> Usage:
    """Return what an iteration uses, without what comes before the first and after the last."""
    once = usage_of(lambda: work(1))
    return (usage_of(lambda: work(1 + iterations)) - once) / iterations


def compare(name: str, *, pixels: int, batch: int, iterations: int, pairs: int, precision: str) -> Comparison:
    """Time `pairs` pairs of runs, after one that warms up and measures memory."""
    network = load_network(f"torchvision:{name}@none", input_shape=(3, pixels, pixels))
    theirs = attacker_model(network)
    seed, target = (torch.rand(batch, 3, pixels, pixels, generator=torch.manual_seed(k)) for k in (1, 2))
    chosen = choose_precision(network, precision, seed[:8])  # type: ignore[arg-type]

    def slow(iterations: int) -> None:
        published(theirs, seed, target, iterations=iterations)

    def fast(iterations: int) -> None:
        invert_batches(
            network, seed, target, InversionSettings(batch_size=batch, iterations=iterations), precision=chosen
        )

    held = [bytes_of(lambda: slow(1)), bytes_of(lambda: fast(1))]
    usages = [(each_iteration(slow, iterations), each_iteration(fast, iterations)) for _ in range(pairs)]
    return Comparison(
        published=Cost(sorted((slow for slow, _ in usages), key=lambda usage: usage.cpu)[pairs // 2], held[0]),
        netsim=Cost(sorted((fast for _, fast in usages), key=lambda usage: usage.cpu)[pairs // 2], held[1]),
        ratios=sorted(slow.cpu / fast.cpu for slow, fast in usages),
        flops=2 * forward_flops(network, seed),
        peak=max(convolution_rates(Engine(network, seed, precision=chosen, batch_size=batch), seed)),
        precision=chosen,
    )


def bytes_of(work: Callable[[], object]) -> int:
    """Run `work`, and return the most bytes of tensors that were alive at the same time."""
    with LiveBytes() as live:
        work()
    return live.peak


def convolution_rates(engine: Engine, images: Tensor) -> Iterator[float]:
    """Measure FLOP/s of each convolution by itself, on its input in the network; the best of three runs."""
    seen: list[tuple[nn.Conv2d, Tensor]] = []
    convolutions = [part for part in engine.modules() if isinstance(part, nn.Conv2d)]
    hooks = [part.register_forward_hook(lambda part, x, _: seen.append((part, x[0]))) for part in convolutions]
    with torch.no_grad():
        engine.represent(images)
        for hook in hooks:
            hook.remove()
        for convolution, x in seen:
            with FlopCounterMode(display=False) as counter:
                convolution(x)
            best = min(usage_of(lambda: convolution(x)).cpu for _ in range(3))  # noqa: B023 (called at once)
            yield counter.get_total_flops() / best


def processor() -> str:
    """Describe the processor and the version of torch that a figure belongs to."""
    names = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.processor()
    halves = ", ".join(fast_precisions(torch.device("cpu"))) or "none"
    level = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {name}, {level}, 16-bit precisions in hardware: {halves}, torch {torch.__version__}"


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""


def main() -> None:
    """Print a table with one line per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NINE, help="torchvision names; default: the paper's nine")
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--precision", default="auto", choices=("float32", "tf32", "float16", "bfloat16", "auto"))
    options = vars(parser.parse_args())
    torch.set_num_threads(1)

    title = (
        f"CPU seconds (share of the system, page faults) per iteration, batch {options['batch']}, "
        f"{options['pixels']} px, one thread"
    )
    table = Table("network", title=title)
    for column in ("published", "netsim", "ratio (median)", "range", "of peak", "MB published", "MB netsim"):
        table.add_column(column, justify="right")
    table.add_column("precision")
    medians = []
    for name in options.pop("networks"):
        comparison = compare(name, **options)
        medians.append(statistics.median(comparison.ratios))
        table.add_row(
            name,
            str(comparison.published),
            str(comparison.netsim),
            f"{medians[-1]:.2f}",
            f"{comparison.ratios[0]:.2f} to {comparison.ratios[-1]:.2f}",
            f"{comparison.share:.0%}",
            f"{comparison.published.bytes / 1e6:.0f}",
            f"{comparison.netsim.bytes / 1e6:.0f}",
            str(comparison.precision),
        )
    Console(width=140).print(table)
    print(f"median of the networks {statistics.median(medians):.2f}, least {min(medians):.2f}")
    print(f"{date.today()}, {processor()}")


if __name__ == "__main__":
    main()
