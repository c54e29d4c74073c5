"""The cost of storage: throughput against the bare client, requests per shard, waiting times, and long listings.

python -m benchmarks.storage                      all parts, on a local disk and on a local S3 server; about 20 minutes
python -m benchmarks.storage throughput requests  some parts

The S3 server is SeaweedFS on this machine: it shares the processors with netsim, which a real one does not.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
from aiobotocore.client import AioBaseClient
from rich.console import Console
from torch.nn.functional import interpolate

from benchmarks.stores import finish, new_run
from flows.cli.console import table_of
from netsim.images import load_images, to_unit
from netsim.results.results import load_results
from netsim.settings import SweepSettings, parse_settings
from netsim.stages.work import work_through
from netsim.storage.files import Files
from netsim.storage.stopwatch import count_waiting
from netsim.store.arrays import ArraySpec
from netsim.store.documents import create_arrays
from netsim.store.records import commit_path
from netsim.store.run import Run
from netsim.store.stages import STAGES, blocks
from netsim.store.status import status
from tests.support.seaweed import BUCKET, SeaweedFS

console = Console(highlight=False)
SMALL = ["small:resnet18@none", "small:shufflenet@none", "small:vgg@none"]


IN_FLIGHT = 4
"""Shards that are written or read concurrently, as by several workers."""

# ---- throughput: one array per shard, as in an ImageNet sweep


def shards_of_images(count: int) -> Iterable[np.ndarray]:
    """Make shards like those of inverted images: photographs with noise in their last digits. 64 at 224 px, 19 MB."""
    rng, source = np.random.default_rng(0), load_images("fashion-mnist", "test")
    for k in range(count):
        small = to_unit(source.read(np.arange(64 * k, 64 * (k + 1))))
        large = interpolate(small, 224, mode="bilinear").expand(-1, 3, -1, -1).numpy()
        noisy = np.clip(large + rng.normal(0, 0.02, large.shape), 0, 1)
        yield (noisy * 65535).round().astype(np.uint16)


def throughput(url: str, rounds: int) -> dict[str, list[float]]:
    """Measure MB/s of stored bytes: netsim and the bare client write shards, then read them, alternating.

    Both write the same bytes, until they are synced or acknowledged; netsim also encodes, hashes and commits. Files on
    a local disk are read from the disk, not from memory; netsim decodes them and compares their hashes.
    """
    count = rounds * 2 * IN_FLIGHT
    settings = parse_settings({"networks": SMALL, "pairs": {"count": 64 * count, "shard_size": 64}})
    run, bare = new_run(url, settings), Files(url)
    create_arrays(run, [ArraySpec("image", (64 * count, 3, 224, 224), "uint16", ("pair", "channel", "y", "x"))])
    images = list(shards_of_images(2 * IN_FLIGHT))
    starts = range(0, count, len(images))
    done = [one_round(run, bare, range(start, start + len(images)), images, turn) for turn, start in enumerate(starts)]
    return {kind: [rates[kind] for rates in done] for kind in done[0]}


def one_round(run: Run, bare: Files, shards: range, images: list[np.ndarray], turn: int) -> dict[str, float]:
    """Measure MB/s in one round. The first to run finds an idler disk, so the order alternates from round to round."""
    ours, raw = [f"image/c/{shard}/0/0/0" for shard in shards], [f"raw/{shard}" for shard in shards]
    stored = [image.tobytes() for image in images]
    works = {
        "writes": lambda at: run.commit("a", "b", shards[at], arrays={"image": images[at]}, seconds=0),
        "bare writes": lambda at: bare.put(raw[at], stored[at]),
        "reads": lambda at: run.read(run.record("a", "b", shards[at]), "image"),
        "bare reads": lambda at: bare.get(raw[at]),
    }
    rates = {}
    for kind in ("writes", "reads"):
        for name in [kind, f"bare {kind}"][:: -1 if turn % 2 else 1]:
            forget(bare, [path for path in (*ours, *raw) if kind == "reads"])
            rates[name] = per_second(works[name], range(len(shards))) * sum(map(len, stored)) / 1e6
    return rates


def per_second(work: Callable[[Any], Any], items: Iterable[Any]) -> float:
    """Measure how often per second all items are processed, `IN_FLIGHT` at a time."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        return 1 / timed(lambda: list(pool.map(work, items)))


