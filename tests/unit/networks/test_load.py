"""Networks: the cut at the last linear layer, where networks come from, their weights as bytes."""

import dataclasses
import importlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn
from torchvision.transforms import v2

import netsim
from netsim.errors import DataError, NetworkError, SettingsError
from netsim.inversion.engine import Engine
from netsim.networks import (
    as_network,
    content_hash,
    load_network,
    load_weights,
    needs_training,
    parse_reference,
    weights_to_bytes,
)
from netsim.networks.load import MODULES
from netsim.references import NETWORK_FORMS

TINY = (3, 64, 64)
LITTLE = "torchvision:shufflenet_v2_x0_5@none"  # the cheapest of torchvision's


def images(count: int, shape: tuple[int, int, int] = (3, 16, 16)) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


class Classifier(nn.Module):
    """Convolution, BatchNorm, dropout, two linear layers: something of everything that a cut could disturb."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.hidden = nn.Linear(32, 12)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(12, classes)

    def forward(self, x):
        return self.out(self.drop(self.hidden(self.features(x).flatten(1)).relu()))


# ---- the cut


def test_a_network_gives_what_torchvisions_own_gives_on_normalised_images():
    own = torchvision.models.shufflenet_v2_x0_5(weights=None).eval()
    network = load_network(LITTLE, input_shape=TINY)
    own.load_state_dict(safetensors.torch.load(weights_to_bytes(network)))
    x = images(2, TINY)
    normalise = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.allclose(own(normalise(x)), network(x), atol=1e-5)


def test_normalisation_comes_with_the_weights():
    assert load_network("torchvision:efficientnet_v2_l@none", input_shape=TINY).mean.flatten().tolist() == [0.5] * 3


class OfCaffe(Classifier):
    """It takes what Caffe's networks do: blue first, and 255 for white, less the mean."""

    preprocessing = netsim.Preprocessing(mean=(103.9, 116.8, 123.7), std=(1.0, 2.0, 3.0), largest=255, order="BGR")


