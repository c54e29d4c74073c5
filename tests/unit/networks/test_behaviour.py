"""Behaviour: networks of equal weights and layers are told apart by what they make of two images."""

import numpy as np
import pytest
import scipy.fft
import torch
from torch import nn

from netsim.networks import as_network
from netsim.networks.behaviour import COEFFICIENTS, behaviour_of, coarse_behaviour, same_behaviour
from netsim.networks.gate import ramp, two_images

SHAPE = (1, 6, 6)


class Net(nn.Sequential):
    """Three layers, with an activation that none of them is."""

    def __init__(self, activation) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Flatten(), nn.Linear(36, 20), nn.Linear(20, 4))
        self.activation = activation

    def forward(self, images):
        return self[2](self.activation(self[1](self[0](images))))


def network(activation=torch.relu):
    return as_network(Net(activation), torch.rand(2, *SHAPE))


def test_it_is_the_cosine_transform_of_the_representations_of_two_images():
    rows = network().represent(two_images(ramp(SHAPE))).detach().double().numpy()
    expected = scipy.fft.dct(rows, axis=1)[:, :COEFFICIENTS] / 2 / rows.shape[1]
    np.testing.assert_allclose(behaviour_of(network(), SHAPE), expected.flatten(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "activation", [nn.functional.gelu, nn.functional.silu, torch.abs, lambda x: torch.relu(x) * 1.01]
)
def test_another_activation_is_another_behaviour(activation):
    one, other = behaviour_of(network(), SHAPE), behaviour_of(network(activation), SHAPE)
    assert not same_behaviour(one, other) and not same_behaviour(other, one)
    assert coarse_behaviour(one) != coarse_behaviour(other)


def test_rounding_is_no_other_behaviour():
    one = behaviour_of(network(), SHAPE)
    rounded = behaviour_of(network(lambda x: torch.relu(x) * (1 + 1e-6)), SHAPE)
    assert one != rounded and same_behaviour(one, rounded)


def test_what_rounds_to_the_same_is_the_same():
    rng = np.random.default_rng(0)
    for _ in range(300):
        one = rng.normal(size=8)
        other = one + rng.uniform(-1, 1, size=8) * 2e-3 * np.abs(one).max()
        if coarse_behaviour(one) == coarse_behaviour(other):
            assert same_behaviour(one, other)
    assert same_behaviour([0.0, 0.0], [0.0, 0.0]) and coarse_behaviour([0.0, 0.0]) == [0, 0, 0]
    assert not same_behaviour([1.0], [1.0, 0.0])
