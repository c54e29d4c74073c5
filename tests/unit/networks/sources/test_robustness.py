"""Networks of the robustness library."""

import pytest

from netsim.errors import SettingsError
from netsim.networks import load_network

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
