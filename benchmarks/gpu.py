"""Everything that waits for a GPU, in less than nine minutes: `make gpu`.

tests    the tests that are marked `gpu`
table    images/s of inversions: the published code as it ships, which allows TF32 in convolutions, and without TF32,
         against netsim in every precision, captured as CUDA graphs or called
sweep    a whole small sweep, with Prefect and Dask

Each result is written as soon as it is measured, as a line of JSON in `results.jsonl` and as a row of `page.md`, a page
for docs/benchmarks. A step has a budget of seconds. What it leaves no time for, and what this machine cannot run, is
left out, and a line says so. `--tiny` runs all of it at sizes that a CPU finishes in seconds.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch

from netsim.errors import NetsimError
from netsim.inversion.execution import Plain, execution_on
from netsim.inversion.flops import forward_flops
from netsim.inversion.invert import Iteration, invert_batches
from netsim.inversion.precision import Precision, fast_precisions
from netsim.networks import Network, load_network
from netsim.networks.ambient import plain_torch, tf32_numbers
from netsim.settings import InversionSettings

ROOT = Path(__file__).parents[1]
BUDGETS = {"tests": 150.0, "table": 240.0, "sweep": 120.0}
"""Seconds of each step, by its name: together less than nine minutes."""

LARGE = (
    "resnet50",
    "vgg16_bn",
    "mobilenet_v2",
    "densenet161",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x1_0",
    "wide_resnet50_2",
    "wide_resnet50_4",
)
SMALL = ("resnet18", "vgg", "mobilenet", "densenet", "resnet50", "resnext", "shufflenet", "wrn2", "wrn4")
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
SETTLING = 4
"""Iterations before the clock starts: libraries choose algorithms, and graphs are captured."""

GRACE = 15.0
"""Seconds that a program whose time is over has to end."""

SWEEP = """
networks: ["small:resnet18", "small:vgg"]
training: {{epochs: {epochs}}}
pairs: {{count: {count}, shard_size: {shard_size}}}
inversion: {{preset: fast, iterations: {iterations}, precision: auto}}
"""


class Size(NamedTuple):
    """How much is measured."""

    large: tuple[str, ...]
    small: tuple[str, ...]
    pixels: int
    batches: tuple[int, ...]
    iterations: int
    sweep: dict[str, int]


FULL = Size(
    LARGE,
    SMALL,
    224,
    (64, 256, 8),
    12,
    {"epochs": 2, "count": 512, "shard_size": 128, "iterations": 200},
)
TINY = Size(
    ("shufflenet_v2_x1_0",),
    ("mobilenet",),
    32,
    (2,),
    2,
    {"epochs": 1, "count": 8, "shard_size": 4, "iterations": 2},
)


class Results:
    """Results, written as they come: lines of JSON, and a page."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lines, self.page, self.rows = folder / "results.jsonl", folder / "page.md", []
        self.lines.write_text("", encoding="utf-8")

    def add(self, step: str, **values: Any) -> None:
        """Append a result, and write the page anew."""
        self.rows.append({"step": step, **values})
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        self.page.write_text(page_of(self.rows), encoding="utf-8")
        print(json.dumps(self.rows[-1]), flush=True)


def page_of(rows: list[dict[str, Any]]) -> str:
    """Lay out results as a page of Markdown: a table for each step, and what was left out."""
    page = [f"# {date.today()}, {device_name()}", "", f"torch {torch.__version__}, Python {platform.python_version()}"]
    for step in dict.fromkeys(row["step"] for row in rows):
        done = [row for row in rows if row["step"] == step and "left_out" not in row]
        columns = list(dict.fromkeys(name for row in done for name in row if name != "step"))
        if columns:
            page += ["", f"## {step}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
            page += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in done]
    left_out = [row for row in rows if "left_out" in row]
    if left_out:
        page += ["", "## Left out", "", *(f"* {row['step']}: {row['left_out']}" for row in left_out)]
    return "\n".join(page) + "\n"


