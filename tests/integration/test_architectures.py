"""Architectures of every kind, with random weights, from images to the matrices; and the invariant that all rest on."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from netsim.errors import NetworkError
from netsim.inversion.engine import relative_distance
from netsim.inversion.invert import invert_batches
from netsim.networks import Network, load_network
from netsim.planning.preflight import preflight
from netsim.planning.resolve import resolve
from netsim.results.findings import warnings
from netsim.results.matrices import sums_of
from netsim.results.results import load_results
from netsim.settings import InversionSettings, parse_settings
from netsim.stages import inputs
from netsim.store import layout
from support.sweeps import new_run, run_all

PAIRS = {"count": 8, "shard_size": 4}  # the least that the settings allow


def assert_linear(network: Network, x: torch.Tensor) -> None:
    """What enters the head is the representation, and W @ rep + b are the logits of the whole."""
    with torch.no_grad():
        representation = network.represent(x)
        logits = representation @ network.head.weight.T + network.head.bias
        assert torch.allclose(logits, network(x), rtol=1e-4, atol=1e-4 * float(logits.abs().max()))
    assert representation.shape == (len(x), network.width) and logits.shape == (len(x), network.num_classes)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> str:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in "ab":
        (folder / label).mkdir()
        for index in range(4):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((256, 256)).save(folder / label / f"{index}.png")
    return f"folder:{folder}"


@pytest.mark.parametrize(
    "networks",
    [
        ["torchvision:mobilenet_v2@none", "torchvision:shufflenet_v2_x1_0@none"],
        ["timm:mobilenetv3_small_050@none", "timm:vit_tiny_patch16_224@none"],
        ["timm:tf_efficientnet_lite0@none", "timm:convnext_atto@none"],
    ],
    ids=lambda names: "-".join(name.split(":")[1][:-5] for name in names),
)
def test_the_whole_pipeline_runs_on_it_at_224_px(networks, photos, tmp_path):
    settings = parse_settings(
        {
            "images": {"source": photos, "size": 224},
            "networks": networks,
            "pairs": PAIRS,
            "inversion": {"iterations": 1, "batch_size": 4},
        }
    )
    run = new_run(str(tmp_path / "run"), settings)
    run_all(run, only=("check", "train", "draw", "invert", "embed", "aggregate", "control"))
    x = inputs.set_images(run, "natural", 0)[0][:2]
    for name in settings.names:
        assert_linear(inputs.network(run, name), x)
        losses = run.array(f"inverted/{name}/losses")[...]
        assert np.isfinite(losses).all() and not layout.quantity(losses, "nonfinite").any()
        row = sums_of(run)[f"inverted/{name}"]
        assert all(np.isfinite(sums.square).all() and (sums.square > 0).all() for sums in row.values())
        recorded = run.record("train", name).facts["preprocessing"]
        assert recorded["size"] == 224 and len(recorded["mean"]) == 3
    inputs.kept_networks.clear()  # these are large
    assert "224 pixels a side" not in " ".join(warnings(load_results(run)))


@pytest.mark.parametrize(
    "reference",
    [
        "torchvision:resnet18@none",
        "torchvision:resnet50@none",
        "torchvision:densenet161@none",
        "torchvision:resnext50_32x4d@none",
        "torchvision:vgg16_bn@none",
        "torchvision:wide_resnet50_2@none",
        "torchvision:convnext_tiny@none",
        "torchvision:vit_b_16@none",
    ],
)
def test_a_large_one_is_cut_inverted_and_looked_at_as_stored_at_224_px(reference):
    """Two images and one step, by the functions of the stages: shards of them would take minutes."""
    network = load_network(reference, input_shape=(3, 224, 224)).eval()
    assert network.preprocessing.size == 224
    images = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert_linear(network, images[:1])
    found = invert_batches(network, *images.split(2), InversionSettings(iterations=1, step_size=0.125), use_best=True)
    assert (found.final_loss < found.initial_loss).all()  # one step of 1/8, a tenth of which counts at first
    assert found.distance.numpy() == pytest.approx(0.0125, rel=0.01)
    stored = torch.from_numpy(layout.from_stored(layout.to_stored(found.images.numpy(), "uint16")))
    seen, target = (inputs.represent(network, x).numpy() for x in (stored, images[2:]))
    assert relative_distance(*map(torch.from_numpy, (seen, target))).numpy() == pytest.approx(
        found.final_loss.numpy(), rel=1e-3
    )


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("torchvision:squeezenet1_1@none", "as SqueezeNet does, has none"),  # and a ReLU comes after its convolution
        ("timm:vit_tiny_patch16_224@none", r"shape \(3, 96, 96\) .*; it is made for 224 x 224 pixels"),
    ],
)
def test_what_cannot_be_cut_or_cannot_take_the_size_is_told_why(reference, message):
    with pytest.raises(NetworkError, match=message):
        load_network(reference, input_shape=(3, 96, 96))


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (
            "timm:vit_tiny_patch16_224",
            NetworkError,
            r"vit_tiny_patch16_224 cannot read images of shape \(3, 96, 96\).* 224 x 224",
        ),
        ("robust:resnet18_l2_eps3", NetworkError, "netsim convert robust:resnet18_l2_eps3"),
        ("timm:test_resnet", None, ""),  # a download waits
    ],
)
def test_what_does_not_fit_is_said_before_work_starts(network, error, message, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("NETSIM_WEIGHTS", str(tmp_path))
    networks = [network, "torchvision:shufflenet_v2_x0_5@none"]
    settings = parse_settings({"images": {"source": photos, "size": 96}, "networks": networks, "pairs": PAIRS})
    with pytest.raises(error, match=message) if error else nullcontext():
        preflight(resolve(settings, str(tmp_path / "run")))


def test_two_heads_that_are_averaged_are_not_one():
    with pytest.raises(NetworkError, match="two heads that are averaged"):
        load_network("timm:deit_tiny_distilled_patch16_224@none")
