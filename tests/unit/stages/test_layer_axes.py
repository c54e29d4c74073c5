"""Axes of images and channels are found by running a network, whatever the shapes of its layers suggest."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from netsim.networks import Network, load_network
from netsim.stages.layer_axes import Axes, find_axes, tensor_of, usual_axes
from netsim.stages.layers import layer_grams

IMAGES = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class To(nn.Module):
    """A layer without weights: a function of its input."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor):
        return self.function(x)


class Net(nn.Module):
    """16 patches of 32 channels, then the layer to look at; the logits depend on the patches only."""

    def __init__(self, *layers: nn.Module, size: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.size, self.patch, self.fc = size, nn.Conv2d(3, 32, 4, 4), nn.Linear(32, 10)
        self.steps = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.size is not None and x.shape[-1] != self.size:
            raise ValueError("fixed size")
        patches = self.patch(x)
        self.steps(patches)
        return self.fc(patches.mean(dim=(2, 3)))


def network_of(*layers: nn.Module, size: int | None = None) -> Network:
    return Network(Net(*layers, size=size), IMAGES, name="net", reference="x")


FLAT, TOKENS = To(lambda x: x.flatten(2)), To(lambda x: x.flatten(2).transpose(1, 2))
FIRST = To(lambda x: x.flatten(2).permute(2, 0, 1))
LAST = To(lambda x: x[:, :, :3].permute(0, 2, 3, 1))


@pytest.mark.parametrize("size", [None, 16], ids=["any size", "one size"])
@pytest.mark.parametrize(
    ("layer", "axes"),
    [
        (nn.Identity(), (0, 1)),
        (FLAT, (0, 1)),
        (TOKENS, (0, 2)),
        (FIRST, (1, 2)),
        (LAST, (0, 3)),
        (To(lambda x: x.permute(1, 0, 2, 3)), (1, 0)),
        (To(lambda x: x.permute(2, 3, 1, 0)), (3, 2)),
        (nn.AdaptiveAvgPool2d(1), (0, 1)),
        (nn.AdaptiveAvgPool2d(7), (0, 1)),
        (To(lambda x: x.mean(dim=(2, 3)).unsqueeze(-1)), (0, 1)),
        (To(lambda x: x.mean(dim=(2, 3))), (0, 1)),
        (nn.Flatten(), (0, 1)),
        (To(lambda x: x.mean(dim=(2, 3)).T), (1, 0)),
        (To(lambda x: x[..., None]), (0, 1)),
        (nn.Conv2d(32, 1, 1), (0, 1)),
    ],
)
def test_axes_of_images_and_channels_are_found(layer, axes, size):
    found = find_axes(network_of(layer, size=size), IMAGES, ["steps.0"], pooled=True)
    assert found.known == {"steps.0": axes} and found.refused == {}


def test_positions_are_what_grows_with_images_where_no_layer_states_its_channels():
    shuffled = nn.PixelShuffle(2)  # 32 channels of 4 x 4 become 8 of 8 x 8
    last = To(lambda x: x.permute(0, 2, 3, 1))
    found = find_axes(network_of(shuffled, last), IMAGES, ["steps.0", "steps.1"], pooled=True)
    assert found.known == {"steps.0": (0, 1), "steps.1": (0, 3)}
    fixed = find_axes(network_of(shuffled, last, size=16), IMAGES, ["steps.0", "patch"], pooled=True)
    assert fixed.refused.keys() == {"steps.0"}


@pytest.mark.parametrize("size", [None, 16], ids=["any size", "one size"])
@pytest.mark.parametrize("first", [True, False], ids=["tokens first", "images first"])
def test_blocks_of_transformers_are_told_apart_though_there_are_as_many_tokens_as_images(first, size):
    block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=not first)
    network = network_of(FIRST if first else TOKENS, block, size=size)
    for layers in (["steps.1"], ["steps.1", "steps.1.norm2", "steps.1.linear1"]):  # fused, or with its parts
        found = find_axes(network, IMAGES, layers, pooled=True)
        assert found.known["steps.1"] == ((1, 2) if first else (0, 2))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (To(lambda x: x.flatten(0, 1)), "must have an axis of images, got shape 64 x 4 x 4 for 2 and 96 x 4 x 4 for 3"),
        (To(lambda x: x[:1]), "must have an axis of images, got shape 1 x 32 x 4 x 4 for 2 and 1 x 32"),
        (To(lambda x: x.flatten(1) @ x.flatten(1).T), "must have an axis of images, got shape 2 x 2 for 2 and 3 x 3"),
        (To(lambda x: x.mean()), "must have an axis of images, got shape  for 2"),
        (To(lambda x: x.cumsum(dim=0)), "must have rows that follow the order of images, got others"),
        (To(lambda x: x.flatten().reshape(-1, len(x))), "must have rows that follow the order of images, got others"),
        (To(lambda x: (x, x)), "must have one tensor, got 2 in a tuple"),
        (To(lambda x: None), "must have one tensor, got 0 in a NoneType"),
        (To(lambda x: x.mean(dim=1)), "must have channels that can be told from positions, got shape 3 x 4 x 4"),
        (To(lambda x: x.flatten(2).reshape(len(x), 4, 8, 16)), "must have channels that can be told from positions"),
    ],
)
def test_what_has_no_axis_of_images_or_of_channels_is_refused(layer, reason):
    found = find_axes(network_of(layer), IMAGES, ["steps.0", "patch"], pooled=True)
    assert found.refused["steps.0"].startswith(reason) and list(found.known) == ["patch"]


