"""Stores that grow in steps: networks that take milliseconds, and what is stored by its meaning, to compare two stores.

`python -m support.grown STORE SETTINGS.json` computes a sweep in a process of its own, which a test may kill.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from netsim import Preprocessing
from netsim.results.as_json import to_json
from netsim.results.results import load_results
from netsim.settings import parse_settings
from netsim.store.coverage import SUMS
from netsim.store.layout import moments_path, sets
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, EMBED, STAGES
from support.sweeps import new_run, run_all

WORK = [stage.name for stage in STAGES if stage.name != "report"]
"""Stages that compute values; drawing a page takes longer than all of them."""

SIDE = 8
"""Height and width of the images."""


ACTIVATION: type[nn.Module] = nn.ReLU
"""Activation of every network, which has no weights; tests change it."""


def classifier(width: int, channels: int = 1) -> nn.Module:
    """Return a classifier of three classes, whose weights its width names."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * SIDE**2, width), ACTIVATION(), nn.Linear(width, 3))
    generator = torch.Generator().manual_seed(width)
    for parameter in model.parameters():
        parameter.data = (torch.rand(parameter.shape, generator=generator) - 0.5) / 4
    model.preprocessing = Preprocessing(mean=(0.5,) * channels, std=(0.5,) * channels, size=SIDE)
    return model


def net5() -> nn.Module:
    return classifier(5)


def net6() -> nn.Module:
    return classifier(6)


def net7() -> nn.Module:
    return classifier(7)


def net8() -> nn.Module:
    return classifier(8)


def net9() -> nn.Module:
    return classifier(9)


def colour5() -> nn.Module:
    return classifier(5, channels=3)


def colour6() -> nn.Module:
    return classifier(6, channels=3)


def colour7() -> nn.Module:
    return classifier(7, channels=3)


def colour8() -> nn.Module:
    return classifier(8, channels=3)


def colour9() -> nn.Module:
    return classifier(9, channels=3)


def net(width: int) -> str:
    """Return the reference of a network."""
    return f"python:support.grown:net{width}"


def colour(width: int) -> str:
    """Return the reference of a network of photographs."""
    return f"python:support.grown:colour{width}"


def write_images(path: Path) -> str:
    """Write test images of three classes; return their source."""
    rng = np.random.default_rng(0)
    np.savez(path, images=rng.integers(256, size=(24, SIDE, SIDE), dtype=np.uint8), labels=np.arange(24) % 3)
    return f"npz:{path}"


def write_photographs(folder: Path, classes: Iterable[str] = ("1", "2", "10")) -> str:
    """Write six photographs of each class, all files of one size; return their source."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(6):
            pixels = np.random.default_rng([number, index]).integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.bmp")
    return f"folder:{folder}"


def settings(source: str, networks: Iterable[str], pairs: int, observers: Iterable[str] = ()) -> dict[str, Any]:
    """Return settings of a sweep of shards of 4 pairs."""
    return {
        "images": {"source": source},
        "networks": list(networks),
        "observers": list(observers),
        "pairs": {"count": pairs, "shard_size": 4},
        "inversion": {"iterations": 2, "batch_size": 4},
    }


def ask(url: str, asked_for: Mapping[str, Any], label: str = "grown") -> Run:
    """Ask a sweep of the store at `url`."""
    return new_run(url, parse_settings(dict(asked_for)), label=label)


# ---- what a store has


def values(run: Run, *kinds: str) -> dict[str, bytes]:
    """Read every file of values that has a name of its own: chunks and documents of arrays, but no torn writes."""
    kinds = kinds or ("pairs", "images", "inverted", "representations", "weights")
    files = [path for kind in kinds for path in Path(run.url, kind).rglob("*") if path.is_file()]
    return {str(path.relative_to(run.url)): path.read_bytes() for path in files if path.suffix != ".partial"}


def sums(run: Run) -> dict[tuple[str, str, str], bytes]:
    """Read the sums behind each cell of a sweep, by set and networks, whatever unit has them."""
    covered = SUMS.covered(run, AGGREGATE.units_done(run))
    cells = {}
    for set_name in sets(run.sweep):
        for pair, unit in covered[set_name].items():
            moments = run.read(run.record("aggregate", unit), moments_path(unit))
            cells[set_name, *pair] = moments[SUMS.of_unit(run, unit).index(pair)].tobytes()
    return cells


def results(run: Run) -> dict[str, Any]:
    """Return the results of a sweep without where and when they were computed, and without what only its report has."""
    apart = ("provenance", "on_converged")
    return {key: value for key, value in to_json(load_results(run)).items() if key not in apart}


def looks(run: Run) -> Counter[tuple[str, int, str]]:
    """Count the units of `embed` that have the representations of each (set, shard, observer)."""
    return Counter(
        (unit.rpartition("/")[0], shard, observer)
        for unit, shard in EMBED.units_done(run)
        for observer in run.cohort(unit.rpartition("/")[2])
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    store, file = sys.argv[1:]
    run = ask(store, json.loads(Path(file).read_text(encoding="utf-8")), label=Path(file).stem)
    print(json.dumps(run_all(run, only=WORK)))
