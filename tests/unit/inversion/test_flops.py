"""FLOPs of a forward pass, counted by hand, and the peak of a device."""

import pytest
import torch
from torch import nn

from netsim.inversion import flops
from netsim.inversion.flops import forward_flops, peak_flops
from netsim.networks import as_network

CONVOLUTION = 2 * (8 * 14 * 14) * (3 * 3 * 3)  # a product and a sum for each output value and each value of the kernel
HIDDEN = 2 * 8 * 32
IMAGES = torch.zeros(5, 3, 16, 16)


@pytest.fixture
def network():
    """A convolution, a hidden layer, and a head that does not count."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 32), nn.Linear(32, 5)]
    return as_network(nn.Sequential(*layers), torch.rand(2, 3, 16, 16))


def test_flops_are_those_of_convolutions_and_products_without_the_head(network):
    assert forward_flops(network, IMAGES) == 5 * (CONVOLUTION + HIDDEN)


@pytest.mark.parametrize("surrounding", [torch.no_grad, torch.enable_grad])
def test_flops_do_not_depend_on_the_gradient_mode_and_leave_images_as_they_were(network, surrounding):
    images = IMAGES.clone()
    with surrounding():
        assert forward_flops(network, images) == 5 * (CONVOLUTION + HIDDEN)
    assert not images.requires_grad


def test_attention_on_a_cpu_counts_its_two_products():
    query = torch.zeros(2, 4, 6, 8)  # images, heads, tokens, features of a head
    with flops._FlopCounter() as counter, torch.no_grad():
        nn.functional.scaled_dot_product_attention(query, query, query)
    assert counter.total == 2 * 4 * (2 * 6 * 6 * 8 + 2 * 6 * 6 * 8)


def test_a_peak_is_measured_once_per_process(monkeypatch):
    monkeypatch.setattr(flops, "PEAK_SECONDS", 0.0)
    peak_flops.cache_clear()
    first = peak_flops("cpu", "float32")
    assert first > 0
    assert peak_flops("cpu", "float32") is first
    peak_flops.cache_clear()  # the next test measures for as long as others do
