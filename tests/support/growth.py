"""The identity campaign: single changes of a finished sweep, each with what it must make netsim do.

docs/reference/identity.md is its table; `python -m support.growth` in tests/ prints it.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from netsim.networks import load_network, weights_to_bytes

Settings = dict[str, Any]

NETWORKS = """
import torch
from torch import nn
from netsim import Preprocessing

SCALE = 1.0
STD = 0.5
CALLS = []

class Net(nn.Sequential):
    def forward(self, images):
        return self[2](torch.relu(self[1](self[0](images))))

def net():
    torch.manual_seed(0)
    model = Net(nn.Flatten(), nn.Linear(784, 12), nn.Linear(12, 10))
    model[1].weight.data.mul_(SCALE)
    model.preprocessing = Preprocessing(mean=(0.5,), std=(STD,), size=28)
    return model

def drawn():
    CALLS.append(1)
    model = net()
    model[1].weight.data.add_(0.01 * len(CALLS))
    return model
"""
"""A module of functions that return networks."""

NOTHING: dict[str, int] = {}
REPORT = {"report": 1}
NEW_NETWORK = {"train": 1, "invert": 4, "embed": 24, "aggregate": 5, "control": 4, "report": 1}
OTHER_NETWORK = {"train": 1, "invert": 4, "embed": 20, "aggregate": 4, "control": 3, "report": 1}
OBSERVER = {"train": 1, "embed": 20, "aggregate": 4, "control": 3, "report": 1}
MORE_PAIRS = {"draw": 2, "invert": 6, "embed": 10, "aggregate": 6, "control": 3, "report": 1}
FEWER_PAIRS = {"aggregate": 6, "control": 3, "report": 1}
PROTOCOL = "another protocol"
TAKEN = "is taken"
EARLY = "until requires at least 8 shards"


@dataclass(frozen=True)
class Change:
    """A single change.

    Attributes
    ----------
    name
        The change, in words.
    effect
        Units that are computed, by stage; or a part of the error that refuses it.
    apply
        Makes the change, given the folder of the sweep and its settings; returns new settings.
    """

    name: str
    effect: dict[str, int] | str
    apply: Callable[[Path, Settings], Settings | None]


def base(folder: Path) -> Settings:
    """Write images, weights and a module into a folder; return settings of a sweep that takes seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    write_images(folder / "images.npz")
    (folder / "w.safetensors").write_bytes(weights_to_bytes(load_network("small:vgg@none", rng_seed=1)))
    (folder / "campaign_nets.py").write_text(NETWORKS, encoding="utf-8")
    return {
        "images": {"source": f"npz:{folder}/images.npz"},
        "networks": [f"file=small:vgg@{folder}/w.safetensors", "function=python:campaign_nets:net", "small:shufflenet"],
        "training": {"epochs": 1, "batch_size": 8},
        "pairs": {"count": 16, "shard_size": 4},
        "inversion": {"iterations": 2, "batch_size": 4},
    }


def write_images(path: Path, *, test: int = 0, train: int = 1) -> None:
    """Write 40 test and 40 training images of noise, drawn by these seeds."""
    pixels = {
        split: np.random.default_rng(seed).integers(256, size=(40, 28, 28), dtype=np.uint8)
        for split, seed in (("test", test), ("train", train))
    }
    labels = np.arange(40) % 10
    np.savez(path, x_test=pixels["test"], y_test=labels, x_train=pixels["train"], y_train=labels)


def setting(group: str, **values: Any) -> Callable[[Path, Settings], Settings]:
    """Change settings of a group."""
    return lambda _, settings: settings | {group: settings.get(group, {}) | values}


def networks(change: Callable[[Path, list[Any]], list[Any]], **others: Any) -> Callable[[Path, Settings], Settings]:
    """Change the list of networks."""
    return lambda folder, settings: settings | {"networks": change(folder, settings["networks"])} | others


def on_disk(change: Callable[[Path], None]) -> Callable[[Path, Settings], None]:
    """Change files only."""
    return lambda folder, _: change(folder)


def edit_weights(folder: Path, name: str = "w.safetensors", **metadata: Any) -> None:
    """Change one number of one tensor of the weights, or only what their header says."""
    path = folder / "w.safetensors"
    tensors = safetensors.torch.load_file(path)
    if not metadata:
        tensors[sorted(tensors)[0]].flatten()[0] += 1e-3
    header = {"netsim": json.dumps(metadata)} if metadata else None
    safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name, header)


def moved(folder: Path, settings: Settings) -> Settings:
    """Move all files to another folder."""
    shutil.copytree(folder, folder.parent / "moved", dirs_exist_ok=True)
    return json.loads(json.dumps(settings).replace(str(folder), str(folder.parent / "moved")))


def linked(folder: Path, settings: Settings) -> Settings:
    """Reach all files through a link to their folder."""
    (folder.parent / "link").symlink_to(folder)
    return json.loads(json.dumps(settings).replace(str(folder), str(folder.parent / "link")))


