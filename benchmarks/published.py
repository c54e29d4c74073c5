"""The published inversion recipe, run by the real `robustness` library, as the reference for parity and speed.

Written from its description (Jones et al. 2022, PMLR 180:928-937; netsim/inversion/invert.py has the equations) on top
of robustness's own attack loop, with a custom step and a custom loss. It takes two forward passes per iteration, as
published.
"""

from typing import Any

import torch
from torch import Tensor, nn

from netsim.networks import Network
from netsim.networks.sources._robustness_compat import import_robustness

robustness = import_robustness()


class MomentumStep(robustness.attack_steps.AttackerStep):
    """Step along unit gradients averaged with decay 0.9, recording the iterates. Like the recipe, it has no guards."""

    path: list[Tensor]  # set by `published` on a subclass, because the library creates the object

    def __init__(self, orig_input: Tensor, eps: float, step_size: float, use_grad: bool = True) -> None:
        super().__init__(orig_input, eps, step_size, use_grad)
        self.average = torch.zeros_like(orig_input)

    def step(self, x: Tensor, g: Tensor) -> Tensor:
        """Move `x` along the averaged gradient."""
        unit = g / g.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        self.average = 0.9 * self.average + (1 - 0.9) * unit
        return x + self.step_size * self.average

    def project(self, x: Tensor) -> Tensor:
        """Project `x` into the ball of radius `eps` and into [0, 1], and record it."""
        offset = torch.renorm(x - self.orig_input, p=2, dim=0, maxnorm=self.eps)
        inside = (self.orig_input + offset).clamp(0, 1)
        self.path.append(inside)
        return inside


def relative_distance(model: nn.Module, normalized: Tensor, target: Tensor) -> tuple[Tensor, None]:
    """Compute the loss of each image, in the form that the library expects."""
    _, representation = model(normalized, with_latent=True)
    return (representation - target).norm(dim=1) / target.norm(dim=1), None


def published(
    model: Any, seed: Tensor, target: Tensor, *, iterations: int, step_size: float = 1 / 8, use_best: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """Invert by the attack loop of robustness; return the resulting images and iterates 0 ... iterations."""
    path = [seed]
    model.eval()
    with torch.no_grad():
        (_, target_representation), _ = model(target, with_latent=True)
    _, image = model(
        seed,
        target_representation,
        make_adv=True,
        targeted=True,
        constraint=type("RecordedStep", (MomentumStep,), {"path": path}),
        custom_loss=relative_distance,
        eps=1000,
        step_size=step_size,
        iterations=iterations,
        use_best=use_best,
    )
    return image.detach(), path


class WithLatent(nn.Module):
    """Adapter of a network to the interface of robustness's own architectures, which torchvision's lack."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.body, self.head = network.body, network.head

    def forward(self, images: Tensor, with_latent: bool = False, **_: Any) -> Any:
        """Return logits, with representations if `with_latent`."""
        representation = self.body(images)
        logits = self.head(representation)
        return (logits, representation) if with_latent else logits


class _Normalisation:
    """Stand-in for a data set, with the two attributes that AttackerModel reads."""

    def __init__(self, network: Network) -> None:
        self.mean, self.std = network.mean.flatten(), network.std.flatten()


def attacker_model(network: Network) -> Any:
    """Wrap a network as the published code expects it."""
    return robustness.attacker.AttackerModel(WithLatent(network), _Normalisation(network))
