"""References: what they name, what is wrong with those that name nothing, and random weights."""

from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import torch

from netsim.errors import NetworkError, SettingsError
from netsim.networks import (
    content_hash,
    load_network,
    needs_download,
    needs_training,
    parse_reference,
    untrained,
    weights_to_bytes,
)
from netsim.networks.load import MODULES
from netsim.networks.tensor_files import NeedsPickleError
from netsim.networks.weights import named_tensors
from netsim.references import NETWORK_FORMS

TINY = (3, 64, 64)


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
        ("python:/a%40b/lab.models:tiny@x", "python", "lab.models:tiny", "x", "x", False),
        ("small:vgg@a/x.pt#ema", "small", "vgg", "a/x.pt#ema", "a/x.pt", False),
        ("timm:resnet18@x.ckpt#model.net", "timm", "resnet18", "x.ckpt#model.net", "x.ckpt", False),
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


def test_every_source_has_its_line_and_its_place_in_the_documentation():
    assert list(NETWORK_FORMS) == list(MODULES)
    text = (Path(__file__).parents[3] / "docs/howto/networks.md").read_text().replace("\\|", "|")
    assert [form for form, _ in NETWORK_FORMS.values() if f"`{form}`" not in text] == []


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


# ---- weights in a file


def saved_vgg(rng_seed: int, prefix: str = "") -> dict[str, torch.Tensor]:
    tensors = named_tensors(load_network("small:vgg@none", rng_seed=rng_seed))
    return {f"{prefix}{name}": tensor.detach().contiguous() for name, tensor in tensors.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "net.", "model.", "model._orig_mod.", "backbone."])
@pytest.mark.parametrize("nested", [False, True])
def test_a_checkpoint_of_ones_own_is_loaded_whatever_its_weights_are_wrapped_in(tmp_path, prefix, nested):
    weights = saved_vgg(1, prefix)
    content = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}, "state_dict": weights}
    torch.save(content if nested else weights, tmp_path / "x.ckpt")
    network = load_network(f"small:vgg@{tmp_path}/x.ckpt")
    assert content_hash(network) == content_hash(load_network("small:vgg@none", rng_seed=1))
    key = ".".join([*(["state_dict"] if nested else []), prefix]).strip(".")
    assert dict(network.origin) == ({"key": key} if key else {})


def test_a_prefix_is_found_in_safetensors_as_in_any_other_file(tmp_path):
    safetensors.torch.save_file(saved_vgg(1, "module."), tmp_path / "x.safetensors")
    network = load_network(f"small:vgg@{tmp_path}/x.safetensors")
    assert content_hash(network) == content_hash(load_network("small:vgg@none", rng_seed=1))


def test_of_raw_and_averaged_weights_the_reference_chooses(tmp_path):
    torch.save({"model": saved_vgg(1), "model_ema": saved_vgg(2, "module.")}, tmp_path / "x.pt")
    reference = f"small:vgg@{tmp_path}/x.pt"
    with pytest.raises(
        SettingsError, match=r"got 2 that differ: 'model', 'model_ema\.module'\. Choose one, as in @"
    ) as e:
        load_network(reference)
    assert str(e.value).endswith(f"as in @{tmp_path}/x.pt#model_ema.module")
    for key, rng_seed in (("model", 1), ("model_ema", 2), ("model_ema.module", 2)):
        network = load_network(f"{reference}#{key}")
        assert content_hash(network) == content_hash(load_network("small:vgg@none", rng_seed=rng_seed))
    with pytest.raises(SettingsError, match=r"no tensors under 'ema' in .*x\.pt; known are model, model_ema$"):
        load_network(f"{reference}#ema")


def test_of_weights_that_do_not_fit_the_keys_in_the_file_are_listed(tmp_path):
    content = {"encoder": saved_vgg(1), "ema": {"w": torch.ones(1)}, "epoch": 3}
    del content["encoder"]["features.0.weight"]
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(
        NetworkError,
        match=r"x\.pt under 'encoder' must have the tensors of small:vgg@.*, got missing features\.0\.weight\. "
        r".*x\.pt has tensors under ema, encoder$",
    ):
        load_network(f"small:vgg@{tmp_path}/x.pt")


def test_a_checkpoint_that_needs_pickle_says_how_to_convert_it(tmp_path):
    torch.save({"state_dict": saved_vgg(1), "args": Namespace(width=1)}, tmp_path / "x y.pt")
    with pytest.raises(
        NeedsPickleError, match=r"got argparse\.Namespace, and a pickle of those can run code"
    ) as caught:
        load_network(f"small:vgg@{tmp_path}/x y.pt")
    assert str(caught.value).endswith(f"convert it once: netsim convert small:vgg '{tmp_path}/x y.pt'")


def test_the_normalisation_that_robustness_saves_comes_with_plain_tensors_too(tmp_path):
    both = saved_vgg(1, "module.model.") | {f"module.normalizer.new_{kind}": torch.full((1, 1, 1), value)
                                            for kind, value in (("mean", 0.25), ("std", 0.75))}  # fmt: skip
    torch.save({"model": both}, tmp_path / "x.pt")
    network = load_network(f"small:vgg@{tmp_path}/x.pt")
    assert (network.mean.item(), network.std.item()) == (0.25, 0.75)


def test_weights_of_another_number_of_classes_set_it(tmp_path):
    tensors = named_tensors(load_network("small:vgg@none", num_classes=3))
    torch.save({"net": {name: tensor.detach() for name, tensor in tensors.items()}}, tmp_path / "x.pt")
    assert load_network(f"small:vgg@{tmp_path}/x.pt").num_classes == 3


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


@pytest.mark.parametrize(
    ("reference", "downloads"),
    [
        ("torchvision:resnet18", True),
        ("torchvision:resnet18@IMAGENET1K_V1", True),
        ("torchvision:resnet18@none", False),
        ("torchvision:resnet18@x.safetensors", False),
        ("timm:resnet18@a1_in1k", True),
        ("robust:resnet18_l2_eps3", False),
        ("small:vgg", False),
        ("python:lab:tiny", False),
    ],
)
def test_only_published_weights_are_downloaded(reference, downloads):
    assert needs_download(reference) == downloads


@pytest.mark.parametrize("reference", ["small:vgg", "small:vgg@none", "small:vgg@a@b.safetensors"])
def test_the_untrained_network_is_the_architecture_with_random_weights(reference):
    assert untrained(reference) == "small:vgg@none"
