"""Preflight: everything that would make a sweep fail is found before it starts."""

import numpy as np
import pytest
import torch

from netsim.errors import DataError, NetworkError, SettingsError
from netsim.images import load_images
from netsim.networks import load_network
from netsim.planning.preflight import build_network, preflight
from support.sweeps import tiny


def test_a_sweep_that_can_run_passes():
    preflight(tiny())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"networks": ["small:vgg", "small:resnet81"]}, SettingsError, "did you mean 'resnet18'"),
        ({"images": {"source": "fashion-mnits"}}, SettingsError, "did you mean 'fashion-mnist'"),
        ({"images": {"size": 16}}, SettingsError, "size of fashion-mnist images must be 28, got 16"),
        ({"pairs": {"count": 4096}}, DataError, "4096"),
        ({"networks": ["small:vgg", "small:resnet18@missing.safetensors"]}, NetworkError, "missing.safetensors"),
    ],
)
def test_a_sweep_that_would_fail_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        preflight(tiny(**changes))


def test_a_network_that_would_be_trained_has_an_output_per_class_and_random_weights():
    images = load_images("fashion-mnist")
    network = build_network("small:vgg", images, classes=7)
    random = load_network("small:vgg@none", num_classes=7, input_shape=images.shape)
    assert network.num_classes == 7
    for name, weight in random.state_dict().items():
        assert torch.equal(weight, network.state_dict()[name])


def test_a_network_with_published_weights_is_built_without_a_download(monkeypatch, tmp_path):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    images = load_images("fashion-mnist")
    rgb = type(images)(
        "rgb", np.repeat(np.asarray(images.read(np.arange(8))), 3, axis=1).repeat(2, 2).repeat(2, 3),
        images.labels[:8], images.classes,
    )  # fmt: skip
    network = build_network("torchvision:mobilenet_v2", rgb, classes=10)
    assert network.num_classes == 1000 and not any(tmp_path.iterdir())
