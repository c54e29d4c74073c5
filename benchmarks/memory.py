"""Page faults, system time and peak memory: `make bench BENCH=memory`.

The same work runs in fresh processes, in turn: inversions and test accuracy of an EfficientNet-Lite on photographs, in
the main thread and in another one, and a sweep of three networks. It is done by this code, and by another one: this
code without `netsim.allocator`, or the checkout given by `--against`. Weights are random, photographs are made up.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import timm
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from benchmarks.large_tensors import NETWORKS, WORK
from benchmarks.usage import Usage, adopt_orphans, reap_orphans, so_far

CLASSES = 4
HERE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """One run: wall seconds, what its processes used, and bytes of the largest of them."""

    wall: float
    usage: Usage
    peak: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="checkout to compare with; default: without netsim.allocator")
    parser.add_argument("--pixels", type=int, default=240, help="height and width of the photographs")
    parser.add_argument("--photographs", type=int, default=192)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--runs", type=int, default=3, help="runs of each, in turn")
    parser.add_argument("--only", choices=WORK, nargs="+", default=list(WORK), help="work to run; default: all")
    arguments = parser.parse_args()
    adopt_orphans()
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder) / "photographs", arguments.photographs, arguments.pixels)
        write_weights(Path(folder))
        for name in arguments.only:
            runs = compare(name, arguments, Path(folder))
            Console().print(table(name, runs, arguments))


def compare(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, list[Run]]:
    """Run the work by both codes in turn; return what each run used."""
    before = "before" if arguments.against else "plain allocator"
    runs: dict[str, list[Run]] = {before: [], "this code": []}
    for number in range(arguments.runs):
        for code in runs:
            checkout = arguments.against.absolute() if arguments.against and code == before else HERE
            options = ["--plain-allocator"] if code == before and not arguments.against else []
            runs[code].append(measured(name, arguments, folder, checkout, options, tag=f"{name}-{code}-{number}"))
    return runs


def measured(
    name: str, arguments: argparse.Namespace, folder: Path, checkout: Path, options: list[str], *, tag: str
) -> Run:
    """Run the work in a process of its own, by the code of `checkout`."""
    command = [sys.executable, str(HERE / "benchmarks" / "large_tensors.py"), name, str(folder), *options]
    command += ["--iterations", str(arguments.iterations), "--pixels", str(arguments.pixels)]
    home = folder / tag.replace(" ", "-")
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
        "PREFECT_HOME": str(home / "prefect"),
        "STORE": str(home / "run"),
    }
    before, began = so_far(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, env=environment, cwd=checkout, stdout=subprocess.DEVNULL)
    peak = largest_process(process)
    if process.returncode:
        raise SystemExit(f"{tag} failed with {process.returncode}")
    elapsed = time.monotonic() - began
    reap_orphans()
    return Run(elapsed, so_far(resource.RUSAGE_CHILDREN) - before, peak)


def largest_process(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; return the largest memory that it or one of its descendants had."""
    peak = 0.0
    while process.poll() is None:
        peak = max([peak, *peaks(process.pid)])
        time.sleep(0.2)
    return peak


def peaks(pid: int) -> Iterator[float]:
    """Yield the peak memory so far of a process and its descendants, as Linux counts it."""
    try:
        parent = psutil.Process(pid)
        for member in (parent, *parent.children(recursive=True)):
            status = Path(f"/proc/{member.pid}/status").read_text(encoding="utf-8")
            yield next(1024 * float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (psutil.Error, OSError, StopIteration):
        return


def table(name: str, runs: dict[str, list[Run]], arguments: argparse.Namespace) -> Table:
    """Make a table of medians over the runs."""
    title = f"{name}, {arguments.pixels} px, median of {arguments.runs} runs in turn"
    rows = Table("", "wall s", "user s", "system s", "system share", "page faults", "peak GB", title=title)
    cpu = {}
    for code, each in runs.items():
        wall, peak = (statistics.median(getattr(run, field) for run in each) for field in ("wall", "peak"))
        usage = sorted((run.usage for run in each), key=lambda usage: usage.cpu)[len(each) // 2]
        cpu[code] = usage.cpu
        share, faults = f"{usage.system / usage.cpu:.1%}", f"{usage.faults:,.0f}"
        rows.add_row(
            code, f"{wall:.1f}", f"{usage.user:.1f}", f"{usage.system:.1f}", share, faults, f"{peak / 1e9:.2f}"
        )
    before, after = cpu.values()
    rows.caption = f"CPU time {after / before - 1:+.0%}"
    return rows


def write_photographs(folder: Path, count: int, pixels: int) -> None:
    """Write JPEG files of smooth noise, somewhat larger than the images made of them."""
    rng = np.random.default_rng(0)
    for index in range(count):
        path = folder / f"class{index % CLASSES}" / f"{index:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        noise.resize((pixels * 3 // 2, pixels * 9 // 8), Image.Resampling.BICUBIC).save(path)


def write_weights(folder: Path) -> None:
    """Write random weights of each network with an output for each class of the photographs, so that it is tested."""
    for name in NETWORKS:
        tensors = timm.create_model(name, num_classes=CLASSES).state_dict()
        save_file({path: tensor.contiguous() for path, tensor in tensors.items()}, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main()
