"""Values and settings that tests of the stages share."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from netsim.settings import SweepSettings
from netsim.store import layout
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE
from support.sweeps import tiny


def column(run: Run, through: str, name: str) -> np.ndarray:
    """Read one quantity of the losses of all pairs."""
    return layout.quantity(run.array(f"inverted/{through}/losses")[...], name)


def similarity_of(run: Run) -> dict[str, np.ndarray]:
    """Read the sums behind every unit of `aggregate`."""
    return {name: run.array(f"similarity/{name}/moments")[...] for name, _ in AGGREGATE.units_done(run)}


def folder_of_images(folder: Path) -> str:
    """Write 24 images of noise in two classes; return their reference."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return f"folder:{folder}"


def photograph_settings(folder: Path, **changes: Any) -> SweepSettings:
    """Return the settings of a tiny sweep of two networks on photographs in a folder, which it writes."""
    networks = ["a=torchvision:resnet18@none", "b=torchvision:mobilenet_v2@none"]
    images = {"source": folder_of_images(folder), "size": 32}
    return tiny(networks=networks, images=images, pairs={"count": 8, "shard_size": 4}, **changes)
