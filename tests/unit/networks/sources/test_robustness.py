"""Networks of the robustness library."""

import pytest
import torch

from netsim.errors import SettingsError
from netsim.networks import load_network
from netsim.networks.sources.base import Reference
from netsim.networks.sources.robustness import DATASETS, _architectures, build

DENSENET = "robustness:cifar:densenet_cifar"  # the smallest network that robustness has


def test_without_a_file_that_says_it_the_data_set_says_the_normalisation():
    network = load_network(f"{DENSENET}@none", input_shape=(3, 32, 32))
    assert network.mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    assert (network.num_classes, network.preprocessing.size) == (10, 32)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("robustness:cifar100:resnet18@none", "no data set 'cifar100' in robustness; did you mean 'cifar'"),
        ("robustness:cifar:resnet19@none", "did you mean 'resnet18'"),
        ("robustness:cifar:test@none", "no network 'test' in robustness for cifar"),
        ("robustness:cifar:resnet18", "requires weights: write @FILE"),
    ],
)
def test_networks_that_robustness_does_not_have_are_answered_with_those_it_has(reference, message):
    with pytest.raises(SettingsError, match=message):
        load_network(reference)


def test_networks_of_imagenet_record_how_its_photographs_are_prepared():
    network = load_network("robustness:restricted_imagenet:resnet18@none", input_shape=(3, 64, 64))
    assert network.num_classes == 9
    recorded = network.preprocessing.to_json()
    assert (recorded["size"], recorded["crop"], recorded["interpolation"]) == (224, 0.875, "bilinear")


def test_the_number_of_classes_is_that_of_the_data_set_unless_given():
    parsed = Reference("robustness", "cifar:densenet_cifar", "none")
    assert build(parsed, None).model.linear.out_features == 10
    assert build(parsed, 7).model.linear.out_features == 7


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_data_set_has_architectures_and_no_layers_among_them(dataset):
    architectures = _architectures(dataset)
    assert "resnet50" in architectures
    assert not any(isinstance(value, type) and issubclass(value, torch.nn.Module) for value in architectures.values())
