"""Speed of reading photographs of ImageNet's size, against that of ResNet-18 embedding them at 224 px.

python -m benchmarks.images               from a folder and a tar file, on a disk and on a local S3 server; minutes

Rounds are interleaved in one process: a batch is read (fetched, decoded, scaled, cropped), then embedded, as the stage
`embed` does. The result is the ratio within a round, and its median over rounds, because other work may use the
machine. The S3 server is SeaweedFS on this machine: it shares the processors with netsim, which a real one does not.
"""

import argparse
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.usage import so_far, usage_of
from flows.cli.console import console, table_of
from netsim.images import ImageSet, load_images, to_unit
from netsim.images.decoding import THREADS, processors
from netsim.networks import load_network
from netsim.stages.inputs import represent
from tests.support.seaweed import BUCKET, SeaweedFS

PHOTOGRAPH = (500, 375)
"""Width and height of most photographs of ImageNet."""


def main() -> None:
    """Make photographs, start the S3 server, and print a table of speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="number of photographs")
    parser.add_argument("--batch", type=int, default=64, help="images per shard")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=processors(), help="threads for decoding, and for the network")
    options = parser.parse_args()
    os.environ[THREADS] = str(options.threads)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_photographs(root / "images", options.images)
        storage = SeaweedFS(root / "seaweedfs")
        storage.start()
        os.environ.update(storage.environment)
        try:
            storage.filesystem().put(f"{root}/images/", f"{BUCKET}/images/", recursive=True)
            places = {"a disk": f"{root}/images", "S3": f"s3://{BUCKET}/images"}
            sets = {
                f"{kind}, {place}": load_images(reference.format(where), size=224)
                for place, where in places.items()
                for kind, reference in {"folder": "folder:{}/tree", "tar file": "tar:{}/all.tar"}.items()
            }
            report(compare(sets, options.batch, options.rounds), options.threads)
        finally:
            storage.kill()


def make_photographs(root: Path, count: int) -> None:
    """Write pieces of scikit-learn's two photographs at ImageNet's size, into class folders and into one tar file."""
    rng, photographs = np.random.default_rng(0), [Image.fromarray(image) for image in load_sample_images().images]
    root.mkdir()
    total = 0
    with tarfile.open(root / "all.tar", "w") as tar:
        for k in range(count):
            photograph = photographs[k % 2]
            scale = rng.uniform(0.5, 1)
            width, height = (int(scale * side) for side in PHOTOGRAPH)
            room = photograph.size[0] - width, photograph.size[1] - height
            left, top = (int(rng.integers(most + 1)) for most in room)
            piece = photograph.crop((left, top, left + width, top + height))
            piece = piece.resize(PHOTOGRAPH, Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            piece.save(buffer, "JPEG", quality=95)
            data = buffer.getvalue()
            total += len(data)
            path = root / "tree" / f"class-{k % 10}" / f"{k:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            for name, content in ((f"{k:05d}.cls", str(k % 10).encode()), (f"{k:05d}.jpg", data)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    console.print(f"{count} photographs of {PHOTOGRAPH[0]}x{PHOTOGRAPH[1]}, {total / count / 1000:.0f} kB on average")


@dataclass(frozen=True)
class Speed:
    """Images per second of wall time, and per second of CPU time of this process."""

    wall: float
    cpu: float


def timed(work: Callable[[], object], images: int) -> Speed:
    """Run `work`, which handles a number of images, and return its speed."""
    wall, usage = time.perf_counter(), usage_of(work)
    return Speed(images / (time.perf_counter() - wall), images / usage.cpu)


def compare(sets: dict[str, ImageSet], batch: int, rounds: int) -> dict[str, list[tuple[Speed, Speed]]]:
    """Return the speeds of reading and embedding for each set in each round."""
    network, rng = load_network("torchvision:resnet18@none"), np.random.default_rng(1)
    speeds: dict[str, list[tuple[Speed, Speed]]] = {name: [] for name in sets}
    for number in range(-1, rounds):
        for name, images in sets.items():
            chosen = rng.choice(len(images), batch, replace=False)
            pixels = to_unit(images.read(chosen))
            read = timed(lambda images=images, chosen=chosen: images.read(chosen), batch)  # type: ignore[misc]
            embedded = timed(lambda pixels=pixels: represent(network, pixels), batch)  # type: ignore[misc]
            if number >= 0:  # the first round warms up
                speeds[name].append((read, embedded))
    return speeds


def report(speeds: dict[str, list[tuple[Speed, Speed]]], threads: int) -> None:
    """Print a table with one line per set."""
    table = table_of(
        "images from", "read, images/s", "embedded, images/s", "ratio (median)", "range", "ratio of CPU time"
    )
    for name, rounds in speeds.items():
        ratios = [read.wall / embedded.wall for read, embedded in rounds]
        by_cpu = [read.cpu / embedded.cpu for read, embedded in rounds]
        read_at, embedded_at = (np.median([pair[part].wall for pair in rounds]) for part in (0, 1))
        table.add_row(
            name,
            f"{read_at:.0f}",
            f"{embedded_at:.0f}",
            f"{np.median(ratios):.1f}",
            f"{min(ratios):.1f} to {max(ratios):.1f}",
            f"{np.median(by_cpu):.1f}",
        )
    console.print(f"[bold]{threads} threads; ResNet-18 at 224 px[/bold]")
    console.print(table)
    console.print(f"all in all {so_far()}")


if __name__ == "__main__":
    main()
