"""Networks of timm, with weights from the cache of the Hugging Face hub: nothing here reaches the network."""

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch

from netsim.errors import NetworkError, SettingsError
from netsim.networks import load_network, parse_reference
from netsim.networks.sources.timm import _config, _preprocessing, timm_names


def test_images_in_minus_one_to_one_are_a_mean_and_a_std_of_one_half():
    assert load_network("timm:mixer_s32_224@none").mean.flatten().tolist() == [0.5] * 3


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
    assert all(way in message for way in ("hf download", "HF_HOME", "@FILE,", "@none"))


def test_preprocessing_is_that_of_the_tag_and_of_the_default_one_without():
    sizes = {}
    for reference in (
        "timm:vit_base_patch16_384",
        "timm:resnet50@tv_in1k",
        "timm:resnet50@a1_in1k",
        "timm:resnet50@none",
    ):
        preprocessing = _preprocessing(_config(parse_reference(reference)))
        sizes[reference.removeprefix("timm:")] = (preprocessing.size, preprocessing.crop, preprocessing.interpolation)
    assert sizes == {
        "vit_base_patch16_384": (384, 1.0, "bicubic"),
        "resnet50@tv_in1k": (224, 0.875, "bilinear"),
        "resnet50@a1_in1k": (224, 0.95, "bicubic"),
        "resnet50@none": (224, 0.95, "bicubic"),
    }


def test_names_are_architectures_without_tags():
    assert "resnet50" in timm_names() and not any("." in name for name in timm_names())
