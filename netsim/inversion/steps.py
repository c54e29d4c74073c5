"""How an image moves from one iteration of an inversion to the next: the published steps, and ones that take fewer.

n = images, C, H, W = an image, D = C H W values, k = iterations done, m = `memory`.

`fast` follows the path of x(rho) = argmin over [0, 1] of loss(x)^2 / 2 + rho ||x - seed||^2 / 2 while rho falls, one
step of L-BFGS at each rho (Liu and Nocedal 1989, https://doi.org/10.1007/BF01589116). Minimising the loss alone takes
about as many steps, but ends much farther from the seed than the published steps do, with other images, on which
networks agree otherwise. Gradient descent from the seed stays near this path by itself: for least squares the two are
close all along, at rho = 1 / time (Ali, Kolter, Tibshirani 2019, https://arxiv.org/abs/1810.10082). So rho falls as the
time passes that gradient flow would need for steps as long as these may be.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from netsim.settings import InversionSettings

Memory = dict[str, Tensor]

TINY = 1e-12
"""Least length of a gradient, and least rho, that anything is divided by: nothing overflows in float32."""


class UpdateRule(Protocol):
    """A rule by which images move, each by itself. It holds settings only; what it keeps of the images is `Memory`."""

    def fresh(self, images: Tensor) -> Memory:
        """What is kept of each of `images` (n, C, H, W) between its steps, before the first: tensors (n, ...)."""

    def step(self, memory: Memory, images: Tensor, descent: Tensor, length: Tensor, loss: Tensor) -> None:
        """Move `images` (n, C, H, W) and bring `memory` up to date, in place.

        `descent` (n, C, H, W) is minus the gradient of `loss` (n,), times a factor above 0 that an image keeps, and
        `length` (n,) its L2 norm.
        """


@dataclass(frozen=True)
class MomentumUpdate:
    """The published steps, of constant length along the averaged descent (equations: `netsim.inversion.invert`)."""

    step_size: float
    momentum: float

    def fresh(self, images: Tensor) -> Memory:
        return {"velocity": torch.zeros_like(images)}

    def step(self, memory: Memory, images: Tensor, descent: Tensor, length: Tensor, loss: Tensor) -> None:
        """Where the gradient is zero, momentum moves alone."""
        scale = (1 - self.momentum) / torch.where(length == 0, 1, length)  # 0 / 0 would be NaN for good
        velocity = memory["velocity"]
        velocity.mul_(self.momentum).addcmul_(descent, scale[:, None, None, None])
        images.add_(velocity, alpha=self.step_size).clamp_(0, 1)


@dataclass(frozen=True)
class LbfgsPathUpdate:
    """UpdateRule of L-BFGS along the path of rho, projected onto [0, 1].

    With f = loss^2 / 2 and the images so far x_0 = seed ... x_k, 1 / rho = sum of reach / ||grad f(x_j)||. The first
    step is as long as `reach` (L2, pixels in [0, 1]), and none is longer. The last `memory` steps, with what each
    changed in the gradient of f, tell the curvature of f; the other term's is rho. So they serve whatever rho is.
    """

    reach: float = 4.0
    memory: int = 10

    def fresh(self, images: Tensor) -> Memory:
        n, size, m = len(images), images.shape[1:].numel(), self.memory
        return {
            "k": torch.zeros(n, dtype=torch.int64, device=images.device),
            "time": images.new_zeros(n),  # 1 / rho
            "seed": images.flatten(1).clone(),
            "image": images.flatten(1).clone(),  # before the last step
            "gradient": images.new_zeros(n, size),  # there
            "changes": images.new_zeros(n, 2 * m, size),  # m of the image, m of the gradient; the last at (k - 1) mod m
            "products": images.new_zeros(n, 2 * m, 2 * m, dtype=torch.float64),  # of `changes`, each with each
        }

    def step(self, memory: Memory, images: Tensor, descent: Tensor, length: Tensor, loss: Tensor) -> None:
        x, gradient = images.flatten(1), descent.flatten(1) * -loss[:, None]
        first = (memory["k"] == 0)[:, None]
        memory["time"] += self.reach / (length * loss).clamp_min(TINY)
        rho = (1 / memory["time"]).clamp_min(TINY)[:, None]
        slope = gradient + rho * (x - memory["seed"])
        slope *= ~(((x <= 0) & (slope > 0)) | ((x >= 1) & (slope < 0)))  # such pixels would only leave [0, 1]
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
        """Put the last step, to `x` (n, D), and the `change` of the gradient by it in place of the oldest.

        Returns the products (n, 2m) of all that is remembered then with `slope` (n, D).
        """
        changes, products, m = memory["changes"], memory["products"], self.memory
        rows, slot = torch.arange(len(x), device=x.device), (memory["k"] - 1) % m
        step = x - memory["image"]
        changes[rows, slot], changes[rows, m + slot] = step, change
        found = (torch.stack([step, change, slope], dim=1) @ changes.mT).to(products)
        for place, product in ((slot, found[:, 0]), (m + slot, found[:, 1])):
            products[rows, place] = product
            products[rows, :, place] = product
        return found[:, 2]


def _inverse_hessian_times(vector: Tensor, memory: Memory, along: Tensor, rho: Tensor) -> Tensor:
    """(n, D): `vector` (n, D), whose products with what is remembered are `along` (n, 2m), by the inverse Hessian.

    That of loss^2 / 2 + rho ||x - seed||^2 / 2, as L-BFGS sees it, in the compact form and the letters of Byrd,
    Nocedal, Schnabel 1994 (https://doi.org/10.1007/BF01582063, equation 2.6), with y = change + rho s. So all that is
    done with images is two products of matrices. Pairs (s, y) along which the gradient does not grow take no part.
    """
    m = along.shape[1] // 2
    steps = (memory["k"][:, None] + torch.arange(m, device=vector.device)) % m  # from the oldest to the last
    both = torch.cat([steps, m + steps], dim=1)
    rows = memory["products"].gather(1, both[:, :, None].expand(-1, -1, 2 * m))
    products = rows.gather(2, both[:, None].expand(-1, 2 * m, -1))
    along, r = along.gather(1, both), rho.double()
    ss, sc, cc = products[:, :m, :m], products[:, :m, m:], products[:, m:, m:]
    sy = sc + r[..., None] * ss
    yy = cc + r[..., None] * (sc + sc.mT) + r[..., None] ** 2 * ss
    growth = sy.diagonal(dim1=1, dim2=2)
    used = growth > 0.5 * r * ss.diagonal(dim1=1, dim2=2)  # not so in places that are still empty: 0 > 0
    pairs = used[:, :, None] & used[:, None]
    R = torch.where(pairs, sy, 0).triu() + torch.diag_embed((~used).to(sy))
    D, yy = torch.where(used, growth, 0)[..., None], torch.where(pairs, yy, 0)
    s_vector = torch.where(used, along[:, :m], 0)[..., None]
    y_vector = torch.where(used, along[:, m:] + r * along[:, :m], 0)[..., None]
    gamma = _scale(growth, yy.diagonal(dim1=1, dim2=2), used, r)[..., None]

    a = torch.linalg.solve_triangular(R, s_vector, upper=True)
    b = torch.linalg.solve_triangular(R.mT, D * a + gamma * (yy @ a - y_vector), upper=False)
    # what is added to gamma * vector: S b - gamma Y a, as weights of s and of change, each back in its place
    weights = torch.cat([b - gamma * r[..., None] * a, -gamma * a], dim=1).squeeze(2)
    weights = torch.zeros_like(weights).scatter(1, both, weights).to(vector)
    return gamma[..., 0].to(vector) * vector + (weights[:, None] @ memory["changes"])[:, 0]


def _scale(growth: Tensor, yy: Tensor, used: Tensor, r: Tensor) -> Tensor:
    """gamma (n, 1), the inverse Hessian where nothing is known: s.y / y.y of the last pair, and never above 1 / rho."""
    newest = (used * torch.arange(1, used.shape[1] + 1, device=used.device)).argmax(dim=1, keepdim=True)
    last = (growth / yy).gather(1, newest)
    return torch.where(used.any(dim=1, keepdim=True), torch.minimum(last, 1 / r), 1 / r)


def kept_bytes(steps: UpdateRule, images: Tensor) -> int:
    """What is kept of `images` (n, C, H, W) between their steps."""
    return sum(tensor.nbytes for tensor in steps.fresh(images).values())


def update_rule_of(settings: InversionSettings) -> UpdateRule:
    """Return the update rule of the settings' preset."""
    if settings.preset == "fast":
        return LbfgsPathUpdate()
    return MomentumUpdate(step_size=settings.step_size, momentum=settings.momentum)
