"""The cut at the last linear layer: for which models it works, and what it leaves unchanged."""

import dataclasses

import pytest
import torch
from torch import nn

import netsim
from netsim.errors import DataError, NetworkError
from netsim.inversion.engine import Engine
from netsim.networks import as_network, content_hash, load_network, sharing_copy
from support.classifiers import AttackerModel, Classifier, images


class CaffeClassifier(Classifier):
    """It expects what Caffe's networks expect: blue first, 255 for white, and the mean subtracted."""

    preprocessing = netsim.Preprocessing(mean=(103.9, 116.8, 123.7), std=(1.0, 2.0, 3.0), largest=255, order="BGR")


def test_a_module_says_its_range_and_order_of_channels_and_pixels_stay_as_they_are():
    model, x = CaffeClassifier().eval(), images(3)
    network = as_network(model, images(1))
    mean, std = torch.tensor([103.9, 116.8, 123.7]), torch.tensor([1.0, 2.0, 3.0])
    by_hand = (255 * x.flip(1) - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        assert torch.allclose(network(x), model(by_hand), rtol=1e-5, atol=1e-4)
        assert torch.allclose(Engine(network, x, batch_size=3).represent(x), network.represent(x), rtol=1e-4, atol=1e-4)
    plain = Classifier().eval()
    plain.load_state_dict(model.state_dict())
    assert content_hash(as_network(plain, images(1))) != content_hash(network)
    rgb = dataclasses.replace(CaffeClassifier.preprocessing, order="RGB")
    model.preprocessing = rgb
    assert content_hash(as_network(model, images(1))) != content_hash(network)
    with pytest.raises(NetworkError, match="requires images of 3 channels, got 4"):
        as_network(model, torch.rand(1, 4, 16, 16))


def test_representing_runs_the_body_once_and_the_head_never():
    network = load_network("small:resnet18")
    calls = []
    for module in network.modules():
        module.register_forward_hook(lambda module, *_: calls.append(module))
    network.represent(images(1, (1, 28, 28)))
    assert calls.count(network.body) == 1 and calls.count(network.body.conv1) == 1
    assert network.head not in calls
    network(images(1, (1, 28, 28)))
    assert calls.count(network.body) == 2 and calls.count(network.head) == 1


def test_the_module_of_a_user_is_left_as_it_was():
    model = Classifier().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layers = dict(model.named_modules())
    network = as_network(model, images(4))
    network.represent(images(4).requires_grad_()).sum().backward()
    assert all(module.training for module in model.modules()) and not network.training
    assert dict(model.named_modules()) == layers
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_memory_is_shared_with_the_module_of_a_user():
    model = Classifier()
    assert as_network(model, images(1)).body.hidden.weight.data_ptr() == model.hidden.weight.data_ptr()


def test_a_network_is_its_own_network():
    network = as_network(Classifier(), images(1))
    assert as_network(network, images(1)) is network


def test_a_plain_classifier_is_not_normalised():
    model = Classifier().eval()
    assert torch.equal(as_network(model, images(1))(images(3)), model(images(3)))


def test_an_attacker_model_keeps_its_normalisation():
    attacker = AttackerModel(Classifier()).eval()
    assert torch.equal(as_network(attacker, images(1))(images(3)), attacker(images(3))[0])


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_pixels_at_the_bounds_of_the_box_are_not_clamped(bound):
    torch.manual_seed(0)  # about one network in a hundred has no gradient: all of its hidden units are off
    network = as_network(AttackerModel(Classifier()), images(1))
    x = torch.full((1, 3, 16, 16), bound, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x)[0, 0], x)
    assert (gradient != 0).float().mean() > 0.9
    assert not torch.equal(network(x), network(x + (0.2 if bound else -0.2)))


class TwoNames(Classifier):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([self.hidden, self.out])

    def forward(self, x):
        return self.layers[1](self.layers[0](self.features(x).flatten(1)))


class NotInOrder(Classifier):
    """The last linear layer to run is not the last to be made."""

    def forward(self, x):
        return self.first(self.out(self.hidden(self.features(x).flatten(1)).relu()))

    def __init__(self):
        super().__init__()
        self.first, self.unused = nn.Linear(5, 3), nn.Linear(3, 9)


class AsksItsLastLayer(Classifier):
    def forward(self, x):
        x = self.hidden(self.features(x).flatten(1)).view(-1, self.out.in_features)
        return self.out(x.to(self.out.weight.dtype))


@pytest.mark.parametrize(
    ("model", "width", "classes"),
    [
        (TwoNames(), 12, 5),
        (NotInOrder(), 5, 3),
        (AsksItsLastLayer(), 12, 5),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), 768, 4),
    ],
)
def test_the_head_is_the_linear_layer_that_runs_last(model, width, classes):
    network = as_network(model, images(1))
    assert (network.width, network.num_classes) == (width, classes)
    x = images(3)
    assert torch.equal(network.head(network.represent(x)), model.eval()(x))


class Softmax(Classifier):
    def forward(self, x):
        return super().forward(x).softmax(dim=1)


class Bypass(Classifier):
    def forward(self, x):
        return nn.functional.linear(self.hidden(self.features(x).flatten(1)), self.out.weight, self.out.bias)


class Tokens(Classifier):
    def forward(self, x):
        return self.out(self.hidden(self.features(x).flatten(1)).reshape(len(x), 1, 12).repeat(1, 2, 1)).flatten(1)


class Pair(Classifier):
    def forward(self, x):
        return super().forward(x), x


class OnlyLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (OnlyLinear(768, 4), "must return the output of its last nn.Linear"),
        (nn.Sequential(nn.Conv2d(3, 5, 16), nn.Flatten()), "must end in an nn.Linear, got a network that runs none"),
        (Softmax(), "without a softmax"),
        (Bypass(), "must return the output of its last nn.Linear"),
        (Tokens(), "on one vector per image, got other values"),
        (Pair(), "must return a tensor of logits, got tuple"),
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 5)), r"cannot read images of shape \(3, 16, 16\)"),
    ],
)
def test_a_model_that_cannot_be_cut_is_told_why(model, message):
    with pytest.raises(NetworkError, match=message):
        as_network(model, images(2))


def test_values_that_are_not_finite_are_noticed():
    model = Classifier()
    with pytest.raises(DataError, match="example images must be finite"):
        as_network(model, images(2) / 0)
    model.out.bias.data[0] = torch.inf
    with pytest.raises(NetworkError, match="logits of classifier must be finite"):
        as_network(model, images(2))


def test_a_model_made_for_another_size_says_which():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    model.preprocessing = netsim.Preprocessing(size=8)
    with pytest.raises(
        NetworkError, match=r"cannot read images of shape \(3, 16, 16\) .*; it is made for 8 x 8 pixels$"
    ):
        as_network(model, images(1))
    assert as_network(model, images(1, (3, 8, 8))).width == 192


def test_head_paths_are_all_names_of_the_last_layer():
    assert as_network(Classifier(), images(1)).head_paths == ("out",)
    assert as_network(TwoNames(), images(1)).head_paths == ("out", "layers.1")


def test_a_sharing_copy_has_layers_of_its_own_and_the_same_tensors():
    model = Classifier()
    copy = sharing_copy(model)
    assert all(a is not b for a, b in zip(copy.modules(), model.modules(), strict=True))
    originals = model.state_dict()
    assert {name: tensor.data_ptr() for name, tensor in copy.state_dict().items()} == {
        name: tensor.data_ptr() for name, tensor in originals.items()
    }
    copy.out = nn.Identity()
    assert isinstance(model.out, nn.Linear)
