"""Behaviour of a network: what it makes of two fixed images, in a few numbers.

Weights, layers and their options do not tell what the `forward` of somebody's class does with them. These numbers do:
they are the same, up to rounding, in every process and on every machine.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netsim.networks.gate import ramp, two_images
from netsim.networks.network import Network
from netsim.networks.preprocessing import Shape

COEFFICIENTS = 8
"""Numbers for each image: the lowest frequencies of its representation, by a cosine transform."""

ROUNDING = 1e-3
"""Largest difference between two machines, relative to the largest number."""


def behaviour_of(network: Network, shape: Shape) -> tuple[float, ...]:
    """Summarise the representations of two images of a shape (C, H, W), in ``2 * COEFFICIENTS`` numbers.

    Examples
    --------
    >>> import netsim
    >>> one, two = (netsim.load_network("small:vgg@none", rng_seed=seed) for seed in (0, 1))
    >>> same_behaviour(behaviour_of(one, (1, 28, 28)), behaviour_of(one, (1, 28, 28)))
    True
    >>> same_behaviour(behaviour_of(one, (1, 28, 28)), behaviour_of(two, (1, 28, 28)))
    False
    """
    return summary(represent_two(network, shape))


def represent_two(network: Network, shape: Shape) -> Tensor:
    """Represent two fixed images of a shape (C, H, W): (2, d)."""
    with torch.no_grad():
        return network.represent(two_images(ramp(shape).to(network.mean)))


def summary(representations: Tensor) -> tuple[float, ...]:
    """Summarise the representations of the two images (2, d)."""
    rows = representations.double().cpu()
    position = (torch.arange(rows.shape[1], dtype=torch.float64) + 0.5) / rows.shape[1]
    waves = torch.cos(math.pi * torch.outer(position, torch.arange(COEFFICIENTS, dtype=torch.float64)))
    values: list[float] = (rows @ waves / rows.shape[1]).flatten().tolist()
    return tuple(values)


def coarse_behaviour(behaviour: Sequence[float]) -> list[int]:
    """Round a behaviour to whole multiples of what may differ between machines: equal only for the same behaviour."""
    _, exponent = math.frexp(max(map(abs, behaviour), default=0.0))
    step = math.ldexp(ROUNDING, exponent - 1)  # the largest number is between 1 and 2 of 1 / ROUNDING of them
    return [exponent, *(round(value / step) for value in behaviour)]


def same_behaviour(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return True if two networks make the same of the two images, up to rounding."""
    largest = max(map(abs, (*one, *other)), default=0.0)
    return len(one) == len(other) and all(abs(a - b) <= ROUNDING * largest for a, b in zip(one, other, strict=True))
