"""Stages read networks and images as the run recorded them, or refuse."""

import importlib
import shutil

import numpy as np
import pytest
import torch

from netsim.errors import DataError, StoreError
from netsim.images import ArrayImages
from netsim.networks import content_hash, load_network, weights_to_bytes
from netsim.networks.batches import Batches
from netsim.stages import inputs
from netsim.stages.work import compute_unit
from netsim.store.run import Run
from netsim.store.stages import TRAIN
from support.sweeps import new_run, tiny


def test_changed_weights_behind_a_reference_are_refused(tmp_path):
    weights = tmp_path / "w.safetensors"
    network = load_network("small:vgg@none")
    weights.write_bytes(weights_to_bytes(network))
    run = new_run(str(tmp_path / "run"), tiny(networks=[f"small:vgg@{weights}", "small:resnet18@none"]))
    compute_unit(run, TRAIN, "vgg", 0)
    with torch.no_grad():
        next(iter(network.body.parameters())).mul_(1.001)
    weights.write_bytes(weights_to_bytes(network))
    with pytest.raises(StoreError, match="have changed since this run began; changed weights need a new --store"):
        inputs.network(run, "vgg")


CODE = """
import torch
from torch import nn

ACTIVATION = torch.relu

class Net(nn.Sequential):
    def forward(self, images):
        return self[2](ACTIVATION(self[1](self[0](images))))

def net():
    torch.manual_seed(0)
    return Net(nn.Flatten(), nn.Linear(784, 12), nn.Linear(12, 10))
"""


def test_a_worker_with_other_code_of_a_function_is_refused(tmp_path, monkeypatch):
    (tmp_path / "code_of_nets.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = new_run(str(tmp_path / "run"), tiny(networks=["python:code_of_nets:net", "small:resnet18@none"]))
    compute_unit(run, TRAIN, "net", 0)
    monkeypatch.setattr(importlib.import_module("code_of_nets"), "ACTIVATION", torch.nn.functional.gelu)
    with pytest.raises(StoreError, match="gives other representations here than where the sweep began"):
        inputs.network(run, "net")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert inputs.network(run, "net").width == 12


def test_damaged_weights_of_a_trained_network_are_refused(tmp_path):
    run = new_run(str(tmp_path), tiny())
    compute_unit(run, TRAIN, "vgg", 0)
    data = bytearray(run.files.get("weights/vgg.safetensors"))
    data[-1] ^= 1
    run.files.put("weights/vgg.safetensors", bytes(data))
    with pytest.raises(StoreError, match=r"weights/vgg.safetensors, shard 0, .* is damaged"):
        inputs.network(run, "vgg")


def test_training_images_are_used_only_where_a_network_has_no_weights():
    assert inputs.used_splits(tiny()) == ["test", "train"]
    assert inputs.used_splits(tiny(networks=["small:vgg@none", "small:resnet18@none"])) == ["test"]


CLASSES = (("0", "1"), ("0", "1", "2"))
"""Classes of two splits: label 2 occurs in one of them only."""


def test_classes_without_names_are_counted_over_all_splits():
    images = [ArrayImages("some", np.zeros((2, 1, 4, 4), np.uint8), np.arange(2), classes=names) for names in CLASSES]
    assert inputs.count_classes(images) == inputs.count_classes(images[::-1]) == 3


def test_a_network_with_too_few_outputs_is_refused():
    images = inputs.used_images(tiny())["test"]
    inputs.require_matching(load_network("small:vgg@none", num_classes=10), images)
    with pytest.raises(DataError, match=r"^small:vgg@none has 9 outputs but the images have 10 classes$"):
        inputs.require_matching(load_network("small:vgg@none", num_classes=9), images)


def test_initial_weights_are_those_of_the_training_seed():
    def weights(rng_seed: int) -> str:
        network = inputs.untrained_network("small:vgg", classes=10, shape=(1, 28, 28), rng_seed=rng_seed)
        return content_hash(network)

    assert weights(1) == weights(1) != weights(2)


def test_a_network_is_loaded_once_and_as_it_was_trained(finished):
    network = inputs.network(finished, "vgg")
    assert inputs.network(Run.open(finished.url), "vgg") is network and not network.training
    assert content_hash(network) == finished.record("train", "vgg").facts["weights_hash"]


def test_representations_do_not_depend_on_the_batch(finished, monkeypatch):
    network, images = inputs.network(finished, "resnet18"), inputs.set_images(finished, "natural", 0)[0]
    at_once = inputs.represent(network, images)
    monkeypatch.setattr(inputs, "evaluation_batches", lambda network, _: Batches(network, 3))
    torch.testing.assert_close(inputs.represent(network, images), at_once, rtol=1e-5, atol=1e-6)
    assert at_once.shape == (8, network.width) and not at_once.requires_grad


def test_images_of_a_set_are_those_in_the_store(finished):
    natural, drawn = inputs.set_images(finished, "natural", 2)
    np.testing.assert_array_equal(natural, finished.array("images/target")[16:24] / np.float32(255))
    inverted, record = inputs.set_images(finished, "inverted/vgg", 2)
    np.testing.assert_array_equal(inverted, finished.array("inverted/vgg/image")[16:24] / np.float32(65535))
    assert natural.dtype == inverted.dtype == torch.float32
    assert [(one.stage, one.name, one.shard) for one in (drawn, record)] == [("draw", "pairs", 2), ("invert", "vgg", 2)]


def test_images_of_a_damaged_shard_are_refused(finished, tmp_path):
    shutil.copytree(finished.url, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    path = tmp_path / "run/inverted/vgg/image/c/2/0/0/0"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    inputs.set_images(run, "inverted/vgg", 1)
    with pytest.raises(StoreError, match=r"inverted/vgg/image, shard 2, in .* is damaged"):
        inputs.set_images(run, "inverted/vgg", 2)
