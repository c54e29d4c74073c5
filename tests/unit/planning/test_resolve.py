"""Images and networks are identified by their content, whatever they are called and wherever they are."""

import importlib
import json
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from netsim.errors import DataError, NetworkError, StoreError
from netsim.images import ImageSet, Split, load_images
from netsim.networks import Network, behaviour_of, load_network, load_once, weights_to_bytes
from netsim.networks.convert import convert
from netsim.planning import resolve as planning
from netsim.planning.resolve import Known, resolve
from netsim.references import with_absolute_paths
from netsim.settings import SweepSettings, TrainingSettings
from netsim.store.run import Run
from support.sweeps import TINY, new_run, run_all, tiny

NONE = "runs/none"


def of(reference: str, source: str = "fashion-mnist", name: str = "any", **training: object) -> str:
    """Return the identity of a network."""
    listed = {"reference": reference, "name": name} | ({"training": training} if training else {})
    networks = [listed, "beside=small:shufflenet@none"]
    settings = tiny(images={"source": source}, networks=networks, training={})
    return resolve(settings, NONE).networks[0].identity


def images(folder: Path, seed: int = 0) -> str:
    """Write twelve training and test images; the training images depend on the seed."""
    test = np.random.default_rng(9).integers(256, size=(12, 28, 28), dtype=np.uint8)
    train = np.random.default_rng(seed).integers(256, size=(12, 28, 28), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{seed}.npz"
    np.savez(path, x_train=train, y_train=np.arange(12) % 3, x_test=test, y_test=np.arange(12) % 3)
    return f"npz:{path}"


# ---- networks that are trained here


def test_each_setting_of_the_training_counts_and_a_default_that_is_spelt_out_does_not():
    plain = of("small:vgg", epochs=8)
    assert of("small:vgg", rng_seed=0, batch_size=128) == plain
    changes: list[dict[str, Any]] = [
        {"epochs": 9},
        {"batch_size": 64},
        {"learning_rate": 0.1},
        {"weight_decay": 0.0},
        {"rng_seed": 1},
        {"augmentation": "crop"},
        {"adversarial": {"eps": 0.5}},
        {"precision": "bfloat16"},
    ]
    assert {key for change in changes for key in change} == set(TrainingSettings.model_fields)
    identities = {of("small:vgg", **change) for change in changes} | {plain, of("small:wrn2", epochs=8)}
    identities |= {of("small:vgg", adversarial={"eps": 0.5, "norm": "linf"})}
    assert len(identities) == len(changes) + 3
    assert of("small:vgg", adversarial={"eps": 0.5, "norm": "l2", "steps": 3}) in identities
    assert of("small:vgg", name="another", epochs=8) == plain


def test_the_training_images_count_wherever_they_are(tmp_path):
    one, other = images(tmp_path), images(tmp_path, seed=1)
    moved = images(tmp_path / "moved")
    assert of("small:vgg", one, epochs=8) == of("small:vgg", moved, epochs=8) != of("small:vgg", other, epochs=8)


# ---- networks that come with weights


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights_to_bytes(load_network("small:vgg@none", rng_seed=1)))
    return path