def as_urls(folder: Path, settings: Settings) -> Settings:
    """Name all files by URLs."""
    return json.loads(json.dumps(settings).replace(str(folder), f"file://{folder}"))


def relative(folder: Path, settings: Settings) -> Settings:
    """Name all files by paths relative to the working directory."""
    return json.loads(json.dumps(settings).replace(str(folder), os.path.relpath(folder)))


def edit_module(folder: Path, old: str, new: str) -> None:
    """Change the code of the functions."""
    path = folder / "campaign_nets.py"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def spelt_out(_: Path, settings: Settings) -> Settings:
    """Write down some settings with their defaults."""
    inversion = {"preset": "published", "momentum": 0.9, "stored_as": "uint16", "precision": "float32"}
    training = {"rng_seed": 0, "learning_rate": 0.2, "weight_decay": 0.01}
    return settings | {
        "images": settings["images"] | {"class_order": "listed", "unreadable": "stop"},
        "inversion": settings["inversion"] | inversion,
        "training": settings["training"] | training,
        "observers": [],
    }


def as_mappings(_: Path, settings: Settings) -> Settings:
    """Write networks as mappings."""
    named = [reference.partition("=") if "=" in reference else ("shufflenet", "", reference)
             for reference in settings["networks"]]  # fmt: skip
    return settings | {"networks": [{"name": name, "reference": reference} for name, _, reference in named]}


def one_pixel(folder: Path) -> None:
    """Change one pixel of one test image."""
    arrays = dict(np.load(folder / "images.npz"))
    arrays["x_test"][3, 5, 5] ^= 1
    np.savez(folder / "images.npz", **arrays)


def one_label(folder: Path) -> None:
    """Change the label of one test image."""
    arrays = dict(np.load(folder / "images.npz"))
    arrays["y_test"][3] = 7
    np.savez(folder / "images.npz", **arrays)


EXTRA = "extra=small:wrn2@none"
OTHER_SEED = {"name": "seed3", "reference": "small:shufflenet", "training": {"rng_seed": 3}}