def test_a_module_says_its_range_and_order_of_channels_and_pixels_stay_as_they_are():
    model, x = OfCaffe().eval(), images(3)
    network = as_network(model, images(1))
    mean, std = torch.tensor([103.9, 116.8, 123.7]), torch.tensor([1.0, 2.0, 3.0])
    by_hand = (255 * x.flip(1) - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        assert torch.allclose(network(x), model(by_hand), rtol=1e-5, atol=1e-4)
        assert torch.allclose(Engine(network, x, batch_size=3).represent(x), network.represent(x), rtol=1e-4, atol=1e-4)
    plain = Classifier().eval()
    plain.load_state_dict(model.state_dict())
    assert content_hash(as_network(plain, images(1))) != content_hash(network)
    rgb = dataclasses.replace(OfCaffe.preprocessing, order="RGB")
    model.preprocessing = rgb
    assert content_hash(as_network(model, images(1))) != content_hash(network)
    with pytest.raises(NetworkError, match="requires images of 3 channels, got 4"):
        as_network(model, torch.rand(1, 4, 16, 16))


@pytest.mark.parametrize(
    ("expects", "black", "white"),
    [
        (netsim.Preprocessing(largest=255), 0, 255),
        (netsim.Preprocessing(largest=255, mean=(100, 100, 100)), -100, 155),
        (netsim.Preprocessing(std=(0.5, 0.5, 0.5)), 0, 2),
        (netsim.Preprocessing(), 0, 1),
    ],
)
def test_what_a_module_does_not_say_changes_nothing(expects, black, white):
    model = Classifier()
    model.preprocessing = expects
    network = as_network(model, images(1))
    for pixel, expected in ((0, black), (1, white)):
        given = network.normalised(torch.full((1, 3, 16, 16), float(pixel)))
        torch.testing.assert_close(given, torch.full_like(given, expected))


def test_images_in_minus_one_to_one_are_a_mean_and_a_std_of_one_half():
    assert load_network("timm:mixer_s32_224@none").mean.flatten().tolist() == [0.5] * 3


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


def test_wrappers_are_looked_through():
    model = Classifier().eval()
    for wrapped in (nn.DataParallel(model), torch.compile(model)):
        x = images(3).to(model.out.weight.device)  # DataParallel moves the model to a GPU that is there
        assert torch.equal(as_network(wrapped, images(1))(x), model(x))


class Normalizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("new_mean", torch.tensor([0.1, 0.2, 0.3])[:, None, None])
        self.register_buffer("new_std", torch.tensor([0.4, 0.5, 0.6])[:, None, None])

    def forward(self, x):
        return (x.clamp(0, 1) - self.new_mean) / self.new_std


class AttackerModel(nn.Module):
    """The shape of robustness.attacker.AttackerModel; tests/integration/test_parity.py has the real one."""

    def __init__(self, model):
        super().__init__()
        self.normalizer, self.model = Normalizer(), model

    def forward(self, x):
        return self.model(self.normalizer(x)), x


def test_an_attacker_model_keeps_its_normalisation():
    attacker = AttackerModel(Classifier()).eval()
    assert torch.equal(as_network(attacker, images(1))(images(3)), attacker(images(3))[0])


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_pixels_at_the_bounds_of_the_box_are_not_clamped(bound):
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


@pytest.mark.parametrize(
    ("model", "message"),
    [
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


# ---- references


@pytest.mark.parametrize(
    ("reference", "source", "name", "weights", "file", "trains"),
    [
        ("small:vgg", "small", "vgg", None, None, True),
        ("small:vgg@none", "small", "vgg", "none", None, False),
        ("small:vgg@a/b.safetensors", "small", "vgg", "a/b.safetensors", "a/b.safetensors", False),
        ("torchvision:resnet50", "torchvision", "resnet50", None, None, False),
        ("torchvision:resnet50@IMAGENET1K_V1", "torchvision", "resnet50", "IMAGENET1K_V1", None, False),
        ("timm:resnet18@a1_in1k", "timm", "resnet18", "a1_in1k", None, False),
        ("timm:flexivit_base@1200ep_in1k", "timm", "flexivit_base", "1200ep_in1k", None, False),
        ("timm:resnet18@a1.safetensors", "timm", "resnet18", *["a1.safetensors"] * 2, False),
        ("robust:vgg16_bn_l2_eps3", "robust", "vgg16_bn_l2_eps3", None, "weights/vgg16_bn_l2_eps3.safetensors", False),
        ("robustness:cifar:resnet50@x", "robustness", "cifar:resnet50", "x", "x", False),
        ("torchvision:resnet50@s3://b/x.safetensors", "torchvision", "resnet50", *["s3://b/x.safetensors"] * 2, False),
        ("python:lab.models:tiny@x", "python", "lab.models:tiny", "x", "x", False),
    ],
)
def test_references_say_source_name_and_weights(reference, source, name, weights, file, trains, monkeypatch):
    monkeypatch.setenv("NETSIM_WEIGHTS", "weights")
    parsed = parse_reference(reference)
    assert (parsed.source, parsed.name, parsed.weights, parsed.file) == (source, name, weights, file)
    assert needs_training(reference) == trains


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("torchvison:resnet50", "did you mean 'torchvision'"),
        ("resnet50", "no source 'resnet50'"),
        ("torchvision:resnet5", "did you mean 'resnet50'"),
        ("torchvision:fcn_resnet50", "no torchvision network"),  # that one segments
        ("small:resnet20", "did you mean 'resnet"),
        ("timm:resnet19", "did you mean 'resnet18'"),
        ("timm:resnet18.a1_in1k", "must have its weights after an @: write 'timm:resnet18@a1_in1k'"),
        ("timm:resnet18@a1_in2k", "did you mean 'a1_in1k'"),
        ("timm:vit_small_patch14_dinov2", "have no classes: their last layer is missing"),
        ("timm:zzzzzz", "known are aimv2_1b_patch14_224, .* and 1,"),
        ("torchvision:resnet50@IMAGENET1K_V3", "did you mean 'IMAGENET1K_V"),
        ("torchvision:wide_resnet50_4", "write @none or @FILE"),
        ("torchvision:resnet50@", "incomplete"),
        ("small", "incomplete"),
        ("python:lab.models", "python:module:function"),
        ("python:no_such_module:f", "PYTHONPATH"),
        ("python:netsim.networks.sources.small:restnet18", "did you mean 'resnet18'"),
    ],
)
def test_a_reference_that_does_not_exist_is_answered_with_what_does(reference, message):
    with pytest.raises(SettingsError, match=message):
        load_network(reference)


def test_published_weights_fix_the_number_of_classes():
    with pytest.raises(SettingsError, match=r"num_classes must be 1000 for the weights .*, got 10"):
        load_network("torchvision:resnet18", num_classes=10)
    with pytest.raises(SettingsError, match=r"num_classes of .* must be 10, got 3\. Omit num_classes"):
        load_network("python:netsim.networks.sources.small:vgg", num_classes=3, input_shape=(1, 28, 28))


def test_random_weights_are_the_same_everywhere_and_leave_the_random_numbers_alone():
    torch.manual_seed(1)
    first = content_hash(load_network("small:resnet18@none"))
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert drawn == torch.rand(1)
    assert content_hash(load_network("small:resnet18")) == first
    assert load_network("small:resnet18").body.conv1.weight.flatten()[:3].tolist() == pytest.approx(
        [0.099587, 0.162128, 0.101954], rel=1e-4
    )
    assert content_hash(load_network("small:resnet18", rng_seed=1)) != first


def test_random_weights_are_the_same_when_several_threads_draw_them_at_once():
    references = ["small:resnet18@none", "small:vgg@none"] * 8
    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(lambda reference: content_hash(load_network(reference)), references))
    assert len(set(hashes)) == 2