def test_flattened_activations_need_no_channels():
    ambiguous = To(lambda x: x.flatten(2).reshape(len(x), 4, 8, 16).transpose(0, 1))
    found = find_axes(network_of(ambiguous), IMAGES, ["steps.0", "patch"], pooled=False)
    assert found.known["steps.0"].images == 1 and found.unusual.keys() == {"steps.0"} and found.refused == {}


def test_only_unusual_axes_are_listed_as_such():
    network = network_of(nn.Identity(), TOKENS, FIRST)
    found = find_axes(network, IMAGES, ["patch", "steps.0", "steps.1"], pooled=True)
    assert found.known.keys() == {"patch", "steps.0", "steps.1"} and found.unusual == {}
    assert [usual_axes(count) for count in (2, 3, 4, 5)] == [(0, 1), (0, 2), (0, 1), (0, 1)]
    channels = find_axes(network_of(FLAT), IMAGES, ["steps.0"], pooled=True)
    assert channels.unusual == {"steps.0": Axes(0, 1)}


def test_one_tensor_is_taken_out_of_whatever_it_is_in():
    @dataclass
    class Output:
        tokens: Tensor
        weights: None = None

    x = torch.ones(2)
    for output in (x, (x, None), [x], {"last": x, "loss": None}, Output(x), ((x,), {})):
        assert tensor_of(output) is x
    assert tensor_of({"a": x, "b": (x,)}).reason == "must have one tensor, got 2 in a dict"


@pytest.mark.parametrize("reference", ["timm:test_vit@none", "timm:test_convnext@none", "timm:test_resnet@none"])
def test_layers_of_networks_in_use_have_the_axes_of_their_kind(reference):
    network = load_network(reference)
    side = network.preprocessing.size
    images = torch.rand(3, 3, side, side)
    layers = [name for name, module in network.body.named_modules() if name and not list(module.children())]
    found = find_axes(network, images, layers, pooled=True)
    for layer, axes in found.known.items():
        module = network.body.get_submodule(layer)
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            assert axes == (0, 1), layer
        if isinstance(module, nn.Linear):
            assert axes.images == 0 and axes.channels > 0, layer
    assert set(found.refused.values()) <= {"is missing, because the layer does not run in a forward pass"} | {
        reason for reason in found.refused.values() if reason.startswith("must have channels")
    }


def test_pooled_layers_of_equal_content_have_equal_gram_matrices():
    network = network_of(nn.Identity(), FLAT)
    patch, flat = layer_grams(network, IMAGES, ["patch", "steps.1"], "pooled")
    torch.testing.assert_close(torch.from_numpy(patch), torch.from_numpy(flat), rtol=1e-4, atol=1e-5)
