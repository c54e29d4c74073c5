"""The paper's experiment on 64 and 512 GPUs, by a model: `make bench BENCH=scaling`. docs/scaling.md explains it.

G GPUs, each with a worker of its own; M networks; n pairs in shards of s, b shards a task run; g GPU seconds to invert
an image, averaged over the networks. No GPU was measured: g is for you to put in (--image). What a task run costs was
measured by benchmarks.orchestration (COSTS), how networks differ by benchmarks.inversion (RELATIVE).
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
"""CPU seconds of an iteration on four images (docs/benchmarks.md): how much longer one network takes than another."""

SLOWEST_FIRST = sorted(RELATIVE, key=lambda name: -RELATIVE[name])
"""As inversions are submitted (tasks/dispatch.py)."""

WIDTHS = 17_312
"""Features of the nine together."""

ITERATIONS, PIXELS = 2000, 3 * 224 * 224


@dataclass(frozen=True)
class Costs:
    """Seconds of one task run, CPU unless said, and rates.

    By `benchmarks.orchestration many drain`, 10,000 task runs, and 1000, on two quiet cores (docs/scaling.md).
    """

    flow: float = 0.027  # to submit and to settle: one thread does it, for one task run after the other
    scheduler: float = 0.013
    worker: float = 0.219  # before and behind the work
    server: float = 0.067
    drain: float = 28.0  # task runs a second that a server records
    stage: float = 3.0  # seconds from the last commit of a stage to the first task run of the next: assumed
    row: float = 53.5  # CPU seconds to sum a row of 10,000 images; grows with n squared (docs/benchmarks.md)
    decode: float = 0.01  # CPU seconds to read an image from its file: assumed
    tests: int = 50_000  # images that say how accurate a network is: those of ImageNet


COSTS = Costs()


@dataclass(frozen=True)
class Sweep:
    """What is asked for, and on what."""

    gpus: int
    image: float = 2.0  # g
    pairs: int = 10_000  # n
    shard: int = 64  # s
    block: int = 4  # b
    store: float = 1e9  # bytes a second that the store takes, and gives, from and to all workers together

    @property
    def shards(self) -> int:
        return ceil(self.pairs / self.shard)

    def seconds(self, network: str) -> float:
        """To invert an image through this one."""
        return self.image * RELATIVE[network] * len(RELATIVE) / sum(RELATIVE.values())

    def look(self, network: str) -> float:
        """A forward: an iteration is one, and a gradient by the images that costs about as much."""
        return self.seconds(network) / ITERATIONS / 2


# ---- the stages


def tasks_of(sweep: Sweep) -> dict[str, list[float]]:
    """Stage -> seconds that each task run takes in a worker, in the order in which they are submitted."""

    def cut(shards: int, block: int, seconds_a_shard: float) -> list[float]:
        sizes = [min(block, shards - start) for start in range(0, shards, block)]
        return [size * seconds_a_shard + COSTS.worker for size in sizes]

    looks = sweep.shard * sum(sweep.look(network) for network in RELATIVE)
    of_row = COSTS.row * (sweep.pairs / 10_000) ** 2
    return {
        "train": [COSTS.tests * sweep.look(network) for network in RELATIVE],  # they have weights: a check
        "draw": cut(sweep.shards, sweep.block, 2 * sweep.shard * COSTS.decode),
        "invert": [
            task
            for network in SLOWEST_FIRST
            for task in cut(sweep.shards, sweep.block, sweep.shard * sweep.seconds(network))
        ],
        "embed": (len(RELATIVE) + 1) * cut(sweep.shards, 8 * sweep.block, looks),
        "aggregate": 2 * len(RELATIVE) * [of_row],
    }


def bytes_of(sweep: Sweep) -> dict[str, tuple[int, int]]:
    """Stage -> bytes that are put, and got. Images are 1 byte a number as drawn, 2 inverted; representations 4."""
    images, m = sweep.pairs * PIXELS, len(RELATIVE)
    representations = sweep.pairs * WIDTHS * 4
    return {
        "train": (0, 0),
        "draw": (2 * images, 0),
        "invert": (2 * m * images, 2 * m * images),
        "embed": ((m + 1) * representations, images + 2 * m * images),
        "aggregate": (0, 2 * 2 * m * representations),  # two looks for each row
    }


def makespan(durations: Iterable[float], workers: int, *, submit: float) -> float:
    """Seconds until all are done. The flow submits one after the other, as in tasks/dispatch.py; the next free worker
    takes what was submitted first."""
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
    """What becomes of one. Seconds; `ideal` is the work divided by the workers."""

    tasks: int
    longest: float
    ideal: float
    uneven: float  # lost because tasks differ, and do not fill all workers to the end
    flow: float  # lost because the flow submits one after the other
    store: float  # lost because the store takes or gives no more
    took: float


def stages_of(sweep: Sweep) -> dict[str, Stage]:
    moved, found = bytes_of(sweep), {}
    for name, tasks in tasks_of(sweep).items():
        ideal, free = sum(tasks) / sweep.gpus, makespan(tasks, sweep.gpus, submit=0)
        simulated = makespan(tasks, sweep.gpus, submit=max(COSTS.flow, COSTS.scheduler))
        took = max(simulated, max(moved[name]) / sweep.store)
        parts = (ideal, free - ideal, simulated - free, took - simulated)
        found[name] = Stage(len(tasks), max(tasks), *parts, took + COSTS.stage)
    return found


# ---- tables


def show_sweeps(sweeps: list[Sweep]) -> None:
    """Where the time of a whole sweep goes."""
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
    """Each stage of one sweep."""
    console.print(f"{sweep.gpus} GPUs, g = {sweep.image:g} s, shards of {sweep.shard}, {sweep.block} a task run")
    table = table_of("stage", "task runs", "longest", "work / GPUs", "uneven", "flow", "store", "took")
    for name, stage in stages_of(sweep).items():
        seconds = (stage.longest, stage.ideal, stage.uneven, stage.flow, stage.store, stage.took)
        table.add_row(name, str(stage.tasks), *(f"{value:.0f} s" for value in seconds))
    console.print(table)


def show_load(sweeps: list[Sweep]) -> None:
    """While inverting: task runs a second, and how much of each shared part they use; 100 % is all it can do."""
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
    """What Prefect, Dask and commits take of a worker's time and of all CPU, by the length of a task."""
    table = table_of(
        "seconds of a task", "of all CPU", "with the server", "task runs/s of one flow", "workers it feeds"
    )
    beside = COSTS.flow + COSTS.scheduler + COSTS.worker
    for seconds in (1, 5, 10, 30, 120):
        with_server = beside + COSTS.server
        shares = [cost / (cost + seconds) for cost in (beside, with_server)]
        feeds = (seconds + COSTS.worker) / COSTS.flow
        table.add_row(f"{seconds}", *(f"{share:.2%}" for share in shares), f"{1 / COSTS.flow:.0f}", f"{feeds:.0f}")
    console.print(table)


def clock(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.1f} min"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=float, nargs="+", default=[0.5, 2, 8], help="g, GPU seconds of an inversion")
    parser.add_argument("--gpus", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--store", type=float, default=1e9, help="bytes a second of the store")
    options = parser.parse_args()
    sweeps = [
        Sweep(gpus, image, pairs=options.pairs, store=options.store) for gpus in options.gpus for image in options.image
    ]
    smaller = [replace(sweep, shard=16, block=1) for sweep in sweeps]
    steps = [{}, {"block": 1}, {"shard": 16, "block": 1}]
    console.print("What a task run costs beside its work")
    show_share()
    console.print("Whole sweeps, as it comes, and changed step by step")
    show_sweeps([replace(sweep, **step) for sweep in sweeps for step in steps])
    console.print("What the shared parts have to do while all GPUs invert")
    show_load([sweep for pair in zip(sweeps, smaller, strict=True) for sweep in pair])
    show_stages(Sweep(max(options.gpus), image=options.image[len(options.image) // 2], pairs=options.pairs))


if __name__ == "__main__":
    main()
