"""Accuracy of `netsim plan`: hours and bytes of two small sweeps, and the memory of a worker at 224 px.

python -m benchmarks.plan             both parts; about half an hour
python -m benchmarks.plan time        a sweep of small networks, and one at 224 px
python -m benchmarks.plan memory      a worker that inverts 32 images at once, network by network
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.images import make_photographs
from benchmarks.stores import new_run
from flows.cli.console import table_of
from flows.clusters.environment import ENVIRONMENT, MODULES
from netsim.networks import untrained
from netsim.planning.probe import ProbeRequest, host_bytes
from netsim.planning.prober import Prober
from netsim.settings import parse_settings, shipped_settings
from netsim.stages.work import compute_unit
from netsim.store.run import Run
from netsim.store.stages import CHECK, DRAW, INVERT, TRAIN

console = Console(highlight=False, width=120)

SWEEPS: dict[str, dict[str, Any]] = {
    "four small networks, one trained": {
        "networks": ["small:vgg", "small:resnet18@none", "small:resnet50@none", "small:densenet@none"],
        "training": {"epochs": 2},
        "pairs": {"count": 256, "shard_size": 32},
        "inversion": {"iterations": 500},
    },
    "two of torchvision's at 224 px": {
        "images": {"size": 224},
        "networks": ["torchvision:resnet18@none", "torchvision:shufflenet_v2_x1_0@none"],
        "pairs": {"count": 32, "shard_size": 8},
        "inversion": {"iterations": 20},
    },
}

PUBLISHED = shipped_settings("imagenet-nine")
# One network's weights are a checkpoint of Salman et al.; random ones need none.
WIDE = {"robust:wide_resnet50_4_l2_eps0": "torchvision:wide_resnet50_4"}
NINE = {each.name: untrained(WIDE.get(each.reference, each.reference)) for each in PUBLISHED.members}


def show_time(folder: Path) -> None:
    """Plan and run each sweep, and print planned and actual seconds and bytes."""
    for title, settings in SWEEPS.items():
        if "images" in settings:
            settings = settings | {"images": photographs(folder)}
        file, store = folder / "sweep.yaml", folder / title.replace(" ", "-")
        file.write_text(yaml.safe_dump(settings))
        planned = json.loads(netsim("plan", str(file), "--store", str(store), "--json"))
        started = time.perf_counter()
        netsim("run", str(file), "--store", str(store))
        took = time.perf_counter() - started
        run = Run.open(str(store))
        table = table_of(title, "planned", "from", "to", "actual", "planned / actual")
        wall = planned["wall"]
        table.add_row("whole command, s", *cells(wall), f"{took:.1f}", f"{wall['mean'] / took:.2f}")
        for stage in planned["stages"]:
            spent = seconds(run, stage["stage"])
            if spent > 1:
                ratio = f"{stage['seconds']['mean'] / spent:.2f}"
                table.add_row(f"{stage['stage']}, s of workers", *cells(stage["seconds"]), f"{spent:.1f}", ratio)
        planned_mb = planned["stored"] / 1e6
        stored = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 1e6
        table.add_row("stored, MB", f"{planned_mb:.1f}", "", "", f"{stored:.1f}", f"{planned_mb / stored:.2f}")
        console.print(table)


def cells(estimate: dict[str, float]) -> list[str]:
    """Format an estimate of `netsim plan --json` and its range."""
    return [f"{estimate[key]:.1f}" for key in ("mean", "low", "high")]


def seconds(run: Run, stage: str) -> float:
    """Sum the seconds of a stage's shards, from their records."""
    return sum(run.record(stage, name, shard).seconds for name, shard in run.done(stage))


def netsim(*arguments: str) -> str:
    """Run the command line, and return what it printed."""
    done = subprocess.run([sys.executable, "-m", "flows.cli", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


# ---- memory


def show_memory(folder: Path) -> None:
    """Print the planned and actual memory of a worker for each of the nine networks."""
    images = photographs(folder)
    table = table_of("a worker's memory, GB; 224 px, 32 images at once", "planned", "actual", "planned / actual")
    for name, reference in NINE.items():
        values = settings_of(f"{name}={reference}", images)
        with Prober(MODULES, ENVIRONMENT) as prober:
            planned = prober.measure(ProbeRequest(values, name, timed=False)).host_bytes
        code = "import sys; from benchmarks.plan import invert_one; invert_one(*sys.argv[1:])"
        done = subprocess.run(
            [sys.executable, "-c", code, name, images["source"]],
            env=os.environ | ENVIRONMENT,
            check=True,
            capture_output=True,
            text=True,
        )
        actual = int(done.stdout.splitlines()[-1])
        console.print(f"{name}: planned {planned / 1e9:.2f} GB, was {actual / 1e9:.2f} GB")
        table.add_row(name, f"{planned / 1e9:.2f}", f"{actual / 1e9:.2f}", f"{planned / actual:.2f}")
    console.print(table)


def photographs(folder: Path) -> dict[str, Any]:
    """Return image settings of a folder of photographs, which is made once."""
    if not (folder / "images").exists():
        make_photographs(folder / "images", 128)
    return {"source": f"folder:{folder}/images/tree", "size": 224}


def settings_of(reference: str, images: dict[str, Any]) -> dict[str, Any]:
    """Return settings that invert 32 images at once through one network."""
    return {
        "images": images,
        "networks": [reference, "another=small:vgg@none"],  # a sweep needs at least two
        "pairs": {"count": 64, "shard_size": 32},
        "inversion": {"iterations": 1, "batch_size": 32},
    }


def invert_one(name: str, source: str) -> None:
    """Invert two shards as a worker does, and print the peak memory of this process in bytes."""
    for module in MODULES:
        import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        images = {"source": source, "size": 224}
        run = new_run(folder, parse_settings(settings_of(f"{name}={NINE[name]}", images)))
        compute_unit(run, CHECK, "test", 0)
        compute_unit(run, TRAIN, name, 0)
        for stage, unit in ((DRAW, "pairs"), (INVERT, name)):
            stage.prepare(run, [(unit, 0)])
            for shard in range(2):  # freed memory is not always reused
                compute_unit(run, stage, unit, shard)
    print(host_bytes())


PARTS = {"time": show_time, "memory": show_memory}


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{' or '.join(PARTS)}; default: both")
    for part in parser.parse_args().parts or PARTS:
        Path("runs").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=Path("runs")) as folder:
            PARTS[part](Path(folder).absolute())


if __name__ == "__main__":
    main()
