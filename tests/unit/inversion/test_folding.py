"""The folded copy represents as the network does, whatever is folded, replaced or converted in it."""

import pytest
import torch
from torch import nn

from netsim.inversion.engine import Engine
from netsim.inversion.folding import QuickStem
from netsim.inversion.precision import Precision
from netsim.networks import as_network, load_network
from netsim.networks.sources.small import SMALL
from unit.inversion.examples import HALF, convolutional, images, norms_with_statistics


def norms(engine):
    """Count the BatchNorms that were not folded."""
    return sum(isinstance(part, nn.BatchNorm2d) for part in engine.modules())


@pytest.mark.parametrize("name", SMALL)
def test_every_small_network_represents_as_before_with_its_norms_folded(name):
    network = load_network(f"small:{name}@none")
    norms_with_statistics(network.requires_grad_(False), (1, 28, 28))
    network.double()
    engine = Engine(network, images(1, (1, 28, 28)).double(), batch_size=4)
    x = images(4, (1, 28, 28), rng_seed=2).double()
    torch.testing.assert_close(engine.represent(x), network.represent(x), rtol=1e-10, atol=1e-10)
    unfolded = {"densenet": 11}  # those in front of a convolution instead of behind one
    assert norms(engine) == unfolded.get(name, 0)


@pytest.mark.parametrize("name", ["vit_b_16", "convnext_tiny", "swin_t", "efficientnet_b0", "googlenet"])
def test_networks_of_other_kinds_work_unchanged(name):
    shape = (3, 224, 224) if name == "vit_b_16" else (3, 64, 64)
    network = load_network(f"torchvision:{name}@none", num_classes=5, input_shape=shape)
    network.double()
    seed, target = (images(1, shape, rng_seed=k).double() for k in (1, 2))
    goal = network.represent(target).detach()
    x = seed.clone().requires_grad_(True)
    distance = torch.linalg.vector_norm(network.represent(x) - goal)
    (gradient,) = torch.autograd.grad(distance, x)
    loss, descent = Engine(network, seed, batch_size=1).loss_and_descent(seed, goal)
    torch.testing.assert_close(loss[0], (distance / torch.linalg.vector_norm(goal)).detach(), rtol=1e-9, atol=0)
    difference = torch.linalg.vector_norm(descent + gradient) / torch.linalg.vector_norm(gradient)
    assert difference < 1e-6


class UsedTwice(nn.Module):
    """A convolution whose output is used by a BatchNorm and again behind it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.conv(x)
        return self.head((self.norm(x) + x).mean(dim=(2, 3)))


class InPlaceBetween(UsedTwice):
    """An in-place activation between the two: the BatchNorm gets the same tensor, with other values."""

    def forward(self, x):
        return self.head(self.norm(self.conv(x).relu_()).mean(dim=(2, 3)))


class Shared(UsedTwice):
    """One BatchNorm after two convolutions."""

    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.head(self.norm(self.second(self.norm(self.conv(x)))).mean(dim=(2, 3)))


@pytest.mark.parametrize("kind", [UsedTwice, InPlaceBetween, Shared])
def test_a_norm_that_cannot_be_folded_stays(kind):
    torch.manual_seed(0)
    network = as_network(norms_with_statistics(kind().double()), images(2).double())
    engine = Engine(network, images(1).double(), batch_size=2)
    assert norms(engine) == 1
    x = images(2, rng_seed=3).double()
    torch.testing.assert_close(engine.represent(x), network.represent(x), rtol=1e-12, atol=1e-12)


class Flattens(nn.Module):
    """A network that flattens feature maps with `view`, as LeNet does, which fails if they are stored channels last."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3)
        self.out = nn.Linear(8 * 12 * 12, 5)
        with torch.no_grad():
            self.norm.running_mean.uniform_(-1, 1), self.norm.running_var.uniform_(0.5, 2)
            self.norm.weight.uniform_(0.5, 2), self.norm.bias.uniform_(-1, 1)

    def forward(self, x):
        return self.out(self.second(self.norm(self.first(x).relu())).view(-1, self.out.in_features))


class WithConv3d(Flattens):
    """A network with a weight of five dimensions, which has no channels-last layout of images."""

    def __init__(self):
        super().__init__()
        self.volume = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.out(self.second(self.volume(self.first(x).relu()[:, None])[:, 0]).flatten(1))


