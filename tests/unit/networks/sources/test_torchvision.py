"""Networks of torchvision, with weights from its cache: nothing here reaches the network."""

import os

import pytest
import safetensors.torch
import torch
import torchvision
from torchvision.transforms import v2

from netsim.errors import NetworkError
from netsim.networks import load_network, parse_reference, weights_to_bytes
from netsim.networks.preprocessing import IMAGENET
from netsim.networks.sources.torchvision import (
    _preprocessing,
    _published_weights,
    torchvision_names,
    untrained_model,
)
from support.classifiers import images

TINY = (3, 64, 64)


def test_a_network_gives_what_torchvisions_own_gives_on_normalised_images():
    own = torchvision.models.shufflenet_v2_x0_5(weights=None).eval()
    network = load_network("torchvision:shufflenet_v2_x0_5@none", input_shape=TINY)
    own.load_state_dict(safetensors.torch.load(weights_to_bytes(network)))
    x = images(2, TINY)
    normalise = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.allclose(own(normalise(x)), network(x), atol=1e-5)


def test_normalisation_comes_with_the_weights():
    assert load_network("torchvision:efficientnet_v2_l@none", input_shape=TINY).mean.flatten().tolist() == [0.5] * 3


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
    assert all(way in message for way in (str(cache), "@FILE,", "@none"))
    assert capsys.readouterr().out == ""  # netsim prints JSON there


class Intruder:
    def __reduce__(self):
        return exec, ("import os; os.environ['INTRUDER'] = 'was here'",)


def test_a_pickle_in_the_cache_cannot_run_code(cache):
    weights = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    torch.save({"fc.weight": Intruder()}, cache / os.path.basename(weights.url))
    with pytest.raises(NetworkError, match="cannot download the weights"):
        load_network("torchvision:shufflenet_v2_x0_5")
    assert "INTRUDER" not in os.environ and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_the_wide_resnet_that_torchvision_lacks_is_twice_as_wide_inside_as_its_own():
    with torch.device("meta"):
        ours = untrained_model("wide_resnet50_4", 1000)
        theirs = torchvision.models.wide_resnet50_2()
    assert [ours.layer1[0].conv2.out_channels, theirs.layer1[0].conv2.out_channels] == [256, 128]
    assert ours.fc.weight.shape == theirs.fc.weight.shape
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_a_vision_transformer_is_built_for_its_size():
    with torch.device("meta"):
        assert untrained_model("vit_b_16", 10, 96).encoder.pos_embedding.shape == (1, 37, 768)
        assert untrained_model("vit_b_16", 10).encoder.pos_embedding.shape == (1, 197, 768)


def test_preprocessing_is_that_of_the_weights_and_of_the_default_ones_without():
    v1, v2 = (f"torchvision:resnet50@IMAGENET1K_V{version}" for version in (1, 2))
    assert _preprocessing(_published_weights(parse_reference(v1))).crop == 224 / 256
    assert _preprocessing(_published_weights(parse_reference(v2))).crop == 224 / 232
    for unpublished in ("@none", "@x.safetensors"):
        parsed = parse_reference(f"torchvision:resnet50{unpublished}")
        assert _preprocessing(_published_weights(parsed)).crop == 224 / 232
    assert _preprocessing(None) is IMAGENET


def test_names_are_those_of_classifiers():
    assert {"resnet50", "vit_b_16", "wide_resnet50_4"} <= set(torchvision_names())
    assert not {"fcn_resnet50", "fasterrcnn_resnet50_fpn", "r3d_18"} & set(torchvision_names())
