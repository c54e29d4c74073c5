"""What storing costs: throughput against the bare client, requests a shard, time spent waiting, and long listings.

python -m benchmarks.storage                      everything, on a local disk and on a local S3 server; about 20 minutes
python -m benchmarks.storage throughput requests  some of it

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
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
from aiobotocore.client import AioBaseClient
from rich.console import Console
from torch.nn.functional import interpolate

from flows.console import table_of
from netsim.config import SweepSettings, parse_settings
from netsim.datasets import load_images, to_unit
from netsim.files import Files
from netsim.results import load_results
from netsim.stages import work_through
from netsim.store import ArraySpec, Run
from netsim.sweep import STAGES
from netsim.units import ALL
from tests.seaweed import BUCKET, SeaweedFS

console = Console(highlight=False)
SMALL = ["small:resnet18@none", "small:shufflenet@none", "small:vgg@none"]


# ---- throughput: one array of a shard, as an ImageNet sweep has it


def shards_of_images(count: int) -> Iterable[np.ndarray]:
    """As inverted images are: photographs, and noise in their last digits. 64 at 224 px, 19 MB."""
    rng, source = np.random.default_rng(0), load_images("fashion-mnist", "test")
    for k in range(count):
        small = to_unit(source.read(np.arange(64 * k, 64 * (k + 1))))
        large = interpolate(small, 224, mode="bilinear").expand(-1, 3, -1, -1).numpy()
        noisy = np.clip(large + rng.normal(0, 0.02, large.shape), 0, 1)
        yield (noisy * 65535).round().astype(np.uint16)


def throughput(url: str, rounds: int) -> tuple[float, float, float, float, float]:
    """Seconds to write a shard by netsim and by the bare client, to read it likewise, and MB an object: medians.

    Both write the same bytes, until they are on the disk or answered for; netsim also encodes, hashes and commits.
    """
    settings = parse_settings({"networks": SMALL, "pairs": {"count": 64 * rounds, "shard_size": 64}})
    run, bare = Run.create(url, settings), Files(url)
    run.create_arrays([ArraySpec("image", (64 * rounds, 3, 224, 224), "uint16", ("pair", "channel", "y", "x"))])
    ours: list[float] = []
    theirs: list[float] = []
    reads: list[float] = []
    bare_reads: list[float] = []
    for k, images in enumerate(shards_of_images(rounds)):
        ours.append(timed(lambda k=k, images=images: run.commit("a", "b", k, arrays={"image": images}, seconds=0)))
        data = bare.get(f"image/c/{k}/0/0/0")
        theirs.append(timed(lambda k=k, data=data: bare.put(f"raw/{k}", data)))
        record = run.record("a", "b", k)
        reads.append(timed(lambda record=record: run.read(record, "image")))
        bare_reads.append(timed(lambda k=k: bare.get(f"raw/{k}")))
    medians = (float(np.median(seconds[1:])) for seconds in (ours, theirs, reads, bare_reads))
    return (*medians, len(data) / 1e6)  # type: ignore[return-value]


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show_throughput(places: dict[str, str]) -> None:
    table = table_of("", "object", "netsim writes", "bare", "ratio", "netsim reads", "bare", "ratio")
    for name, place in places.items():
        ours, theirs, reads, bare_reads, size = throughput(f"{place}/throughput", rounds=9)
        rates = [f"{size / seconds:.0f} MB/s" for seconds in (ours, theirs, reads, bare_reads)]
        table.add_row(
            name, f"{size:.1f} MB", *rates[:2], f"{theirs / ours:.0%}", *rates[2:], f"{bare_reads / reads:.0%}"
        )
    console.print(table)


# ---- requests and waiting: a sweep in this process


class Requests(Counter[str]):
    """Counts what is asked of S3 while it is in use."""

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
    """Requests of every stage, as one worker makes them for blocks of four shards."""
    settings = parse_settings(
        {"networks": SMALL, "pairs": {"count": 64, "shard_size": 8}, "inversion": {"iterations": 1}}
    )
    run = Run.create(f"{place}/requests", settings)
    table = table_of("stage", "shards", "PUT", "GET", "HEAD", "LIST", "PUT a shard", "GET a shard")
    for stage in STAGES:
        with Requests() as requests:
            missing = stage.missing(run)
            stage.prepare(run)
            for name, shards in stage.units.shards(settings).items():
                list(work_through(run, stage, name, range(shards)))
        kinds = [requests[kind] for kind in ("PutObject", "GetObject", "HeadObject", "ListObjectsV2")]
        each = [f"{count / len(missing):.1f}" for count in kinds[:2]]
        table.add_row(stage.name, str(len(missing)), *map(str, kinds), *each)
    with Requests() as requests:
        load_results(Run.open(run.url))
    table.add_row("results", "", "", *(str(requests[kind]) for kind in ("GetObject", "HeadObject", "ListObjectsV2")))
    console.print(table)


def show_waiting(place: str, name: str) -> None:
    """The share of a worker's time that it waits for the store, in tasks of four shards of some seconds each."""
    settings = parse_settings(
        {"networks": SMALL, "pairs": {"count": 256, "shard_size": 32}, "inversion": {"iterations": 100}}
    )
    run, waited, spent = Run.create(f"{place}/waiting", settings), 0.0, 0.0
    for stage in STAGES[:-1]:
        stage.prepare(run)
        for unit, shards in stage.units.shards(settings).items():
            for start in range(0, shards, 4):
                worker = Run.open(run.url)  # a task opens the run anew
                block = range(start, min(start + 4, shards))
                spent += timed(lambda s=stage, w=worker, u=unit, b=block: list(work_through(w, s, u, b)))
                waited += worker.seconds_waited
    console.print(
        f"{name}: of {spent:.0f} s of a sweep, {waited:.2f} s were spent waiting for the store: {waited / spent:.2%}"
    )


