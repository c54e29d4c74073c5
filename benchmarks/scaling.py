"""Model of the paper's experiment on 64 and 512 GPUs: `make bench BENCH=scaling`. docs/project/scaling.md explains it.

G GPUs, each with its own worker; M networks; n pairs in shards of s, b shards per task run; g GPU seconds to invert an
image, averaged over the networks. No GPU was measured: give g with --image. The cost of a task run was measured by
benchmarks.orchestration (COSTS), the differences between networks by benchmarks.inversion (RELATIVE).
"""

import argparse
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil

from rich.console import Console

from flows.cli.console import table_of
from tasks.dispatch import TASKS_PER_THREAD, WINDOW

console = Console(highlight=False, width=120)

RELATIVE = {
    "densenet161": 1.844,
    "mobilenet_v2": 0.137,
    "resnext50_32x4d": 1.176,
    "resnet18": 0.382,
    "resnet50": 0.898,
    "shufflenet_v2_x1_0": 0.083,
    "vgg16_bn": 2.885,
    "wide_resnet50_2": 2.281,
    "wide_resnet50_4": 7.687,
}
"""CPU seconds of an iteration on four images (docs/benchmarks.md), for the ratios between networks."""

SLOWEST_FIRST = sorted(RELATIVE, key=lambda name: -RELATIVE[name])
"""Order in which inversions are submitted (tasks/dispatch.py)."""

WIDTHS = 17_312
"""Features of the nine networks together."""

ITERATIONS, PIXELS = 2000, 3 * 224 * 224


@dataclass(frozen=True)
class Costs:
    """Costs of one task run, in CPU seconds unless noted, and rates.

    Measured by `benchmarks.orchestration many drain` with 10,000 and 1000 task runs on two quiet cores
    (docs/project/scaling.md).
    """

    flow: float = 0.027  # to submit and settle, one task run after the other in one thread
    scheduler: float = 0.013
    worker: float = 0.219  # before and after the work
    server: float = 0.067
    drain: float = 28.0  # task runs per second that a server records
    stage: float = 3.0  # seconds from the last commit of a stage to the next stage's first task run: assumed
    row: float = 53.5  # CPU seconds to sum a row of 10,000 images; grows with n squared (docs/benchmarks.md)
    decode: float = 0.01  # CPU seconds to read an image from its file: assumed
    tests: int = 50_000  # images for the accuracy of a network: those of ImageNet


COSTS = Costs()


@dataclass(frozen=True)
class Sweep:
    """A sweep and the hardware it runs on."""

    gpus: int
    image: float = 2.0  # g
    pairs: int = 10_000  # n
    shard: int = 64  # s
    block: int = 4  # b
    store: float = 1e9  # bytes per second, each way, of the store for all workers together

    @property
    def shards(self) -> int:
        """Number of shards of pairs."""
        return ceil(self.pairs / self.shard)

    def seconds(self, network: str) -> float:
        """Return the GPU seconds to invert an image through a network."""
        return self.image * RELATIVE[network] * len(RELATIVE) / sum(RELATIVE.values())

    def forward(self, network: str) -> float:
        """Return the GPU seconds of a forward pass: half an iteration, whose gradient costs about as much."""
        return self.seconds(network) / ITERATIONS / 2


# ---- the stages


def tasks_of(sweep: Sweep) -> dict[str, list[float]]:
    """Map each stage to the seconds of its task runs in a worker, in the order of submission."""

    def cut(shards: int, block: int, seconds_per_shard: float) -> list[float]:
        sizes = [min(block, shards - start) for start in range(0, shards, block)]
        return [size * seconds_per_shard + COSTS.worker for size in sizes]

    embedding = sweep.shard * sum(sweep.forward(network) for network in RELATIVE)
    row = COSTS.row * (sweep.pairs / 10_000) ** 2
    return {
        "train": [
            COSTS.tests * sweep.forward(network) for network in RELATIVE
        ],  # the networks have weights and are only checked
        "draw": cut(sweep.shards, sweep.block, 2 * sweep.shard * COSTS.decode),
        "invert": [
            task
            for network in SLOWEST_FIRST
            for task in cut(sweep.shards, sweep.block, sweep.shard * sweep.seconds(network))
        ],
        "embed": (len(RELATIVE) + 1) * cut(sweep.shards, 8 * sweep.block, embedding),
        "aggregate": 2 * len(RELATIVE) * [row],
    }


def bytes_of(sweep: Sweep) -> dict[str, tuple[int, int]]:
    """Map each stage to the bytes put and got, with 1 byte per drawn number, 2 per inverted one, 4 per feature."""
    images, m = sweep.pairs * PIXELS, len(RELATIVE)
    representations = sweep.pairs * WIDTHS * 4
    return {
        "train": (0, 0),
        "draw": (2 * images, 0),
        "invert": (2 * m * images, 2 * m * images),
        "embed": ((m + 1) * representations, images + 2 * m * images),
        "aggregate": (0, 2 * 2 * m * representations),  # each row is read twice
    }


def makespan(durations: Iterable[float], workers: int, *, submit: float) -> float:
    """Return the seconds until all task runs are done.

    The flow submits one after the other, as in tasks/dispatch.py; the next free worker takes the oldest.
    """
    window, flow, last = max(WINDOW, TASKS_PER_THREAD * workers), 0.0, 0.0
    free, under_way = [0.0] * workers, []
    for duration in durations:
        if len(under_way) == window:
            flow = max(flow, heapq.heappop(under_way))
        flow += submit
        end = max(flow, heapq.heappop(free)) + duration
        heapq.heappush(free, end)
        heapq.heappush(under_way, end)
        last = max(last, end)
    return last