def test_a_function_of_the_users_can_return_a_network(tmp_path, monkeypatch):
    (tmp_path / "lab_models.py").write_text(
        "from torchvision.models import shufflenet_v2_x0_5\n"
        "def tiny():\n    return shufflenet_v2_x0_5(num_classes=3)\n"
        "def wrong():\n    return 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = load_network("python:lab_models:tiny", input_shape=TINY)
    assert (network.name, network.num_classes, network.mean.flatten().tolist()) == ("tiny", 3, [0, 0, 0])
    file = tmp_path / "tiny.safetensors"
    file.write_bytes(weights_to_bytes(network))
    network.head.weight.zero_()
    again = load_network(f"python:lab_models:tiny@{file}", input_shape=TINY)
    assert again.head.weight.abs().sum() > 0
    with pytest.raises(NetworkError, match=r"must return a torch\.nn\.Module, got int"):
        load_network("python:lab_models:wrong")


def test_a_network_that_its_file_makes_another_function_is_cut_with_its_weights(tmp_path, monkeypatch):
    """With the temperature that it begins with, the last layer makes the logits; with that of the file, it does not."""
    (tmp_path / "tempered.py").write_text(TEMPERED)
    monkeypatch.syspath_prepend(tmp_path)
    network = load_network("python:tempered:network", input_shape=TINY)
    tensors = safetensors.torch.load(weights_to_bytes(network))
    safetensors.torch.save_file(tensors, tmp_path / "same.safetensors")
    again = load_network(f"python:tempered:network@{tmp_path}/same.safetensors", input_shape=TINY)
    assert content_hash(again) == content_hash(network)
    safetensors.torch.save_file(tensors | {"temperature": torch.tensor(4.0)}, tmp_path / "other.safetensors")
    with pytest.raises(NetworkError, match=r"must return the output of its last nn\.Linear on one vector per image"):
        load_network(f"python:tempered:network@{tmp_path}/other.safetensors", input_shape=TINY)


TEMPERED = """
import torch

class Tempered(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 5)
        self.temperature = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.out(self.conv(x).mean((2, 3))) / self.temperature

network = Tempered
"""


def test_images_of_another_shape_than_the_network_reads_are_refused():
    with pytest.raises(NetworkError, match="requires images of 1 channels, got 3"):
        load_network("small:vgg", input_shape=(3, 28, 28))


# ---- weights


def test_a_file_of_weights_gives_back_the_network_that_wrote_it(tmp_path):
    file = tmp_path / "x.safetensors"
    network = load_network("small:mobilenet", num_classes=4, rng_seed=3)
    file.write_bytes(weights_to_bytes(network))
    for classes in (None, 4):  # None: what the file says
        again = load_network(f"small:mobilenet@{file}", num_classes=classes)
        assert content_hash(again) == content_hash(network)
    assert content_hash(load_network(f"small:mobilenet@file://{file}")) == content_hash(network)
    with pytest.raises(NetworkError, match=r"misshapen classifier\.1\.bias \(4,\) instead of \(5,\)"):
        load_network(f"small:mobilenet@{file}", num_classes=5)


def test_tensors_that_do_not_fit_are_named():
    network = load_network("small:vgg")
    good = safetensors.torch.load(weights_to_bytes(network))
    before = content_hash(network)

    def message(**changes):
        tensors = {name.replace("-", "."): tensor for name, tensor in (good | changes).items() if tensor is not None}
        with pytest.raises(NetworkError) as caught:
            load_weights(network, safetensors.torch.save(tensors), origin="x.safetensors")
        assert content_hash(network) == before
        return str(caught.value)

    assert message(**{"classifier.6.bias": None}) == (
        "x.safetensors must have the tensors of small:vgg, got missing classifier.6.bias"
    )
    assert "surplus extra" in message(extra=torch.zeros(1))
    assert "misshapen classifier.6.bias (3,) instead of (10,)" in message(**{"classifier.6.bias": torch.zeros(3)})
    assert "not finite classifier.6.bias" in message(**{"classifier.6.bias": torch.full((10,), torch.nan)})
    gone = {name: None for name in good if name.startswith("features")}
    names = "features.0.weight, features.1.bias, features.1.running_mean"
    assert f"missing {names} and 26 more" in message(**gone)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("my tool", None),
        ("[1, 2]", None),
        ('{"mean": 0.5, "std": 0.5}', r"mean in the metadata of the weights must be a list of numbers, got 0.5"),
    ],
)
def test_an_entry_of_netsims_name_that_somebody_else_made_is_passed_over_or_refused(tmp_path, entry, message):
    file = tmp_path / "x.safetensors"
    tensors = safetensors.torch.load(weights_to_bytes(load_network("small:vgg")))
    file.write_bytes(safetensors.torch.save(tensors, {"netsim": entry}))
    if message is None:
        load_network(f"small:vgg@{file}")
    else:
        with pytest.raises(NetworkError, match=message):
            load_network(f"small:vgg@{file}")


