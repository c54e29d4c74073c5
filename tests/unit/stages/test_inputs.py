"""Stages read networks and images as the run recorded them, or refuse."""

import pytest
import torch

from netsim.errors import StoreError
from netsim.stages import inputs
from netsim.stages.work import compute_unit
from netsim.store.run import Run
from netsim.store.stages import TRAIN
from support.sweeps import tiny


def test_changed_weights_behind_a_reference_are_refused(tmp_path):
    from netsim.networks import load_network, weights_to_bytes

    weights = tmp_path / "w.safetensors"
    network = load_network("small:vgg@none")
    weights.write_bytes(weights_to_bytes(network))
    run = Run.create(str(tmp_path / "run"), tiny(networks=[f"small:vgg@{weights}", "small:resnet18@none"]))
    compute_unit(run, TRAIN, "vgg", 0)
    with torch.no_grad():
        next(iter(network.body.parameters())).mul_(1.001)
    weights.write_bytes(weights_to_bytes(network))
    with pytest.raises(StoreError, match="have changed since this run began; changed weights need a new --store"):
        inputs.network(run, "vgg")


def test_damaged_weights_of_a_trained_network_are_refused(tmp_path):
    run = Run.create(str(tmp_path), tiny())
    compute_unit(run, TRAIN, "vgg", 0)
    data = bytearray(run.files.get("weights/vgg.safetensors"))
    data[-1] ^= 1
    run.files.put("weights/vgg.safetensors", bytes(data))
    with pytest.raises(StoreError, match=r"weights/vgg.safetensors, shard 0, .* is damaged"):
        inputs.network(run, "vgg")