def test_weights_in_a_file_count_by_their_tensors(weights, tmp_path, monkeypatch):
    plain = of(f"small:vgg@{weights}")
    shutil.copy(weights, tmp_path / "copy.safetensors")
    tensors = safetensors.torch.load_file(weights)
    safetensors.torch.save_file(dict(reversed(tensors.items())), tmp_path / "again.safetensors", {"note": "x"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.safetensors").symlink_to(weights)
    for same in ("copy.safetensors", "again.safetensors", "link.safetensors", f"file://{weights}"):
        assert of(f"small:vgg@{same}") == plain


def test_weights_count_alike_in_every_kind_of_file_and_whatever_is_beside_them(weights, tmp_path):
    """Also once converted: a checkpoint that is named in a sweep may be replaced by the file that is made of it."""
    plain, tensors = of(f"small:vgg@{weights}"), safetensors.torch.load_file(weights)
    lightning = {"epoch": 3, "state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()}}
    lightning["state_dict"]["loss.weight"] = torch.ones(3)
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    for name, content in {"a.pt": tensors, "b.ckpt": lightning, "c.pth": {"model": tensors, "ema": other}}.items():
        torch.save(content, tmp_path / name)
    convert("small:vgg", f"{tmp_path}/b.ckpt", output=f"{tmp_path}/d.safetensors")
    for same in ("a.pt", "b.ckpt", "b.ckpt#state_dict.model", "c.pth#model", "d.safetensors"):
        assert of(f"small:vgg@{tmp_path}/{same}") == plain
    assert of(f"small:vgg@{tmp_path}/c.pth#ema") != plain


def test_a_checkpoint_that_needs_pickle_is_refused_before_anything_is_stored(weights, tmp_path):
    torch.save({"model": safetensors.torch.load_file(weights), "args": Namespace()}, tmp_path / "x.pt")
    with pytest.raises(NetworkError, match=r"convert it once: netsim convert small:vgg .*/x\.pt$"):
        new_run(str(tmp_path / "run"), tiny(networks=[f"small:vgg@{tmp_path}/x.pt", "small:resnet18@none"]))
    assert not (tmp_path / "run").exists()


def test_one_bit_of_one_weight_and_another_architecture_are_another_network(weights, tmp_path):
    tensors = safetensors.torch.load_file(weights)
    name = sorted(tensors)[0]
    first = tensors[name].view(-1)[:1]
    first.copy_(torch.nextafter(first, first + 1))
    safetensors.torch.save_file(tensors, tmp_path / "other.safetensors")
    references = [f"small:vgg@{weights}", f"small:vgg@{tmp_path}/other.safetensors", f"small:wrn2@{weights}"]
    assert len({of(reference) for reference in references}) == 3


def test_preprocessing_in_the_header_of_a_file_counts(weights, tmp_path):
    tensors, metadata = safetensors.torch.load_file(weights), {"mean": [0.5], "std": [0.25], "checkpoint": "a.pt"}
    paths: list[Path] = []
    for changes in ({}, {"checkpoint": "b.pt"}, {"std": [0.5]}):
        paths.append(tmp_path / f"{len(paths)}.safetensors")
        safetensors.torch.save_file(tensors, paths[-1], {"netsim": json.dumps(metadata | changes)})
    first, same, other = (of(f"small:vgg@{path}") for path in paths)
    assert first == same != other and first != of(f"small:vgg@{weights}")


def test_published_weights_count_by_their_name_and_a_default_may_be_left_out():
    assert of("torchvision:resnet18") == of("torchvision:resnet18@IMAGENET1K_V1")
    assert (
        of("torchvision:resnet50")
        == of("torchvision:resnet50@IMAGENET1K_V2")
        != of("torchvision:resnet50@IMAGENET1K_V1")
    )
    assert of("timm:resnet18") == of("timm:resnet18@a1_in1k") != of("timm:resnet18@a2_in1k")


def test_random_weights_are_no_trained_ones():
    assert len({of("small:vgg@none"), of("small:wrn2@none"), of("small:vgg", epochs=8)}) == 3


NETWORKS = """
import torch
from torch import nn
from netsim import Preprocessing

CALLS = []
SCALE = 1.0
STD = 0.5

def net():
    CALLS.append(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    model[1].weight.data.mul_(SCALE)
    model.preprocessing = Preprocessing(mean=(0.5,), std=(STD,), size=28)
    return model

def drawn():
    model = net()
    model[1].weight.data.add_(torch.rand(1, generator=torch.Generator().manual_seed(len(CALLS))))
    return model
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "lab_nets.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lab_nets", raising=False)
    return importlib.import_module("lab_nets")


def test_a_function_counts_by_the_weights_and_the_preprocessing_that_its_network_has_now(module, monkeypatch):
    """Also in one process: a notebook imports a module again after it was edited."""
    plain = of("python:lab_nets:net")
    assert of("python:lab_nets:net") == plain
    monkeypatch.setattr(module, "SCALE", 2.0)
    scaled = of("python:lab_nets:net")
    monkeypatch.setattr(module, "SCALE", 1.0)
    monkeypatch.setattr(module, "STD", 0.25)
    assert len({plain, scaled, of("python:lab_nets:net")}) == 3


def test_a_function_that_returns_other_weights_at_each_call_is_refused_before_anything_is_stored(module, tmp_path):
    with pytest.raises(NetworkError, match="lab_nets:drawn must give the same network at every call"):
        new_run(str(tmp_path / "run"), tiny(networks=["python:lab_nets:drawn", "small:vgg@none"]))
    assert not (tmp_path / "run").exists()


def test_a_function_counts_alike_wherever_its_module_is(module, tmp_path):
    assert of(with_absolute_paths("python:lab_nets:net", str(tmp_path))) == of("python:lab_nets:net")


def test_a_function_is_called_twice_and_no_more(module):
    resolve(tiny(networks=["a=python:lab_nets:net", "b=python:lab_nets:net", "small:vgg@none"]), NONE)
    assert len(module.CALLS) == 2


def test_the_two_networks_of_a_function_see_two_images_once_each(module, monkeypatch):
    passes = []
    represent = Network.represent
    monkeypatch.setattr(Network, "represent", lambda self, images: passes.append(1) or represent(self, images))
    load_once("python:lab_nets:net", input_shape=(1, 28, 28))
    checks = len(passes)
    identity = planning.identify("python:lab_nets:net", lambda: (1, 28, 28))
    assert len(passes) - checks == 2 * (checks + 1)
    assert identity.behaviour == behaviour_of(load_once("python:lab_nets:net"), (1, 28, 28))


# ---- names


def test_networks_that_the_store_has_keep_their_name_there_whatever_they_are_called(finished):
    sweep = resolve(tiny(networks=["x=small:resnet18@none", "y=small:vgg", "new=small:wrn2@none"]), finished.url)
    assert sweep.names == ("resnet18", "vgg", "new")
    assert sweep.shown == {"x": "resnet18", "y": "vgg", "new": "new"}
    assert sweep.networks[0] == finished.sweep.network("resnet18")


def test_two_names_of_one_new_network_are_one_network():
    sweep = resolve(tiny(networks=["a=small:vgg", "b=small:vgg"], observers=["c=small:vgg"]), NONE)
    assert sweep.names == sweep.columns == ("a",) and sweep.shown == {"a": "a", "b": "a", "c": "a"}


@pytest.mark.parametrize(
    ("network", "difference"),
    [
        ("vgg=small:wrn2", "small:vgg there and small:wrn2 here"),
        ("VGG=small:wrn2@none", "small:vgg there and small:wrn2@none here"),
        (
            {"reference": "small:vgg", "training": {"epochs": 2, "rng_seed": 3}},
            "training.rng_seed is 0 there and 3 here, training.epochs is 1 there and 2 here",
        ),
    ],
)
def test_a_name_of_another_network_in_the_store_is_refused(finished, network, difference):
    with pytest.raises(StoreError, match=r"the name (vgg|VGG) is taken in .* by another network: ") as refused:
        resolve(tiny(networks=["small:resnet18@none", network]), finished.url)
    for part in difference.split(", "):
        assert part in str(refused.value)


def test_other_training_images_make_another_network_of_the_same_name(tmp_path):
    networks, pairs = ["small:vgg", "small:wrn2@none"], {"count": 8, "shard_size": 4}
    before, after = (
        tiny(images={"source": images(tmp_path, seed=seed)}, networks=networks, pairs=pairs) for seed in (0, 1)
    )
    run = new_run(str(tmp_path / "run"), before)
    with pytest.raises(StoreError, match=r"the name vgg is taken .* the training images are others; rename yours"):
        resolve(after, run.url)


def test_other_weights_in_a_file_make_another_network_of_the_same_name(weights, tmp_path):
    settings = tiny(networks=[f"small:vgg@{weights}", "small:wrn2@none"])
    run = new_run(str(tmp_path / "run"), settings)
    weights.write_bytes(weights_to_bytes(load_network("small:vgg@none", rng_seed=2)))
    with pytest.raises(StoreError, match=r"the name vgg is taken .*: the weights of small:vgg@.* are others"):
        resolve(settings, run.url)


def test_a_store_that_does_not_exist_knows_nothing():
    known = Known.at(NONE)
    assert (known.networks, known.sweeps) == ((), ()) and known.url.endswith(NONE)


# ---- faults


def test_resolving_stores_nothing(tmp_path):
    resolve(tiny(), str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_the_faults_of_all_networks_are_in_one_error(tmp_path):
    networks = [
        "a=small:vgg@missing.safetensors",
        "small:vgg@none",
        "b=python:lab_none:net",
        "c=torchvision:resnet18@none",
    ]
    with pytest.raises(NetworkError) as refused:
        resolve(tiny(networks=networks), NONE)
    first, *others = str(refused.value).splitlines()
    assert first == "3 of 4 networks cannot be used:"
    assert [line.split(":")[0] for line in others if line.startswith("  ")] == ["  a", "  b", "  c"]


def test_training_images_that_cannot_be_read_are_one_fault_and_not_one_of_every_network(tmp_path):
    source = images(tmp_path)
    only_test(source)
    with pytest.raises(DataError) as refused:
        resolve(tiny(images={"source": source}, networks=["small:vgg", "small:wrn2", "small:resnet18@none"]), NONE)
    assert "networks cannot be used" not in str(refused.value) and "train" in str(refused.value)


# ---- images that are gone


def only_test(source: str) -> None:
    """Remove the training images."""
    path = source.removeprefix("npz:")
    arrays = dict(np.load(path))
    np.savez(path, x_test=arrays["x_test"], y_test=arrays["y_test"])


@pytest.fixture
def settings(tmp_path, weights, module) -> SweepSettings:
    """Settings with a network of every kind that is not published, on images in a folder of their own."""
    return tiny(
        images={"source": images(tmp_path / "images")},
        networks=["small:vgg", "small:wrn2@none", f"file=small:vgg@{weights}", "python:lab_nets:net"],
        pairs={"count": 8, "shard_size": 4},
    )


def drawn(settings: SweepSettings, tmp_path: Path) -> Run:
    """Return a run whose networks are recorded and whose pairs are drawn."""
    run = new_run(str(tmp_path / "run"), settings)
    run_all(run, only=("train", "draw"))
    return run


def test_images_that_are_gone_are_those_of_an_earlier_sweep(settings, tmp_path):
    run = drawn(settings, tmp_path)
    new_run(run.url, settings.model_copy(update={"networks": settings.networks[1:]}), label="later")
    shutil.rmtree(tmp_path / "images")
    again = resolve(settings, run.url)
    assert again.id == run.sweep.id and again.networks == run.sweep.networks
    skipping = settings.images.model_copy(update={"unreadable": "skip"})
    assert resolve(settings.model_copy(update={"images": skipping}), run.url).id == run.sweep.id


def test_networks_that_were_trained_on_images_that_are_gone_are_those_of_an_earlier_sweep(settings, tmp_path):
    run = new_run(str(tmp_path / "run"), settings)
    only_test(settings.images.source)
    assert resolve(settings, run.url).networks == run.sweep.networks
    images(tmp_path / "images", seed=0)
    assert resolve(settings, run.url).networks == run.sweep.networks


def test_of_two_networks_that_were_trained_alike_that_of_the_images_is_taken(tmp_path):
    """Their training images differ, and so do the names that the sweeps had for them."""
    pairs, runs = {"count": 8, "shard_size": 4}, []
    for seed, name in ((0, "z"), (1, "a")):
        source = images(tmp_path / "images", seed=seed)
        networks = [f"{name}=small:vgg", "small:wrn2@none"]
        runs.append(
            new_run(str(tmp_path / "run"), tiny(images={"source": source}, networks=networks, pairs=pairs), label=name)
        )
    shutil.rmtree(tmp_path / "images")
    assert [resolve(run.settings, run.url).names for run in runs] == [("z", "wrn2"), ("a", "wrn2")]


def test_images_that_are_gone_are_refused_where_an_earlier_sweep_does_not_have_the_answer(settings, tmp_path):
    run = new_run(str(tmp_path / "run"), settings)
    shutil.rmtree(tmp_path / "images")
    changes = [
        {"images": settings.images.model_copy(update={"class_order": "natural"})},
        {"training": settings.training.model_copy(update={"epochs": 7})},
        {},  # nothing in the store has the shape that the function's network takes: its pairs are not drawn
    ]
    for change in changes:
        with pytest.raises(DataError, match=r"^no file '.*npz'; images.source must be an existing .npz file$"):
            resolve(settings.model_copy(update=change), run.url)


# ---- cost


def test_each_split_is_listed_once(monkeypatch):
    listed = []

    def load_and_count(reference: str, split: Split, *others: Any) -> ImageSet:
        listed.append(split)
        return load_images(reference, split, *others)

    monkeypatch.setattr(planning, "load_images", load_and_count)
    resolve(tiny(networks=["small:vgg", "small:wrn2", "small:resnet18"]), NONE)
    resolve(tiny(networks=["small:vgg@none", "small:wrn2@none"]), NONE)
    assert listed == ["test", "train", "test"]


def test_nothing_loads_torch_where_all_networks_are_trained_here():
    code = """
import sys
from netsim.planning.resolve import resolve
from netsim.settings import shipped_settings
resolve(shipped_settings("demo"), "runs/none")
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tensors_are_hashed_by_name_type_shape_and_bytes():
    from netsim.networks.weights import hash_tensors

    plain = {"a": torch.zeros(2, 3)}
    others = [{"b": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, {"a": torch.zeros(2, 3, dtype=torch.int32)}]
    hashes = {hash_tensors(tensors) for tensors in (*others, {"a": torch.ones(2, 3)}, plain)}
    assert len(hashes) == 5 and hash_tensors({"a": torch.zeros(3, 2).T}) == hash_tensors(plain)


def test_the_settings_of_the_demo_are_resolved_by_name():
    assert resolve(tiny(networks=TINY["networks"]), NONE).names == ("vgg", "resnet18", "shufflenet")