def device() -> torch.device:
    """Return the GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Return the name of the GPU or of the processor's architecture."""
    return torch.cuda.get_device_name() if device().type == "cuda" else platform.machine()


def synchronize() -> None:
    """Wait for the GPU."""
    if device().type == "cuda":
        torch.cuda.synchronize()


class Clock:
    """A callback of iterations that times them, from `SETTLING` on."""

    def __init__(self) -> None:
        self.calls, self.begin = 0, 0.0

    def __call__(self, _: Iteration) -> None:
        """Count an iteration; start the clock when all has settled."""
        if self.calls == SETTLING:
            synchronize()
            self.begin = time.perf_counter()
        self.calls += 1

    def seconds(self) -> float:
        """Return the seconds of an iteration."""
        synchronize()
        return (time.perf_counter() - self.begin) / (self.calls - SETTLING)


def netsim_seconds(
    network: Network, images: torch.Tensor, iterations: int, precision: Precision, replay: bool
) -> float:
    """Time an iteration of netsim, as CUDA graphs or called."""
    clock = Clock()
    settings = InversionSettings(iterations=SETTLING + iterations, batch_size=len(images))
    execution = execution_on(network.mean.device, network.name) if replay else Plain()
    invert_batches(
        network, images, images.flip(0), settings, precision=precision, on_iteration=clock, execution=execution
    )
    return clock.seconds()


@contextmanager
def tf32_in_convolutions(allowed: bool) -> Iterator[None]:
    """Set what torch does with convolutions of float32 on a GPU; its default allows TF32, but not in products."""
    convolutions: Any = torch.backends.cudnn.conv
    before, convolutions.fp32_precision = convolutions.fp32_precision, "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def published_seconds(network: Network, images: torch.Tensor, iterations: int, *, tf32: bool) -> float:
    """Time an iteration of the published code, without what comes before the first."""
    from benchmarks.published import attacker_model, published

    model, images = attacker_model(network).to(device()), images.to(device())
    durations = []
    with tf32_in_convolutions(tf32):
        for count in (1, 1, 1 + iterations):
            synchronize()
            start = time.perf_counter()
            published(model, images, images.flip(0), iterations=count)
            synchronize()
            durations.append(time.perf_counter() - start)
    return max(durations[2] - durations[1], 1e-9) / iterations


def convolution_peak(dtype: str, side: int) -> float:
    """Measure the FLOP/s of a convolution of 3 x 3 with 256 channels on `side` images of `side` x `side`, at best."""
    tensors = Precision(dtype, dtype).tensors  # type: ignore[arg-type]
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False).to(device(), tensors, memory_format=torch.channels_last)
    x = torch.rand(side, 256, side, side, device=device()).to(tensors, memory_format=torch.channels_last)
    fastest = float("inf")
    with plain_torch(), torch.no_grad(), tf32_numbers() if dtype == "tf32" else nullcontext():
        for _ in range(5):
            synchronize()
            start = time.perf_counter()
            layer(x)
            synchronize()
            fastest = min(fastest, time.perf_counter() - start)
    return 2 * 9 * 256**2 * side**3 / fastest


def measured(work: Callable[[], float]) -> tuple[float, float]:
    """Return the seconds that `work` returns, and the most bytes that it took on the GPU."""
    if device().type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return work(), torch.cuda.max_memory_reserved() if device().type == "cuda" else 0


def table(results: Results, size: Size, deadline: float) -> None:
    """Measure every network, batch size, code and precision, those first that tell most."""
    peaks = {dtype: convolution_peak(dtype, 28 if size is FULL else 4) for dtype in PRECISIONS}
    for dtype, peak in peaks.items():
        results.add("peak", precision=dtype, convolution_tflops=round(peak / 1e12, 4))
    places = [(f"torchvision:{name}@none", (3, size.pixels, size.pixels)) for name in size.large]
    places += [(f"small:{name}@none", (1, 28, 28)) for name in size.small]
    for batch in size.batches:
        for reference, shape in places:
            if time.monotonic() > deadline:
                results.add("table", left_out=f"{reference}, batch {batch}: no time left")
                continue
            _one_network(results, reference, shape, batch, size.iterations, peaks, deadline)


