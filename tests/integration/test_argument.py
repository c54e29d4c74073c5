"""The paper's argument, on images where it is known which features co-occur.

An image has an ear (its upper half) and a tail (its lower half). Both are drawn from the same hidden cause, so they
co-occur, as in photographs of cats. A network that looks at ears only and one that looks at tails only agree on every
natural image, and have nothing in common. Inversion through the one must show it: a seed is given the target's ear and
keeps its own tail.
"""

import pytest
import torch
from torch import Tensor, nn

from netsim import invert_images, linear_cka

PIXELS, CAUSES, N = 8, 5, 256


class Reader(nn.Module):
    """Looks at some rows of an image only: a random hidden layer, then a linear classifier."""

    def __init__(self, rows: slice, *, rng_seed: int) -> None:
        super().__init__()
        generator = torch.manual_seed(rng_seed)
        self.rows = rows
        self.hidden = nn.Linear(PIXELS * PIXELS // 2, 48)
        self.fc = nn.Linear(48, 10)
        nn.init.normal_(self.hidden.weight, std=0.5, generator=generator)

    def represent(self, images: Tensor) -> Tensor:
        return torch.tanh(self.hidden(images[:, :, self.rows].flatten(1) - 0.5))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.represent(images))


EARS, TAILS = slice(0, PIXELS // 2), slice(PIXELS // 2, PIXELS)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Seeds and targets (2, n, 1, 8, 8): each image's ear and tail are two views of the same 5 hidden numbers."""
    generator = torch.manual_seed(0)
    causes = torch.randn(2, N, CAUSES, generator=generator)
    ear, tail = (torch.linalg.qr(torch.randn(PIXELS * PIXELS // 2, CAUSES, generator=generator))[0] for _ in "et")
    halves = torch.stack([causes @ ear.T, causes @ tail.T], dim=2)
    return (0.5 + 0.25 * halves).reshape(2, N, 1, PIXELS, PIXELS).clamp(0, 1)


@pytest.fixture(scope="module")
def similarity(images):
    """CKA of two readers on the targets, and on images inverted through the first."""
    seeds, targets = images

    def compare(through: Reader, observer: Reader) -> tuple[float, float]:
        inverted = invert_images(through, seeds, targets, iterations=400, step_size=1 / 16, batch_size=N)
        loss = (through.represent(inverted) - through.represent(targets)).norm(dim=1)
        assert (loss / through.represent(targets).norm(dim=1)).median() < 0.05
        with torch.no_grad():
            natural, after = (
                linear_cka(through.represent(x), observer.represent(x), "unbiased") for x in (targets, inverted)
            )
        return natural, after

    return compare


def test_networks_that_read_co_occurring_features_are_alike_on_natural_images_only(similarity):
    natural, inverted = similarity(Reader(EARS, rng_seed=1), Reader(TAILS, rng_seed=2))
    assert natural > 0.6
    assert abs(inverted) < 0.05


def test_networks_that_read_the_same_feature_are_alike_on_both(similarity):
    natural, inverted = similarity(Reader(EARS, rng_seed=1), Reader(EARS, rng_seed=2))
    assert natural > 0.6
    assert inverted > 0.6


def test_identical_networks_are_identical_on_both(similarity):
    natural, inverted = similarity(Reader(TAILS, rng_seed=1), Reader(TAILS, rng_seed=1))
    assert natural == pytest.approx(1)
    assert inverted == pytest.approx(1)
