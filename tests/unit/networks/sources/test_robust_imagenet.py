"""The robust ImageNet networks of Salman et al.: names, architectures, and where their files are."""

from pathlib import Path

import pytest
import torch
import torchvision

from netsim.errors import NetworkError, SettingsError
from netsim.networks import load_network
from netsim.networks.sources._robustness_compat import import_robustness
from netsim.networks.sources.base import Reference
from netsim.networks.sources.robust_imagenet import ARCHITECTURES, NAMES, build, find_file

robustness = import_robustness()
SHUFFLENET = "robust:shufflenet_l2_eps3"


def test_the_published_networks_are_sixty_seven():
    assert len(NAMES) == 67 and len(ARCHITECTURES) == 10
    assert {"resnet50_l2_eps0.25", "wide_resnet50_4_l2_eps0", "resnet18_linf_eps8.0", "mnasnet_l2_eps3"} <= set(NAMES)
    assert not {"densenet_l2_eps1", "wide_resnet50_4_linf_eps4.0", "resnet50_l2_eps3.0"} & set(NAMES)


@pytest.mark.parametrize("name", sorted(set(NAMES.values()) - {"wide_resnet50_2", "wide_resnet50_4"}))
def test_published_checkpoints_have_the_names_of_the_architecture_they_are_read_into(name):
    """Six were torchvision's in a DummyModel, four robustness's own: here by name and shape, without the numbers."""
    with torch.device("meta"):
        own = torchvision.models.get_model(ARCHITECTURES[name], weights=None, num_classes=1000).state_dict()
        theirs = vars(robustness.imagenet_models).get(name)
        theirs = theirs(num_classes=1000).state_dict() if theirs and name.startswith("resnet") else own
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """The folder of weights."""
    monkeypatch.setenv("NETSIM_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_a_robust_network_that_is_not_there_says_the_command_that_makes_it(weights):
    with pytest.raises(NetworkError) as caught:
        load_network(SHUFFLENET)
    message = str(caught.value)
    assert str(weights / "shufflenet_l2_eps3.safetensors") in message
    assert "netsim convert robust:shufflenet_l2_eps3" in message and "NETSIM_WEIGHTS" in message
    with pytest.raises(SettingsError, match="did you mean 'shufflenet_l2_eps3'"):
        load_network("robust:shufflenet_l2_eps3.0")
    with pytest.raises(SettingsError, match="write 'torchvision:shufflenet_v2_x1_0@FILE"):
        load_network(f"{SHUFFLENET}@x.safetensors")


@pytest.mark.parametrize(
    ("folder", "file"),
    [("lab/weights", "lab/weights/x.safetensors"), ("s3://bucket/weights/", "s3://bucket/weights/x.safetensors")],
)
def test_the_folder_of_weights_is_a_path_or_a_url(monkeypatch, folder, file):
    monkeypatch.setenv("NETSIM_WEIGHTS", folder)
    assert find_file(Reference("robust", "x", None)) == file


def test_without_a_folder_of_weights_files_are_beside_torchvisions(monkeypatch, tmp_path):
    monkeypatch.delenv("NETSIM_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert find_file(Reference("robust", "x", None)) == f"{tmp_path}/hub/checkpoints/x.safetensors"


def test_every_network_is_built_as_torchvisions_for_1000_classes_of_imagenet():
    model, preprocessing = build(Reference("robust", "shufflenet_l2_eps3", None), None)
    assert isinstance(model, torchvision.models.ShuffleNetV2) and model.fc.out_features == 1000
    assert preprocessing.to_json() == {
        "mean": pytest.approx([0.485, 0.456, 0.406]),
        "std": pytest.approx([0.229, 0.224, 0.225]),
        "largest": 1.0,
        "order": "RGB",
        "size": 224,
        "crop": 0.875,
        "interpolation": "bilinear",
    }
