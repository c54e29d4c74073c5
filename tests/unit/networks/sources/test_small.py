"""The nine small networks, grey and colour: each keeps what makes its family, takes its images, and costs little."""

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
from netsim.networks.sources.small import GREY, SMALL
from netsim.networks.sources.small32 import COLOUR

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


SCALES = {"small": GREY, "small32": COLOUR}
BOTH = pytest.mark.parametrize(("source", "name"), [(source, name) for source in SCALES for name in SMALL])


@pytest.fixture(scope="module")
def images():
    grey = to_unit(load_images("fashion-mnist").read(range(8)))
    return {"small": grey, "small32": torch.nn.functional.pad(grey, [2] * 4).repeat(1, 3, 1, 1)}


@BOTH
def test_weights_times_representation_plus_bias_are_the_logits(source, name, images):
    images, width = images[source], SCALES[source].width
    network = load_network(f"{source}:{name}")
    with torch.no_grad():
        representation = network.represent(images)
        logits = representation @ network.head.weight.T + network.head.bias
        assert torch.allclose(logits, network(images), rtol=1e-5, atol=1e-5)
    assert representation.shape == (8, network.width) and logits.shape == (8, 10)
    assert 32 * width <= network.width <= 256 * width
    assert (network.name, network.reference) == (name, f"{source}:{name}")


@BOTH
def test_every_pixel_can_move_the_representation(source, name):
    network = load_network(f"{source}:{name}")
    x = torch.rand(4, *SCALES[source].shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(network.represent(x).square().sum(), x)
    assert (gradient.abs().sum(dim=0) > 0).float().mean() > 0.95


@BOTH
def test_an_image_is_represented_by_itself(source, name, images):
    network = load_network(f"{source}:{name}").double()
    together = network.represent(images[source].double())
    assert torch.allclose(network.represent(images[source][2:3].double())[0], together[2], rtol=1e-9, atol=1e-12)


@BOTH
def test_networks_are_small_and_of_torchvisions_own_classes(source, name):
    scale = SCALES[source]
    network = SMALL[name](num_classes=7, scale=scale)
    assert isinstance(network, FAMILIES[name])
    assert type(network).forward is FAMILIES[name].forward
    assert sum(p.numel() for p in network.parameters()) < 1_200_000 * scale.width**2
    assert network(torch.rand(2, *scale.shape)).shape == (2, 7)


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


@pytest.mark.parametrize("name", SMALL)
def test_the_same_weights_in_every_process_and_other_ones_by_scale(name):
    first, again, other = (load_network(f"{source}:{name}") for source in ("small32", "small32", "small"))
    assert torch.equal(first.head.weight, again.head.weight)
    assert first.width == other.width * COLOUR.width


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
    assert float(pixels.mean()) == pytest.approx(GREY.mean[0], abs=0.005)
    assert float(pixels.std()) == pytest.approx(GREY.std[0], abs=0.005)