def forget(files: Files, paths: Iterable[str]) -> None:
    """Drop local files from the system's page cache."""
    for path in paths:
        if "://" not in files.place(path):
            descriptor = os.open(files.place(path), os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def timed(work: Callable[[], Any]) -> float:
    """Run `work`, and return its seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show_throughput(places: dict[str, str]) -> None:
    """Print a table of throughput with one line per place."""
    table = table_of("MB/s, medians", "netsim writes", "bare", "ratio", "netsim reads", "bare", "ratio")
    for name, place in places.items():
        measured = throughput(f"{place}/throughput", rounds=10)
        cells = []
        for kind in ("writes", "reads"):
            ratios = np.divide(measured[kind], measured[f"bare {kind}"])
            rates = [f"{np.median(measured[key]):.0f}" for key in (kind, f"bare {kind}")]
            cells += [*rates, f"{np.median(ratios):.0%} ({ratios.min():.0%} to {ratios.max():.0%})"]
        table.add_row(name, *cells)
    console.print(table)


# ---- requests and waiting: a sweep in this process


KINDS = ("PutObject", "GetObject", "HeadObject", "ListObjectsV2")
"""Requests that are counted."""


class Requests(Counter[str]):
    """Counter of requests to S3 while it is entered."""

    def __enter__(self) -> "Requests":
        self._ask = ask = AioBaseClient._make_api_call

        async def counted(client: Any, operation: str, parameters: Any) -> Any:
            self[operation] += 1
            return await ask(client, operation, parameters)

        AioBaseClient._make_api_call = counted
        return self

    def __exit__(self, *_: object) -> None:
        AioBaseClient._make_api_call = self._ask


def show_requests(place: str) -> None:
    """Print the requests of every stage, from one worker."""
    settings = parse_settings(
        {"networks": SMALL, "pairs": {"count": 64, "shard_size": 8}, "inversion": {"iterations": 1}}
    )
    table = table_of("stage", "shards", "PUT", "GET", "HEAD", "LIST", "PUT per shard", "GET per shard")
    with Requests() as requests:
        run = new_run(f"{place}/requests", settings)
    table.add_row("asking", "", *(str(requests[kind]) for kind in KINDS))
    with Requests() as requests:
        Run.open(run.url, run.sweep.id)
    table.add_row("each task", "", *(str(requests[kind]) for kind in KINDS))
    for stage in STAGES:
        with Requests() as requests:
            units = finish(run, stage)
        kinds = [requests[kind] for kind in KINDS]
        each = [f"{count / max(1, units):.1f}" for count in kinds[:2]]  # `check` has no shards on these images
        table.add_row(stage.name, str(units), *map(str, kinds), *each)
    with Requests() as requests:
        load_results(Run.open(run.url))
    table.add_row("results", "", *(str(requests[kind]) for kind in KINDS))
    console.print(table)


def show_waiting(place: str, name: str) -> None:
    """Print the share of a worker's time spent waiting for the store, in a small sweep by the published recipe."""
    settings = parse_settings({"networks": SMALL, "pairs": {"count": 128, "shard_size": 32}})
    run, waited, spent = new_run(f"{place}/waiting", settings), 0.0, 0.0
    for stage in STAGES[:-1]:
        units = stage.missing(run)
        stage.prepare(run, units)
        for block in blocks(units, 4):
            worker = Run.open(run.url)  # each task opens the run
            with count_waiting() as counted:
                spent += timed(partial(list, work_through(worker, stage, block.name, block.shards)))
            waited += counted.seconds
    console.print(
        f"{name}: of {spent:.0f} s of a sweep, {waited:.2f} s were spent waiting for the store: {waited / spent:.2%}"
    )


# ---- long listings


def large_settings(shards: int, **more: Any) -> SweepSettings:
    """Return settings of nine networks, whose stages have up to ten times `shards` shards."""
    names = ["densenet", "mobilenet", "resnext", "resnet18", "resnet50", "shufflenet", "vgg", "wrn2", "wrn4"]
    return parse_settings(
        {"networks": [f"small:{name}@none" for name in names], "pairs": {"count": 4 * shards, "shard_size": 4}} | more
    )


def show_listing(place: str, records: int) -> None:
    """Time `netsim status` of a run that consists of records only."""
    shards = records // 20  # per shard of pairs: one draw, nine inversions, ten embeddings
    run = new_run(f"{place}/listing", large_settings(shards))
    start = time.perf_counter()
    for stage in STAGES:
        units = stage.missing(run)
        if stage.cohorts:
            run.keep_cohorts({name.rpartition("/")[2].partition("-")[0] for name, _ in units})
        for first in range(0, len(units), 1000):
            paths = [commit_path(stage.name, *unit) for unit in units[first : first + 1000]]
            run.files.put_all(dict.fromkeys(paths, b"{}"))
    total = sum(stage.total(run.sweep) for stage in STAGES)
    console.print(f"{total:,} records put in {time.perf_counter() - start:.0f} s")
    console.print(f"netsim status, whole command: {command('status', run.url):.1f} s")
    with Requests() as requests:
        seconds = timed(lambda: status(run))
    console.print(f"its listings: {seconds:.1f} s, {dict(requests)}")


def show_resuming(place: str, shards: int) -> None:
    """Run a sweep of that many shards with one iteration per image, and time running it again."""
    settings = large_settings(shards // 20, inversion={"iterations": 1})  # 20 units per shard of pairs
    run = new_run(f"{place}/resuming", settings)
    start = time.perf_counter()
    total = sum(finish(run, stage) for stage in STAGES)
    console.print(f"{total:,} shards computed in {time.perf_counter() - start:.0f} s")
    seconds = timed(lambda: status(Run.open(run.url)))
    console.print(f"listing shows that nothing is missing after {seconds:.1f} s")
    console.print(f"netsim run, including the results it prints: {command('run', '--store', run.url):.1f} s")


def command(*arguments: str) -> float:
    """Run the command line, and return its seconds."""
    return timed(
        lambda: subprocess.run([sys.executable, "-m", "flows.cli", *arguments], check=True, capture_output=True)
    )


# ---- all parts

PARTS = ("throughput", "requests", "waiting", "listing", "resuming")


def main() -> None:
    """Start the S3 server, and run the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; default: all")
    parser.add_argument("--records", type=int, default=100_000, help="number of records for `listing`")
    parser.add_argument("--shards", type=int, default=10_000, help="number of shards for `resuming`")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"PART must be one of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    Path("runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Path("runs")) as folder:
        server = SeaweedFS(Path(folder).absolute() / "s3")
        server.start()
        os.environ.update(server.environment)
        places = {"local disk": f"{Path(folder).absolute()}/local", "S3": f"s3://{BUCKET}"}
        try:
            for part in options.parts or PARTS:
                console.print(f"\n[bold]{part}[/bold]")
                if part == "throughput":
                    show_throughput(places)
                elif part == "requests":
                    show_requests(places["S3"])
                elif part == "waiting":
                    for name, place in places.items():
                        show_waiting(place, name)
                elif part == "listing":
                    show_listing(places["S3"], options.records)
                else:
                    show_resuming(places["S3"], options.shards)
        finally:
            fsspec.filesystem("s3").clear_instance_cache()
            server.kill()


if __name__ == "__main__":
    main()
