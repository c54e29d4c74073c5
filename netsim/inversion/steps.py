"""Update rules: how an image moves from one iteration of an inversion to the next.

MomentumUpdate    the published momentum step (Jones et al. 2022), `preset: published`
LbfgsPathUpdate   steps of L-BFGS towards the same loss, in fewer iterations, `preset: fast`

n = images, C, H, W = an image, D = C H W values, k = iterations done, m = `memory`.

`LbfgsPathUpdate` follows the path of x(rho) = argmin over [0, 1] of loss(x)^2 / 2 + rho ||x - seed||^2 / 2 while rho
falls, one step of L-BFGS at each rho (Liu and Nocedal 1989, https://doi.org/10.1007/BF01589116). Minimising the loss
alone takes about as many steps, but ends much farther from the seed than the published steps do, at other images, on
which networks agree to another degree. Gradient descent from the seed stays near this path by itself: for least squares
the two are close all along, at rho = 1 / time (Ali, Kolter, Tibshirani 2019, https://arxiv.org/abs/1810.10082). So
1 / rho is the time that gradient flow would need for as many steps of the largest length.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from netsim.settings import InversionSettings

# What an update rule keeps of each image between steps: tensors (n, ...) by name.
Memory = dict[str, Tensor]

TINY = 1e-12
"""Smallest divisor: the least length of a gradient, and the least rho. Nothing then overflows in float32."""


class UpdateRule(Protocol):
    """A rule by which images move, each by itself. It holds settings only; its state is the `Memory` of the images."""

    def initial_memory(self, images: Tensor) -> Memory:
        """Return the memory of `images` (n, C, H, W) before their first step: tensors (n, ...)."""

    def step(self, memory: Memory, images: Tensor, descent: Tensor, length: Tensor, loss: Tensor) -> None:
        """Move `images`, and update `memory`, in place.

        Parameters
        ----------
        memory
            From `initial_memory`, or from the previous step of the same images.
        images
            (n, C, H, W) in [0, 1], before and after.
        descent
            (n, C, H, W) minus the gradient of the loss, times a positive factor that is constant for each image.
        length
            (n,) L2 norm of `descent`.
        loss
            (n,) relative distance of the representation from the target.
        """


@dataclass(frozen=True)
class MomentumUpdate:
    """The published step: of constant length, along the averaged normalised descent.

    With x = image, m = velocity, and g = descent / ||descent||:

        m_k+1 = momentum * m_k + (1 - momentum) * g         no bias correction
        x_k+1 = clamp(x_k + step_size * m_k+1, 0, 1)

    Source: Jones et al. 2022, PMLR 180:928-937; Ilyas et al. 2019, https://arxiv.org/abs/1905.02175.

    Attributes
    ----------
    step_size
        L2 length of a step in pixels of [0, 1], if all gradients pointed the same way.
    momentum
        Weight of earlier gradients in the average, in [0, 1).
    """

    step_size: float
    momentum: float

    def initial_memory(self, images: Tensor) -> Memory:
        """Return velocities of zero."""
        return {"velocity": torch.zeros_like(images)}

    def step(self, memory: Memory, images: Tensor, descent: Tensor, length: Tensor, loss: Tensor) -> None:
        """Take the momentum step. An image whose gradient is zero moves by its remaining momentum alone."""
        scale = (1 - self.momentum) / torch.where(length == 0, 1, length)  # not 0 / 0, which would be NaN for good
        velocity = memory["velocity"]
        velocity.mul_(self.momentum).addcmul_(descent, scale[:, None, None, None])
        images.add_(velocity, alpha=self.step_size).clamp_(0, 1)


@dataclass(frozen=True)
class LbfgsPathUpdate:
    """Steps of L-BFGS along the path of rho, projected onto [0, 1].

    With f = loss^2 / 2 and the images so far x_0 = seed ... x_k, 1 / rho = sum over j of reach / ||grad f(x_j)||. The
    last `memory` steps and the changes of grad f by each describe the curvature of f; that of the other term is rho. So
    they remain valid while rho falls.

    Attributes
    ----------
    reach
        L2 length of the first step in pixels of [0, 1], and the largest length of the others.
    memory
        Number m of earlier steps that describe the curvature.
    """

    reach: float = 4.0
    memory: int = 10

    def initial_memory(self, images: Tensor) -> Memory:
        """Return a memory without earlier steps: everything but the images is zero."""
        n, size, m = len(images), images.shape[1:].numel(), self.memory
        return {
            "k": torch.zeros(n, dtype=torch.int64, device=images.device),
            "time": images.new_zeros(n),  # 1 / rho
            "seed": images.flatten(1).clone(),
            "image": images.flatten(1).clone(),  # before the last step
            "gradient": images.new_zeros(n, size),  # of f at "image"
            # m changes of the image, then m of the gradient; the last of each is at (k - 1) mod m
            "changes": images.new_zeros(n, 2 * m, size),
            "products": images.new_zeros(n, 2 * m, 2 * m, dtype=torch.float64),  # inner products of all "changes"
        }

    def step(self, memory: Memory, images: Tensor, descent: Tensor, length: Tensor, loss: Tensor) -> None:
        """Take one step of L-BFGS at the next rho; where that would go uphill, one along the gradient."""
        x, gradient = images.flatten(1), descent.flatten(1) * -loss[:, None]
        first = (memory["k"] == 0)[:, None]
        memory["time"] += self.reach / (length * loss).clamp_min(TINY)
        rho = (1 / memory["time"]).clamp_min(TINY)[:, None]
        slope = gradient + rho * (x - memory["seed"])
        slope *= ~(((x <= 0) & (slope > 0)) | ((x >= 1) & (slope < 0)))  # these pixels would leave [0, 1]
        change = torch.where(first, 0, gradient - memory["gradient"])
        along = self._remember(memory, x, change, slope)
        memory["image"].copy_(x)
        memory["gradient"].copy_(gradient)
        move = -_inverse_hessian_times(slope, memory, along, rho) * (slope != 0)
        uphill = torch.linalg.vecdot(move, slope)[:, None] >= 0
        move = torch.where(uphill, -slope / rho, move)
        too_long = torch.linalg.vector_norm(move, dim=1, keepdim=True).clamp_min(self.reach) / self.reach
        images.add_((move / too_long).view_as(images)).clamp_(0, 1)
        memory["k"] += 1

    def _remember(self, memory: Memory, x: Tensor, change: Tensor, slope: Tensor) -> Tensor:
        """Store the last step, which led to `x` (n, D), and its `change` of the gradient, in place of the oldest.

        Returns the inner products (n, 2m) of `slope` (n, D) with all stored changes.
        """
        changes, products, m = memory["changes"], memory["products"], self.memory
        rows, slot = torch.arange(len(x), device=x.device), (memory["k"] - 1) % m
        step = x - memory["image"]
        changes[rows, slot], changes[rows, m + slot] = step, change
        inner = (torch.stack([step, change, slope], dim=1) @ changes.mT).to(products)
        for index, product in ((slot, inner[:, 0]), (m + slot, inner[:, 1])):
            products[rows, index] = product
            products[rows, :, index] = product
        return inner[:, 2]


def _inverse_hessian_times(vector: Tensor, memory: Memory, along: Tensor, rho: Tensor) -> Tensor:
    """Multiply `vector` (n, D), whose products with the stored changes are `along` (n, 2m), by the inverse Hessian.

    The Hessian is that of loss^2 / 2 + rho ||x - seed||^2 / 2, as L-BFGS approximates it, in the compact form and the
    letters of Byrd, Nocedal, Schnabel 1994 (https://doi.org/10.1007/BF01582063, equation 2.6), with y = change + rho s.
    So the only operations on images are two matrix products. Pairs (s, y) along which the gradient does not grow are
    not used.
    """
    m = along.shape[1] // 2
    steps = (memory["k"][:, None] + torch.arange(m, device=vector.device)) % m  # from the oldest to the newest
    both = torch.cat([steps, m + steps], dim=1)
    rows = memory["products"].gather(1, both[:, :, None].expand(-1, -1, 2 * m))
    products = rows.gather(2, both[:, None].expand(-1, 2 * m, -1))
    along, r = along.gather(1, both), rho.double()
    ss, sc, cc = products[:, :m, :m], products[:, :m, m:], products[:, m:, m:]
    sy = sc + r[..., None] * ss
    yy = cc + r[..., None] * (sc + sc.mT) + r[..., None] ** 2 * ss
    growth = sy.diagonal(dim1=1, dim2=2)
    used = growth > 0.5 * r * ss.diagonal(dim1=1, dim2=2)  # False in slots that are still empty: 0 > 0
    pairs = used[:, :, None] & used[:, None]
    R = torch.where(pairs, sy, 0).triu() + torch.diag_embed((~used).to(sy))
    D, yy = torch.where(used, growth, 0)[..., None], torch.where(pairs, yy, 0)
    s_vector = torch.where(used, along[:, :m], 0)[..., None]
    y_vector = torch.where(used, along[:, m:] + r * along[:, :m], 0)[..., None]
    gamma = _scale(growth, yy.diagonal(dim1=1, dim2=2), used, r)[..., None]

    a = torch.linalg.solve_triangular(R, s_vector, upper=True)
    b = torch.linalg.solve_triangular(R.mT, D * a + gamma * (yy @ a - y_vector), upper=False)
    # The result is gamma * vector + S b - gamma Y a. Write the sum as weights of s and of change, in their slots.
    weights = torch.cat([b - gamma * r[..., None] * a, -gamma * a], dim=1).squeeze(2)
    weights = torch.zeros_like(weights).scatter(1, both, weights).to(vector)
    return gamma[..., 0].to(vector) * vector + (weights[:, None] @ memory["changes"])[:, 0]


def _scale(growth: Tensor, yy: Tensor, used: Tensor, r: Tensor) -> Tensor:
    """Return gamma (n, 1), the initial inverse Hessian: s.y / y.y of the newest pair used, at most 1 / rho."""
    newest = (used * torch.arange(1, used.shape[1] + 1, device=used.device)).argmax(dim=1, keepdim=True)
    scale = (growth / yy).gather(1, newest)
    return torch.where(used.any(dim=1, keepdim=True), torch.minimum(scale, 1 / r), 1 / r)


def kept_bytes(update_rule: UpdateRule, images: Tensor) -> int:
    """Return the bytes that an update rule keeps of `images` (n, C, H, W) between steps."""
    return sum(tensor.nbytes for tensor in update_rule.initial_memory(images).values())


def update_rule_of(settings: InversionSettings) -> UpdateRule:
    """Return the update rule of the settings' preset."""
    if settings.preset == "fast":
        return LbfgsPathUpdate()
    return MomentumUpdate(step_size=settings.step_size, momentum=settings.momentum)