# ---- long listings


def large_settings(shards: int) -> SweepSettings:
    """Nine networks, a stage of the sweep having up to ten times `shards`."""
    names = ["alexnet", "vgg", "googlenet", "resnet18", "resnet34", "resnet50", "wrn2", "densenet", "shufflenet"]
    return parse_settings(
        {"networks": [f"small:{name}@none" for name in names], "pairs": {"count": 4 * shards, "shard_size": 4}}
    )


def show_listing(place: str, records: int) -> None:
    """`netsim status` of a run whose records are there; nothing else of it is."""
    shards = records // 20  # one draws, nine invert, ten embed
    run = Run.create(f"{place}/listing", large_settings(shards))
    start = time.perf_counter()
    for units in ALL:
        for name, count in units.shards(run.settings).items():
            for first in range(0, count, 1000):
                block = range(first, min(first + 1000, count))
                run.files.put_all({f"commits/{units.stage}/{name}/{shard:05d}.json": b"{}" for shard in block})
    total = sum(units.total(run.settings) for units in ALL)
    console.print(f"{total:,} records put in {time.perf_counter() - start:.0f} s")
    console.print(f"netsim status, all of the command: {command('status', run.url):.1f} s")
    with Requests() as requests:
        seconds = timed(lambda: [units.missing(run) for units in ALL])
    console.print(f"what is missing: {seconds:.1f} s, {dict(requests)}")


def show_resuming(place: str, shards: int) -> None:
    """A sweep of that many shards is run, with one iteration an image, and the same command given again."""
    settings = parse_settings(
        {"networks": SMALL, "inversion": {"iterations": 1}, "pairs": {"count": shards // 8 * 4, "shard_size": 4}}
    )
    run = Run.create(f"{place}/resuming", settings)
    start = time.perf_counter()
    for stage in STAGES:
        stage.prepare(run)
        for name, count in stage.units.shards(settings).items():
            list(work_through(run, stage, name, range(count)))
    total = sum(units.total(settings) for units in ALL)
    console.print(f"{total:,} shards computed in {time.perf_counter() - start:.0f} s")
    seconds = timed(lambda: [units.missing(Run.open(run.url)) for units in ALL])
    console.print(f"nothing is missing: known after {seconds:.1f} s")
    console.print(f"netsim run, with the results shown: {command('run', '--store', run.url):.1f} s")


def command(*arguments: str) -> float:
    return timed(
        lambda: subprocess.run([sys.executable, "-m", "flows.cli", *arguments], check=True, capture_output=True)
    )


# ---- all of it

PARTS = ("throughput", "requests", "waiting", "listing", "resuming")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--records", type=int, default=100_000, help="that `listing` puts")
    parser.add_argument("--shards", type=int, default=10_000, help="that `resuming` computes")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
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