def _one_network(
    results: Results,
    reference: str,
    shape: tuple[int, ...],
    batch: int,
    iterations: int,
    peaks: dict[str, float],
    deadline: float,
) -> None:
    """Measure one network at one batch size."""
    network = load_network(reference, input_shape=shape).to(device())
    images = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
    flops = 2 * forward_flops(network, images[:1].to(device()))

    def ours(precision: str, replay: bool) -> Callable[[], float]:
        return lambda: netsim_seconds(network, images, iterations, Precision(precision, precision), replay)  # type: ignore[arg-type]

    def theirs(tf32: bool) -> Callable[[], float]:
        return lambda: published_seconds(network, images, iterations, tf32=tf32)

    works = [("netsim", dtype, replay, ours(dtype, replay)) for dtype in PRECISIONS for replay in (True, False)]
    works += [("published", "tf32" if tf32 else "float32", False, theirs(tf32)) for tf32 in (True, False)]
    fast = fast_precisions(device())
    for code, dtype, replay, work in works:
        name = {"network": reference, "batch": batch, "code": code, "precision": dtype, "captured": replay}
        if replay and device().type != "cuda":
            continue
        if dtype == "tf32" and dtype not in fast:
            results.add("table", left_out=f"{name}: this device has no TF32")
            continue
        if time.monotonic() > deadline:
            results.add("table", left_out=f"{name}: no time left")
            continue
        try:
            seconds, held = measured(work)
        except (RuntimeError, ImportError, NetsimError) as error:
            results.add("table", left_out=f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        results.add(
            "table",
            **name,
            images_per_s=round(batch / seconds, 1),
            of_peak=round(flops * batch / seconds / peaks[dtype], 3),
            gigabytes=round(held / 1e9, 2),
        )


def run_program(results: Results, step: str, command: list[str], seconds: float, folder: Path) -> None:
    """Run a program in `folder`, write its output to a log as it comes, and end it when its time is over."""
    start, environment = time.monotonic(), os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    log = results.lines.parent / f"{step}.log"
    with log.open("w", encoding="utf-8") as output:
        program = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
        try:
            program.wait(max(seconds, 1))
        except subprocess.TimeoutExpired:
            _end(program)
            results.add(step, left_out=f"not finished within {seconds:.0f} s; see {log.name}")
            return
    last = (log.read_text(encoding="utf-8").strip().splitlines() or [""])[-1]
    results.add(step, code=program.returncode, seconds=round(time.monotonic() - start, 1), last_line=last)


def _end(program: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, as it can with its workers, and kill its group if it does not."""
    program.terminate()
    try:
        program.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def tests(results: Results, size: Size, deadline: float) -> None:
    """Run the tests that are marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "gpu", "tests/integration/test_gpu.py"]
    run_program(results, "tests", command, deadline - time.monotonic(), ROOT)


def sweep(results: Results, size: Size, deadline: float) -> None:
    """Run a sweep of two small networks, trained, inverted and compared, as `netsim run` does."""
    folder = results.lines.parent
    (folder / "sweep.yaml").write_text(SWEEP.format(**size.sweep), encoding="utf-8")
    code = "import sys; from flows.cli.main import main; sys.argv[0] = 'netsim'; main()"
    command = [sys.executable, "-c", code, "run", "sweep.yaml", "--quiet"]
    run_program(results, "sweep", command, deadline - time.monotonic(), folder)


STEPS: dict[str, Callable[[Results, Size, float], None]] = {"tests": tests, "table": table, "sweep": sweep}


def main() -> None:
    """Run the steps in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu", help="folder of the results")
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=list(STEPS))
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU finishes in seconds")
    options = parser.parse_args()
    results, size = Results(options.out), TINY if options.tiny else FULL
    if device().type != "cuda" and not options.tiny:
        raise SystemExit("torch finds no GPU; `--tiny` tries the program on a CPU")
    for step in options.steps:
        STEPS[step](results, size, time.monotonic() + BUDGETS[step])


if __name__ == "__main__":
    main()
