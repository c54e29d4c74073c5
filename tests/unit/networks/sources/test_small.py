"""The nine small networks: each keeps what makes its family, takes the embedded images, and costs little."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.densenet import _DenseLayer
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.shufflenetv2 import InvertedResidual as ShuffleUnit

from netsim.images import load_images, to_unit
from netsim.networks import load_network
from netsim.networks.sources.small import INPUT_SHAPE, MEAN, SMALL, STD

FAMILIES = {
    "densenet": torchvision.models.DenseNet,
    "mobilenet": torchvision.models.MobileNetV2,
    "resnext": torchvision.models.ResNet,
    "resnet18": torchvision.models.ResNet,
    "resnet50": torchvision.models.ResNet,
    "shufflenet": torchvision.models.ShuffleNetV2,
    "vgg": torchvision.models.VGG,
    "wrn2": torchvision.models.ResNet,
    "wrn4": torchvision.models.ResNet,
}


@pytest.fixture(scope="module")
def images():
    return to_unit(load_images("fashion-mnist").read(range(8)))


@pytest.mark.parametrize("name", SMALL)
def test_weights_times_representation_plus_bias_are_the_logits(name, images):
    network = load_network(f"small:{name}")
    with torch.no_grad():
        representation = network.represent(images)
        logits = representation @ network.head.weight.T + network.head.bias
        assert torch.allclose(logits, network(images), rtol=1e-5, atol=1e-5)
    assert representation.shape == (8, network.width) and logits.shape == (8, 10)
    assert 32 <= network.width <= 256
    assert (network.name, network.reference) == (name, f"small:{name}")


@pytest.mark.parametrize("name", SMALL)
def test_every_pixel_can_move_the_representation(name):
    network = load_network(f"small:{name}")
    x = torch.rand(4, *INPUT_SHAPE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(network.represent(x).square().sum(), x)
    assert (gradient.abs().sum(dim=0) > 0).float().mean() > 0.95


@pytest.mark.parametrize("name", SMALL)
def test_an_image_is_represented_by_itself(name, images):
    network = load_network(f"small:{name}").double()
    together = network.represent(images.double())
    assert torch.allclose(network.represent(images[2:3].double())[0], together[2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_networks_are_small_and_of_torchvisions_own_classes(name):
    network = SMALL[name](num_classes=7)
    assert isinstance(network, FAMILIES[name])
    assert type(network).forward is FAMILIES[name].forward
    assert sum(p.numel() for p in network.parameters()) < 1_200_000
    assert network(torch.rand(2, *INPUT_SHAPE)).shape == (2, 7)


def of_kind(name: str, kind: type) -> list:
    return [module for module in SMALL[name]().modules() if isinstance(module, kind)]


def test_each_keeps_what_makes_its_family():
    assert of_kind("resnet18", BasicBlock) and not of_kind("resnet18", Bottleneck)
    assert of_kind("resnet50", Bottleneck) and not of_kind("resnet50", BasicBlock)
    assert of_kind("densenet", _DenseLayer)
    assert of_kind("shufflenet", ShuffleUnit)
    assert any(block.use_res_connect for block in of_kind("mobilenet", InvertedResidual))
    assert len(of_kind("vgg", nn.Linear)) == 3 and not any(c.groups > 1 for c in of_kind("vgg", nn.Conv2d))
    assert {block.conv2.groups for block in of_kind("resnext", Bottleneck)} == {4}


def test_widths_of_the_bottlenecks_are_those_of_their_names():
    def widths(name):
        return [block.conv2.out_channels for block in of_kind(name, Bottleneck)]

    plain = widths("resnet50")
    assert plain == [8, 16, 32, 32, 64]
    assert widths("wrn2") == widths("resnext") == [2 * width for width in plain]
    assert widths("wrn4") == [4 * width for width in plain]
    assert len({load_network(f"small:{name}").width for name in ("resnet50", "resnext", "wrn2", "wrn4")}) == 1


def test_normalisation_is_that_of_the_training_images():
    pixels = to_unit(load_images("fashion-mnist", "train").read(range(5000)))
    assert float(pixels.mean()) == pytest.approx(MEAN[0], abs=0.005)
    assert float(pixels.std()) == pytest.approx(STD[0], abs=0.005)