@dataclass(frozen=True)
class Stage:
    """Where the time of a stage goes, in seconds; `ideal` is the work divided by the workers."""

    tasks: int
    longest: float
    ideal: float
    uneven: float  # lost because tasks differ and do not fill all workers to the end
    flow: float  # lost because the flow submits one after the other
    store: float  # lost because the store is not faster
    took: float


def stages_of(sweep: Sweep) -> dict[str, Stage]:
    """Simulate every stage of a sweep."""
    moved, stages = bytes_of(sweep), {}
    for name, tasks in tasks_of(sweep).items():
        ideal, free = sum(tasks) / sweep.gpus, makespan(tasks, sweep.gpus, submit=0)
        simulated = makespan(tasks, sweep.gpus, submit=max(COSTS.flow, COSTS.scheduler))
        took = max(simulated, max(moved[name]) / sweep.store)
        parts = (ideal, free - ideal, simulated - free, took - simulated)
        stages[name] = Stage(len(tasks), max(tasks), *parts, took + COSTS.stage)
    return stages


# ---- tables


def show_sweeps(sweeps: list[Sweep]) -> None:
    """Print where the time of whole sweeps goes."""
    names = ("GPUs", "g", "s, b", "all", "inverting", "of it uneven", "flow", "store", "other stages", "busy")
    table = table_of(*names)
    for sweep in sweeps:
        stages = stages_of(sweep)
        invert, whole = stages["invert"], sum(stage.took for stage in stages.values())
        shares = [part / whole for part in (invert.uneven, invert.flow, invert.store, whole - invert.took)]
        busy = sum(stages[name].ideal for name in ("train", "invert", "embed")) / whole
        table.add_row(
            str(sweep.gpus),
            f"{sweep.image:g} s",
            f"{sweep.shard}, {sweep.block}",
            clock(whole),
            clock(invert.took),
            *(f"{share:.0%}" for share in [*shares, busy]),
        )
    console.print(table)


def show_stages(sweep: Sweep) -> None:
    """Print the stages of one sweep."""
    console.print(f"{sweep.gpus} GPUs, g = {sweep.image:g} s, shards of {sweep.shard}, {sweep.block} per task run")
    table = table_of("stage", "task runs", "longest", "work / GPUs", "uneven", "flow", "store", "took")
    for name, stage in stages_of(sweep).items():
        seconds = (stage.longest, stage.ideal, stage.uneven, stage.flow, stage.store, stage.took)
        table.add_row(name, str(stage.tasks), *(f"{value:.0f} s" for value in seconds))
    console.print(table)


def show_load(sweeps: list[Sweep]) -> None:
    """Print the task runs per second while inverting, and the load of each shared part; 100 % is its limit."""
    table = table_of("GPUs", "g", "s, b", "task runs/s", "flow", "scheduler", "server", "PUT", "GET")
    for sweep in sweeps:
        stage, tasks = stages_of(sweep)["invert"], tasks_of(sweep)["invert"]
        rate = sweep.gpus / (sum(tasks) / len(tasks))  # with every GPU busy
        seconds = stage.ideal
        put, got = bytes_of(sweep)["invert"]
        used = (rate * COSTS.flow, rate * COSTS.scheduler, rate / COSTS.drain, put / seconds / sweep.store)
        used += (got / seconds / sweep.store,)
        cells = (str(sweep.gpus), f"{sweep.image:g} s", f"{sweep.shard}, {sweep.block}", f"{rate:.2f}")
        table.add_row(*cells, *(f"{share:.0%}" for share in used))
    console.print(table)


def show_share() -> None:
    """Print the share of Prefect, Dask and commits in all CPU time, by the length of a task."""
    table = table_of(
        "seconds per task", "share of all CPU", "with the server", "task runs/s of one flow", "workers it feeds"
    )
    beside = COSTS.flow + COSTS.scheduler + COSTS.worker
    for seconds in (1, 5, 10, 30, 120):
        with_server = beside + COSTS.server
        shares = [cost / (cost + seconds) for cost in (beside, with_server)]
        feeds = (seconds + COSTS.worker) / COSTS.flow
        table.add_row(f"{seconds}", *(f"{share:.2%}" for share in shares), f"{1 / COSTS.flow:.0f}", f"{feeds:.0f}")
    console.print(table)


def clock(seconds: float) -> str:
    """Format a duration in hours or minutes."""
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.1f} min"


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=float, nargs="+", default=[0.5, 2, 8], help="g, GPU seconds of an inversion")
    parser.add_argument("--gpus", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--store", type=float, default=1e9, help="bytes per second of the store")
    options = parser.parse_args()
    sweeps = [
        Sweep(gpus, image, pairs=options.pairs, store=options.store) for gpus in options.gpus for image in options.image
    ]
    smaller = [replace(sweep, shard=16, block=1) for sweep in sweeps]
    steps = [{}, {"block": 1}, {"shard": 16, "block": 1}]
    console.print("Cost of a task run besides its work")
    show_share()
    console.print("Whole sweeps with the defaults, and changed step by step")
    show_sweeps([replace(sweep, **step) for sweep in sweeps for step in steps])
    console.print("Load of the shared parts while all GPUs invert")
    show_load([sweep for pair in zip(sweeps, smaller, strict=True) for sweep in pair])
    show_stages(Sweep(max(options.gpus), image=options.image[len(options.image) // 2], pairs=options.pairs))


if __name__ == "__main__":
    main()
