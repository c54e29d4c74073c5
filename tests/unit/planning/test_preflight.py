"""Preflight: everything that would make a sweep fail is found before it starts."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from netsim.errors import DataError, NetworkError, SettingsError
from netsim.images import load_images
from netsim.networks import load_network, load_once
from netsim.planning.preflight import build_network, preflight
from netsim.planning.resolve import resolve
from netsim.settings import SweepSettings
from support.sweeps import tiny


def check(settings: SweepSettings) -> None:
    preflight(resolve(settings, "runs/none"))


def test_a_sweep_that_can_run_passes():
    check(tiny())


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
        check(tiny(**changes))


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


FAULTY = """
import random
import torch
from torch import nn


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))


class Batch(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x - x.mean(0))


class Broken(Batch):
    def forward(self, x):
        assert x.is_cuda, "no GPU"


def sound(): return net()
def batch(): return Batch()
def broken(): return Broken()
def double(): return net().double()
def half(): return net().half()
def drawn():
    model = net()
    model[1].weight.data.mul_(random.random())
    return model
def small(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    (tmp_path / "lab_faulty.py").write_text(FAULTY)
    monkeypatch.delitem(sys.modules, "lab_faulty", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda *names: tiny(networks=[f"{name}=python:lab_faulty:{name}" for name in names])


def counting(function: Callable[[], torch.nn.Module], calls: list[None]) -> Callable[[], torch.nn.Module]:
    """Return the function, noting each call."""

    def counted() -> torch.nn.Module:
        calls.append(None)
        return function()

    return counted


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("batch", NetworkError, "^batch must represent each image by itself"),
        ("broken", NetworkError, r"^broken cannot read images of shape \(1, 28, 28\) \(AssertionError: no GPU\)$"),
        ("double", NetworkError, "^images for python:lab_faulty:double must be float64, .* got float32"),
        ("half", NetworkError, "^weights of half must be float32 or float64"),
        ("drawn", NetworkError, "^python:lab_faulty:drawn must give the same network at every call"),
        ("small", DataError, "^python:lab_faulty:small has 3 outputs but the images have 10 classes"),
    ],
)
def test_one_faulty_network_is_named_beside_a_sound_one(faulty, name, error, message):
    with pytest.raises(error, match=message):
        check(faulty("sound", name))


def test_the_faults_of_all_networks_are_in_one_error(faulty):
    with pytest.raises(NetworkError) as refused:
        check(faulty("batch", "sound", "broken", "small"))
    first, *others = str(refused.value).splitlines()
    assert first == "3 of 4 networks cannot be used:"
    assert [line.split(":")[0] for line in others] == ["  batch", "  broken", "  small"]
    with pytest.raises(SettingsError, match="2 of 2 networks cannot be used") as refused:
        check(tiny(networks=["small:vg", "small:resnet81"]))
    assert "did you mean 'vgg'" in str(refused.value) and "did you mean 'resnet18'" in str(refused.value)


def test_resolving_calls_a_function_twice_and_preflight_once(faulty, monkeypatch):
    sweep = resolve(faulty("sound", "small"), "runs/none")
    calls: list[None] = []
    monkeypatch.setattr(sys.modules["lab_faulty"], "net", counting(sys.modules["lab_faulty"].net, calls))
    preflight(sweep, ["sound"])
    assert len(calls) == 1
    images = load_images("fashion-mnist")
    assert build_network("python:lab_faulty:drawn", images, classes=10, load=load_once).width == 16