def test_weights_of_eight_bits_are_read():
    network = load_network("small:vgg")
    tensors = safetensors.torch.load(weights_to_bytes(network))
    short = tensors["classifier.6.weight"].to(torch.float8_e4m3fn)
    load_weights(network, safetensors.torch.save(tensors | {"classifier.6.weight": short}))
    assert torch.equal(network.head.weight, short.float())


def test_files_from_before_batchnorm_counted_still_fit():
    network = load_network("small:vgg")
    tensors = safetensors.torch.load(weights_to_bytes(network))
    load_weights(
        network, safetensors.torch.save({k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")})
    )


def test_a_pickle_is_not_read(tmp_path):
    torch.save(load_network("small:vgg").state_dict(), tmp_path / "x.pth")
    with pytest.raises(NetworkError, match=r"must be a safetensors file .* a pickle can run code"):
        load_network(f"small:vgg@{tmp_path}/x.pth")


@pytest.mark.parametrize("url", ["nowhere/x.safetensors", "nosuchprotocol://x.safetensors"])
def test_a_file_that_cannot_be_read_is_named(url):
    with pytest.raises(NetworkError, match=f"cannot read the weights '{url}'"):
        load_network(f"small:vgg@{url}")


def test_one_bit_makes_another_hash():
    network = load_network("small:vgg")
    hashes = [content_hash(network)]
    assert content_hash(load_network("small:vgg")) == hashes[0]
    network.head.bias.view(torch.int32)[0] ^= 1
    hashes.append(content_hash(network))
    network.head.bias.view(torch.int32)[0] ^= 1
    assert content_hash(network) == hashes[0]
    network.mean[0] += 0.1  # other normalisation, other network
    hashes.append(content_hash(network))
    network.double()
    hashes.append(content_hash(network))
    assert len(set(hashes)) == 4


def test_memory_layout_does_not_change_the_hash():
    network = load_network("small:resnet18")
    before = content_hash(network)
    assert content_hash(network.to(memory_format=torch.contiguous_format)) == before


# ---- torchvision's weights, from its cache: nothing here reaches the network


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch.hub's, and a proxy where nobody listens."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_published_weights_are_taken_from_torchs_cache(cache, capsys):
    weights = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    random = torchvision.models.shufflenet_v2_x0_5(weights=None)
    torch.save(random.state_dict(), cache / os.path.basename(weights.url))
    network = load_network("torchvision:shufflenet_v2_x0_5", input_shape=TINY)
    assert torch.equal(network.head.weight, random.fc.weight)
    assert capsys.readouterr().out == ""


def test_weights_that_cannot_be_downloaded_leave_three_ways_out(cache, capsys):
    with pytest.raises(NetworkError) as caught:
        load_network("torchvision:shufflenet_v2_x0_5")
    message = str(caught.value)
    assert "IMAGENET1K_V1 of shufflenet_v2_x0_5" in message
    assert all(way in message for way in (str(cache), "@FILE.safetensors", "@none"))
    assert capsys.readouterr().out == ""  # netsim prints JSON there


class Intruder:
    def __reduce__(self):
        return exec, ("import os; os.environ['INTRUDER'] = 'was here'",)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the Hugging Face hub, which is told that there is no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_weights_of_timm_are_taken_from_the_cache_of_the_hub(hub):
    own = timm.create_model("test_resnet", pretrained=False)
    folder = hub / "models--timm--test_resnet.r160_in1k"
    for path, content in (("refs/main", b"1234"), ("snapshots/1234/model.safetensors", None)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content or safetensors.torch.save(own.state_dict()))
    for reference in ("timm:test_resnet", "timm:test_resnet@r160_in1k"):
        network = load_network(reference)
        assert torch.equal(network.head.weight, own.fc.weight)
        assert (network.preprocessing.size, network.preprocessing.crop) == (160, 0.95)
    with pytest.raises(
        SettingsError, match="num_classes must be 1000 for the weights r160_in1k of test_resnet, got 10"
    ):  # timm would draw another head, silently
        load_network("timm:test_resnet", num_classes=10)
    assert load_network("timm:test_resnet@none", num_classes=10).num_classes == 10


def test_weights_of_timm_that_cannot_be_downloaded_leave_three_ways_out(hub):
    with pytest.raises(NetworkError) as caught:
        load_network("timm:test_resnet")
    message = str(caught.value)
    assert "cannot download the weights r160_in1k of test_resnet" in message and "timm/test_resnet.r160_in1k" in message
    assert all(way in message for way in ("hf download", "HF_HOME", "@FILE.safetensors", "@none"))


def test_every_source_has_its_line_and_its_place_in_the_documentation():
    assert list(NETWORK_FORMS) == list(MODULES)
    text = (Path(__file__).parents[3] / "docs" / "networks.md").read_text().replace("\\|", "|")
    assert [form for form, _ in NETWORK_FORMS.values() if f"`{form}`" not in text] == []


def test_a_pickle_in_the_cache_cannot_run_code(cache):
    weights = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    torch.save({"fc.weight": Intruder()}, cache / os.path.basename(weights.url))
    with pytest.raises(NetworkError, match="cannot download the weights"):
        load_network("torchvision:shufflenet_v2_x0_5")
    assert "INTRUDER" not in os.environ and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("def f(:", SettingsError, "cannot import 'lab_fault': SyntaxError"),
        ("1 / 0", SettingsError, "cannot import 'lab_fault': ZeroDivisionError"),
        ("import sys; sys.exit(0)", SettingsError, "cannot import 'lab_fault': SystemExit"),
        (
            "import no_such_module_here",
            SettingsError,
            "cannot import 'lab_fault': 'no_such_module_here' is missing. Install it",
        ),
        (
            "def f(): raise RuntimeError('no such checkpoint')",
            NetworkError,
            "lab_fault:f failed: RuntimeError: no such checkpoint",
        ),
        ("import sys\ndef f(): sys.exit(0)", NetworkError, "lab_fault:f failed: SystemExit"),
        ("def f(size): return None", NetworkError, "lab_fault:f failed: TypeError: .*missing 1 required"),
        (
            "import torch\nclass N(torch.nn.Linear):\n    def forward(self, x): raise KeyError('boom')\n"
            "def f(): return N(1, 1)",
            NetworkError,
            r"cannot read images of shape .* \(KeyError: 'boom'\)",
        ),
    ],
)
def test_faults_in_the_users_own_code_are_named_and_end_nothing_else(tmp_path, monkeypatch, code, error, message):
    """sys.exit(0) in it would have ended `netsim run` with success, and nothing done."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lab_fault", raising=False)
    (tmp_path / "lab_fault.py").write_text(code)
    importlib.invalidate_caches()
    with pytest.raises(error, match=message):
        load_network("python:lab_fault:f")