class ReadsItsNorm(Flattens):
    """A network that reads an attribute of its BatchNorm, which a folded one lacks."""

    def forward(self, x):
        x = self.norm(self.first(x)) * self.norm.weight.mean()
        return self.out(self.second(x).flatten(1))


@pytest.mark.parametrize("kind", [Flattens, WithConv3d, ReadsItsNorm])
@pytest.mark.parametrize("count", [1, 3])
def test_a_network_that_cannot_be_folded_or_stored_channels_last_is_inverted_as_it_is(kind, count):
    torch.manual_seed(0)
    network = as_network(kind().double(), images(1, (3, 16, 16)).double())
    x, goal = images(count, (3, 16, 16)).double(), torch.rand(count, network.width, dtype=torch.float64)
    loss, descent = Engine(network, x, batch_size=count).loss_and_descent(x, goal)
    leaf = x.clone().requires_grad_()
    distance = torch.linalg.vector_norm(network.represent(leaf) - goal, dim=1)
    (gradient,) = torch.autograd.grad(distance.sum(), leaf)
    torch.testing.assert_close(loss, distance.detach() / torch.linalg.vector_norm(goal, dim=1))
    torch.testing.assert_close(descent, -gradient)


def test_a_tie_in_max_pooling_sends_the_gradient_wherever_rounding_decides():
    """Ties in max pooling (docs/project/design.md): features equal to 1e-15 may have other gradients altogether."""
    flat = torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64)
    gradients, pooled = [], []
    for y, x in ((0, 0), (1, 1)):
        image = flat.clone()
        image[0, 0, y, x] = torch.nextafter(image[0, 0, y, x], torch.tensor(1.0, dtype=torch.float64))
        value = torch.nn.functional.max_pool2d(image.requires_grad_(), 2).sum()
        gradients.append(torch.autograd.grad(value, image)[0].flatten().tolist())
        pooled.append(value.item())
    assert pooled[0] == pooled[1] == pytest.approx(0.3, rel=1e-15)
    assert gradients == [[1, 0, 0, 0], [0, 0, 0, 1]]


def test_the_network_is_not_changed():
    network = convolutional()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layouts = [tensor.stride() for tensor in network.state_dict().values()]
    Engine(network, images(1), precision=HALF, batch_size=2).represent(images(2))
    assert [tensor.stride() for tensor in network.state_dict().values()] == layouts
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("size", [5, 7, 9])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 31, 45), (3, 4, 224, 224)], ids=str)
def test_the_gradient_of_a_quick_stem_is_that_of_the_convolution(size, shape):
    conv = nn.Conv2d(shape[1], 6, size, stride=2, padding=size // 2).double()
    assert QuickStem.supports(conv)
    x = images(shape[0], shape[1:], dtype=torch.float64).requires_grad_()
    expected, quick = conv(x), QuickStem(conv)(x)
    torch.testing.assert_close(quick, expected, rtol=0, atol=0)
    cotangent = torch.randn(expected.shape, dtype=torch.float64, generator=torch.manual_seed(2))
    torch.testing.assert_close(
        *(torch.autograd.grad(y, x, cotangent)[0] for y in (quick, expected)), rtol=1e-12, atol=1e-12
    )


def test_only_a_first_layer_of_a_supported_kind_is_replaced():
    resnet, vgg = (load_network(f"torchvision:{name}@none", input_shape=(3, 64, 64)) for name in ("resnet18", "vgg11"))
    quick = {
        network.name: [
            part.conv.kernel_size
            for part in Engine(network, images(1, (3, 64, 64))).modules()
            if isinstance(part, QuickStem)
        ]
        for network in (resnet, vgg)
    }
    assert quick == {"resnet18": [(7, 7)], "vgg11": []}
    for change in (
        {"dilation": 2},
        {"stride": 1},
        {"padding": 2},
        {"padding_mode": "reflect"},
        {"kernel_size": (7, 5)},
    ):
        conv = nn.Conv2d(3, 8, **{"kernel_size": 7, "stride": 2, "padding": 3} | change)
        assert not QuickStem.supports(conv)


def test_grouped_convolutions_work_in_their_own_precision():
    engine = Engine(convolutional(), images(1), precision=Precision("float16", "float32"), batch_size=1)
    dtypes = {part.groups: part.weight.dtype for part in engine.modules() if isinstance(part, nn.Conv2d)}
    assert dtypes == {1: torch.float16, 4: torch.float32}