CAMPAIGN = (
    # nothing is computed
    Change("the same settings again", NOTHING, lambda _, settings: settings),
    Change("defaults spelt out", NOTHING, spelt_out),
    Change("networks written as mappings", NOTHING, as_mappings),
    Change(
        "a grid of one network instead of its name",
        NOTHING,
        networks(
            lambda _, names: [
                *names[:2],
                {"name": "shufflenet", "reference": "small:{a}", "group": "shufflenet", "grid": {"a": ["shufflenet"]}},
            ]
        ),
    ),
    Change("all files moved to another folder", NOTHING, moved),
    Change("all files reached through a link", NOTHING, linked),
    Change("files named by file:// URLs", NOTHING, as_urls),
    Change("relative paths instead of absolute ones", NOTHING, relative),
    Change(
        "files touched, with the same content", NOTHING, on_disk(lambda folder: os.utime(folder / "images.npz", (1, 1)))
    ),
    Change(
        "a comment in the module of a function",
        NOTHING,
        on_disk(lambda f: edit_module(f, "import torch\n", "import torch  # x\n")),
    ),
    Change(
        "the same tensors in a file with another header", NOTHING, on_disk(lambda f: edit_weights(f, checkpoint="x"))
    ),
    Change("unreadable: skip, where all images are readable", NOTHING, setting("images", unreadable="skip")),
    Change(
        "training of the sweep spelt out for one network",
        NOTHING,
        networks(lambda _, names: [*names[:2], {"reference": names[2], "training": {"epochs": 1}}]),
    ),
    # only the report
    Change("another order of the networks", REPORT, networks(lambda _, names: names[::-1])),
    Change("a renamed network", REPORT, networks(lambda _, names: ["renamed=small:shufflenet", *names[:2]])),
    Change("a network left out", REPORT, networks(lambda _, names: names[:2])),
    Change("a network under two names", REPORT, networks(lambda _, names: [*names, "again=small:shufflenet"])),
    Change("another group", REPORT, networks(lambda _, names: [*names[:2], {"reference": names[2], "group": "g"}])),
    Change("another tolerance", REPORT, setting("inversion", tolerance=0.5)),
    Change(
        "a network that is inverted as observer only",
        REPORT,
        networks(lambda _, names: names[:2], observers=["small:shufflenet"]),
    ),
    # only what is new
    Change("a network more", NEW_NETWORK, networks(lambda _, names: [*names, EXTRA])),
    Change("a network more, in the first place", NEW_NETWORK, networks(lambda _, names: [EXTRA, *names])),
    Change(
        "another training seed, under another name", OTHER_NETWORK, networks(lambda _, names: [*names[:2], OTHER_SEED])
    ),
    Change("the same with both seeds", NEW_NETWORK, networks(lambda _, names: [*names, OTHER_SEED])),
    Change(
        "other weights in another file, under another name",
        OTHER_NETWORK,
        networks(
            lambda folder, names: [
                edit_weights(folder, "v.safetensors") or f"v=small:vgg@{folder}/v.safetensors",
                *names[1:],
            ]
        ),
    ),
    Change("a network that only looks", OBSERVER, lambda _, settings: settings | {"observers": [EXTRA]}),
    Change("half as many pairs more", MORE_PAIRS, setting("pairs", count=24)),
    Change("half as many pairs", FEWER_PAIRS, setting("pairs", count=8)),
    Change(
        "a rule to stop, met at the first look, at twice the pairs",
        MORE_PAIRS | {"draw": 4, "invert": 12, "embed": 20},
        setting("pairs", count=40, until={"half_width": 100.0}),
    ),
    Change("a rule to stop, with fewer shards than its first look", EARLY, setting("pairs", until={"half_width": 0.1})),
    # another store
    Change("another seed of the pairs", PROTOCOL, setting("pairs", rng_seed=1)),
    Change("other seeds for the same targets", PROTOCOL, setting("pairs", seed_draw=1)),
    Change("another size of the shards", PROTOCOL, setting("pairs", shard_size=8)),
    Change("more iterations", PROTOCOL, setting("inversion", iterations=3)),
    Change("another step", PROTOCOL, setting("inversion", step_size=0.25)),
    Change("another momentum", PROTOCOL, setting("inversion", momentum=0.5)),
    Change("stop_loss", PROTOCOL, setting("inversion", stop_loss=0.01)),
    Change("another precision", PROTOCOL, setting("inversion", precision="bfloat16")),
    Change("another batch size", PROTOCOL, setting("inversion", batch_size=2)),
    Change("another preset", PROTOCOL, setting("inversion", preset="fast")),
    Change("images stored as float32", PROTOCOL, setting("inversion", stored_as="float32")),
    Change("one pixel of one test image", "the images are others", on_disk(one_pixel)),
    Change("the label of one test image", "the images are others", on_disk(one_label)),
    Change(
        "other test images",
        "the images are others",
        on_disk(lambda folder: write_images(folder / "images.npz", test=2)),
    ),
    Change("another source of images", "the images are others", setting("images", source="fashion-mnist")),
    # another network of the same name
    Change("one number of one tensor of the weights", TAKEN, on_disk(edit_weights)),
    Change(
        "mean and std in the header of the weights", TAKEN, on_disk(lambda f: edit_weights(f, mean=[0.5], std=[0.5]))
    ),
    Change("other weights of a function", TAKEN, on_disk(lambda f: edit_module(f, "SCALE = 1.0", "SCALE = 1.5"))),
    Change("other preprocessing of a function", TAKEN, on_disk(lambda f: edit_module(f, "STD = 0.5", "STD = 0.25"))),
    Change(
        "another activation in the `forward` of a function",
        TAKEN,
        on_disk(lambda f: edit_module(f, "torch.relu", "torch.nn.functional.gelu")),
    ),
    Change("another number of epochs", TAKEN, setting("training", epochs=2)),
    Change("another learning rate", TAKEN, setting("training", learning_rate=0.1)),
    Change("another training seed", TAKEN, setting("training", rng_seed=1)),
    Change("other training images", TAKEN, on_disk(lambda folder: write_images(folder / "images.npz", train=2))),
    Change(
        "another architecture under the name", TAKEN, networks(lambda _, names: [*names[:2], "shufflenet=small:wrn2"])
    ),
    Change(
        "given weights instead of training", TAKEN, networks(lambda _, names: [*names[:2], "small:shufflenet@none"])
    ),
    # what cannot be identified
    Change(
        "a function that returns other weights at each call",
        "the same network at every call",
        networks(lambda _, names: [*names, "python:campaign_nets:drawn"]),
    ),
)


def effect_in_words(effect: dict[str, int] | str) -> str:
    """Describe an effect for the table."""
    if isinstance(effect, str):
        refusals = {
            PROTOCOL: "refused: another protocol",
            TAKEN: "refused: the name is taken by another network",
            "the images are others": "refused: the images are others",
            EARLY: "refused: a look requires 8 shards",
        }
        return refusals.get(effect, "refused, before any work")
    if not effect:
        return "nothing"
    if effect == REPORT:
        return "the report only"
    return ", ".join(f"{stage} {count}" for stage, count in effect.items())


def table() -> Iterator[str]:
    """Yield the lines of the table in docs/reference/identity.md."""
    yield "| change | computed |"
    yield "|---|---|"
    for change in CAMPAIGN:
        yield f"| {change.name} | {effect_in_words(change.effect)} |"


@contextmanager
def working_directory(folder: Path) -> Iterator[None]:
    """Work in a folder inside the block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    print("\n".join(table()))
