"""Attacks on a classifier: projected gradient ascent of its loss, within a distance of each image.

The steps are those of the `robustness` library, with which published robust networks were trained: the gradient of one
image is scaled to length 1 (L2) or reduced to its signs (Linf), and the image of the highest loss is kept. An attack
sees a network in evaluation mode, so what it makes of an image does not depend on the others of the batch.

Sources: Madry et al. 2018, Towards deep learning models resistant to adversarial attacks,
https://arxiv.org/abs/1706.06083; Engstrom et al. 2019, Robustness (Python library).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netsim.images import ImageSet, to_unit
from netsim.networks.ambient import plain_torch
from netsim.networks.network import Network
from netsim.settings import AdversarialSettings

STEPS, RESTARTS = 20, 2
"""Steps of the attack that robust accuracy is measured by, and how often it starts anew from a random point."""

STEP_SHARE = 2.5
"""Length of its steps, in eps / STEPS: as Madry et al. 2018 evaluate."""

IMAGES = 1000
"""Most images that robust accuracy is measured on, spread evenly over all."""

BATCH = 250
"""Images that are attacked at a time."""

TINY = 1e-10
"""What is added to the length of a gradient, which may be 0, before dividing by it."""


@dataclass(frozen=True)
class RobustAccuracy:
    """Share of images that no attack made the network misclassify.

    Attributes
    ----------
    accuracy
        In [0, 1].
    norm, eps
        What the attack may do: `netsim.settings.AdversarialSettings`.
    steps, restarts
        What it did.
    images
        The number of images.
    """

    accuracy: float
    norm: str
    eps: float
    steps: int
    restarts: int
    images: int


@plain_torch()
def attack(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    settings: AdversarialSettings,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Move each image, within `settings.eps`, to where the classifier's loss is highest.

    Parameters
    ----------
    network
        A classifier in evaluation mode: images in [0, 1] -> logits.
    images
        (n, C, H, W), in [0, 1].
    labels
        (n,) int64, the classes to lead away from.
    settings
        Norm, distance and steps of the attack.
    generator
        Source of random starts, on the CPU.

    Returns
    -------
    Tensor
        Images like `images`, in [0, 1]: of all points that the attack passed, the one of the highest loss.

    Examples
    --------
    >>> bright = lambda images: torch.stack([images.mean(dim=(1, 2, 3)), torch.zeros(len(images))], dim=1)
    >>> near = AdversarialSettings(norm="linf", eps=0.25)
    >>> attack(bright, torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]), near).flatten().tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    project, direction, start = _L2 if settings.norm == "l2" else _LINF
    x = images.detach()
    if settings.random_start:
        x = (x + settings.eps * start(x, generator)).clamp(0, 1)
    best, best_losses = x, torch.full((len(x),), -torch.inf, device=x.device)
    for _ in range(settings.steps):
        x = x.detach().requires_grad_()
        losses = _losses(network, x, labels)
        (gradient,) = torch.autograd.grad(losses.sum(), x)
        with torch.no_grad():
            best, best_losses = _worse(x.detach(), losses.detach(), best, best_losses)
            moved = x + settings.length * direction(gradient)
            x = (images + project(moved - images, settings.eps)).clamp(0, 1)
    with torch.no_grad():
        best, _ = _worse(x, _losses(network, x, labels), best, best_losses)
    return best


def robust_accuracy(
    network: Network, images: ImageSet, settings: AdversarialSettings, *, on_batch: Callable[[], None] = lambda: None
) -> RobustAccuracy:
    """Measure the accuracy under attack, by `STEPS` steps from each of `RESTARTS` random points near the image.

    Parameters
    ----------
    network
        A classifier in evaluation mode.
    images
        Labelled images; at most `IMAGES` of them are used.
    settings
        Norm and distance of the attack; its steps are not those of the training.
    on_batch
        Called before every batch; an exception that it raises ends the measurement.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), IMAGES)).astype(int))
    stronger = AdversarialSettings(
        norm=settings.norm,
        eps=settings.eps,
        steps=STEPS,
        step_size=STEP_SHARE * settings.eps / STEPS,
        random_start=True,
    )
    generator = torch.Generator().manual_seed(0)
    withstood = 0
    for begin in range(0, len(chosen), BATCH):
        on_batch()
        rows = chosen[begin : begin + BATCH]
        pixels = to_unit(images.read(rows)).to(network.mean.device)
        labels = torch.from_numpy(images.labels[rows]).to(network.mean.device)
        withstood += _withstood(network, pixels, labels, stronger, generator)
    return RobustAccuracy(
        accuracy=withstood / len(chosen),
        norm=settings.norm,
        eps=settings.eps,
        steps=STEPS,
        restarts=RESTARTS,
        images=len(chosen),
    )


def _withstood(
    network: Network, pixels: Tensor, labels: Tensor, settings: AdversarialSettings, generator: torch.Generator
) -> int:
    """Count the images that are classified correctly as they are, and after every attack."""
    for number in range(1 + RESTARTS):
        tried = attack(network, pixels, labels, settings, generator=generator) if number else pixels
        with torch.no_grad():
            right = network(tried).argmax(dim=1) == labels
        pixels, labels = pixels[right], labels[right]
        if not len(labels):
            break
    return len(labels)


def _losses(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(network(images), labels, reduction="none")


def _worse(x: Tensor, losses: Tensor, best: Tensor, best_losses: Tensor) -> tuple[Tensor, Tensor]:
    """Keep of each image the one of the higher loss."""
    higher = losses > best_losses
    return torch.where(_per_image(higher), x, best), torch.where(higher, losses, best_losses)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _l2_project(change: Tensor, eps: float) -> Tensor:
    return change.renorm(p=2, dim=0, maxnorm=eps)


def _l2_direction(gradient: Tensor) -> Tensor:
    return gradient / (_per_image(gradient.flatten(1).norm(dim=1)) + TINY)


def _l2_start(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw a point on the unit sphere."""
    return _l2_direction(torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device))


def _linf_project(change: Tensor, eps: float) -> Tensor:
    return change.clamp(-eps, eps)


def _linf_start(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw a point of the unit cube, evenly."""
    return (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1).to(x.device)


_Norm = tuple[Callable[[Tensor, float], Tensor], Callable[[Tensor], Tensor], Callable[[Tensor, Any], Tensor]]
"""Projection of a change to at most eps, direction of a step, and random start for an eps of 1."""

_L2: _Norm = (_l2_project, _l2_direction, _l2_start)
_LINF: _Norm = (_linf_project, torch.sign, _linf_start)
