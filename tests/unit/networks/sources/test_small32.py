"""The small networks for colour images; what they share with the grey ones is in test_small.py."""

import pytest
import torch

from netsim.networks import load_network
from netsim.networks.load import needs_training
from netsim.networks.sources.small import SMALL
from netsim.references import is_trained_here


@pytest.mark.parametrize(("name", "path"), [("resnet18", "layer1"), ("wrn4", "layer1"), ("densenet", "features.pool0")])
def test_blocks_see_half_of_the_side(name, path):
    network = load_network(f"small32:{name}")
    sides = []
    network.body.get_submodule(path).register_forward_hook(lambda *parts: sides.append(parts[-1].shape[-2:]))
    network.represent(torch.rand(1, 3, 32, 32))
    assert sides == [(16, 16)]


@pytest.mark.parametrize("name", SMALL)
def test_a_run_trains_them(name):
    assert is_trained_here(f"small32:{name}") and needs_training(f"small32:{name}")
    assert not is_trained_here(f"small32:{name}@none") and not needs_training(f"small32:{name}@none")


def test_images_of_other_sizes_are_represented():
    assert load_network("small32:vgg").represent(torch.rand(2, 3, 48, 40)).shape == (2, 256)
