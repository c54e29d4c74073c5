"""Representation inversion: move a seed image until a network represents it as it represents a target image.

n = images, C, H, W = an image, d = width of the representation, k = iterations.

Re-implemented from the published description, not copied, and checked step by step against the `robustness` library in
tests/test_parity.py. Sources: Jones, Springer, Kenyon, Moore 2022, "If you've trained one you've trained them all:
inter-architecture similarity increases with robustness", UAI, PMLR 180:928-937 (objective, optimiser, settings);
Ilyas et al. 2019, https://arxiv.org/abs/1905.02175 (inversion as such).

For each image by itself, with x_0 = seed, m_0 = 0 and t = rep(target):

    loss(x) = ||rep(x) - t|| / ||t||                            relative distance: 0 is perfect
    g       = -grad loss(x_k) / ||grad loss(x_k)||
    m_k+1   = momentum * m_k + (1 - momentum) * g               no bias correction
    x_k+1   = clamp(x_k + step_size * m_k+1, 0, 1)

and the answer is the x_k, k = 0 ... iterations, of the lowest loss. The published code also keeps x within 1000 (L2) of
the seed. That is left out: images of fewer than a million values cannot be so far apart, nor can any image get there
in under 1000 / step_size iterations.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain
from numbers import Integral

import torch
from torch import Tensor, nn
from tqdm import tqdm

from netsim.errors import DataError, NetworkError, SettingsError
from netsim.networks import Network, as_network

Represent = Callable[[Tensor], Tensor]  # images (n, C, H, W) -> representations (n, d), each image by itself
OnIteration = Callable[[int, Tensor, Tensor], None]  # k, the images x_k (copy them to keep them), their losses (n,)


@dataclass(frozen=True)
class Inversion:
    """What inverting n pairs gave. Losses and `distance` are in the dtype of the seeds (float32 as a rule).

    `stalled` and `nonfinite` flag images whose result needs care. A stalled image had a gradient of zero at some
    iteration and moved on with its momentum only; an image that matches its target exactly is one of them. A nonfinite
    one had a loss or a gradient that was not finite (a target represented by zeros, an overflow): it was put back to
    its best so far and stayed there, and its losses after that are those of this image.
    """

    images: Tensor  # (n, C, H, W) in [0, 1]
    initial_loss: Tensor  # (n,) of the seeds
    final_loss: Tensor  # (n,) of `images`
    best_iteration: Tensor  # (n,) int64, the k of the lowest loss, 0 for the seed; `images` with use_best
    stalled: Tensor  # (n,) bool
    nonfinite: Tensor  # (n,) bool
    distance: Tensor  # (n,) L2 distance from the seed, in pixels of [0, 1]
    history: Tensor  # (iterations + 1, n) loss of x_k; its first row is `initial_loss`


def invert_images(
    model: nn.Module,
    seed_images: Tensor,
    target_images: Tensor,
    batch_size: int = 32,
    step_size: float = 1 / 8,
    iterations: int = 2000,
    use_best: bool = True,
) -> Tensor:
    """Images that start as `seed_images` and that `model` represents like `target_images`: (n, C, H, W), on the CPU.

    Stands in for the published function of this name, with its defaults. `model` is a `robustness` AttackerModel, any
    classifier that takes images in [0, 1], or a netsim Network; it works on the device that it is on, in evaluation
    mode, and is left as it came. Both image sets are (n, C, H, W), float32 or float64, in [0, 1]; pair i is seed i and
    target i. `step_size` is the L2 length of a step in pixels of [0, 1]. With `use_best=False` the last image is
    returned instead of the best. A progress bar shows on a terminal only.

    Raises DataError for unfit images, SettingsError for unfit settings, NetworkError for a model without a final linear
    layer. `invert_batches` returns the losses too. Source: Jones et al. 2022, PMLR 180:928-937.
    """
    _check_schedule(iterations=iterations, step_size=step_size, momentum=0.9, batch_size=batch_size)
    _check_pairs(seed_images, target_images)
    if not isinstance(model, nn.Module):
        raise NetworkError(f"the model is a {type(model).__name__}; give a torch.nn.Module that classifies images")
    batches = -(-len(seed_images) // batch_size)
    with (
        torch.inference_mode(False),  # a notebook may be in it, and what is made in it takes no gradient
        tqdm(total=batches * (iterations + 1), unit="it", desc="inverting", disable=None) as bar,
    ):

        def advance(*_: object) -> None:
            bar.update()

        network = as_network(model, seed_images[:2])
        record = invert_batches(
            network,
            seed_images,
            target_images,
            batch_size=batch_size,
            iterations=iterations,
            step_size=step_size,
            use_best=use_best,
            on_iteration=advance,
        )
    return record.images


def invert_batches(
    network: Network,
    seed_images: Tensor,
    target_images: Tensor,
    *,
    batch_size: int = 32,
    iterations: int = 2000,
    step_size: float = 1 / 8,
    momentum: float = 0.9,
    use_best: bool = True,
    on_iteration: OnIteration | None = None,
) -> Inversion:
    """Invert n pairs on the network's device, `batch_size` at a time; the record of all of them is on the CPU.

    Takes iterations + 2 forwards a batch: one of the targets, one an iteration, one for the last loss. The batch size
    decides speed and memory, and changes results by float rounding only. Arguments and errors as in `invert_images`.
    """
    _check_schedule(iterations=iterations, step_size=step_size, momentum=momentum, batch_size=batch_size)
    _check_pairs(seed_images, target_images)
    device = _device(network)
    records = []
    with _evaluating(network):
        for start in range(0, len(seed_images), batch_size):
            seed = seed_images[start : start + batch_size].to(device)
            target = target_images[start : start + batch_size].to(device)
            record = invert(
                network.represent,
                seed,
                _represent_targets(network, target),
                iterations=iterations,
                step_size=step_size,
                momentum=momentum,
                use_best=use_best,
                on_iteration=on_iteration,
            )
            records.append(_on_cpu(record))
    return _joined(records)


def invert(
    represent: Represent,
    seed: Tensor,
    target_representation: Tensor,
    *,
    iterations: int = 2000,
    step_size: float = 1 / 8,
    momentum: float = 0.9,
    use_best: bool = True,
    on_iteration: OnIteration | None = None,
) -> Inversion:
    """Move the images `seed` (n, C, H, W) until `represent` gives `target_representation` (n, d): one batch.

    Calls `represent` iterations + 1 times and differentiates it by the images alone. An image's result does not depend
    on the others in the batch beyond float rounding, provided that `represent` treats each by itself; a module is put
    into evaluation mode meanwhile for that reason. `on_iteration(k, images, losses)` is called for k = 0 ...
    iterations. The record is on the device of `seed`. Nothing here waits for the device: an iteration has no `.item()`.

    Raises DataError, SettingsError or NetworkError, as in `invert_images`. Source: the equations above.
    """
    _check_schedule(iterations=iterations, step_size=step_size, momentum=momentum)
    _check_images(seed, "seed")
    with _evaluating(_module_of(represent)), torch.inference_mode(False), torch.no_grad():
        target = target_representation.detach().to(seed)
        images = seed.detach().clone()
        best, velocity = images.clone(), torch.zeros_like(images)
        history = images.new_empty(iterations + 1, len(images))
        best_loss = images.new_full((len(images),), torch.inf)
        nonfinite = torch.zeros_like(best_loss, dtype=torch.bool)
        stalled = nonfinite.clone()

        for k in range(iterations + 1):
            last = k == iterations
            loss, descent = _measure(represent, images, target, with_descent=not last)
            history[k] = loss
            if on_iteration is not None:
                on_iteration(k, images, loss)
            improved = loss < best_loss  # false for NaN
            best_loss = torch.where(improved, loss, best_loss)
            torch.where(_per_image(improved), images, best, out=best)
            nonfinite |= ~torch.isfinite(loss)
            if last:
                break
            length = torch.linalg.vector_norm(descent, dim=(1, 2, 3))
            nonfinite |= ~torch.isfinite(length)
            stalled |= (length == 0) & ~nonfinite
            _step(images, velocity, descent, length, step_size=step_size, momentum=momentum)
            torch.where(_per_image(nonfinite), best, images, out=images)

        # The lowest loss by strict improvement is the first of the lowest ones, which is what argmin gives.
        best_iteration = torch.where(torch.isfinite(history), history, torch.inf).argmin(dim=0)
        lowest = history.gather(0, best_iteration[None])[0]
        take_best = nonfinite | use_best
        images = torch.where(_per_image(take_best), best, images)
        return Inversion(
            images=images,
            initial_loss=history[0].clone(),
            final_loss=torch.where(take_best, lowest, history[-1]),
            best_iteration=best_iteration,
            stalled=stalled,
            nonfinite=nonfinite,
            distance=torch.linalg.vector_norm(images - seed.detach(), dim=(1, 2, 3)),
            history=history,
        )


@torch.no_grad()
def _represent_targets(network: Network, images: Tensor) -> Tensor:
    try:
        return network.represent(images)
    except RuntimeError as error:
        dtype = next((weight.dtype for weight in network.parameters()), images.dtype)
        if dtype == images.dtype:
            raise
        # Not refused beforehand: a network may well convert its input by itself.
        raise DataError(f"images are {images.dtype} and the network is {dtype}: convert one of them") from error


def _measure(represent: Represent, images: Tensor, target: Tensor, *, with_descent: bool) -> tuple[Tensor, Tensor]:
    """Loss (n,) of the images and, with `with_descent`, the direction (n, C, H, W) of steepest descent, else empty.

    Its length means nothing: it belongs to ||t|| times the loss. It is taken from the representation's side, with the
    residual as a unit vector, because that is as exact whatever the scale of the representation is, and because the
    derivative of a norm at zero, which is where a seed that equals its target starts, never comes up.
    """
    with torch.set_grad_enabled(with_descent):
        leaf = images.detach().requires_grad_(with_descent)  # shares memory: no copy
        representation = represent(leaf)
    if representation.shape != target.shape:
        raise DataError(
            f"the images are represented by {tuple(representation.shape)} numbers and the target representation has "
            f"{tuple(target.shape)}; both must be (images, width) from the same network"
        )
    residual = target - representation.detach()  # in the dtype of the images, also if the network works in half
    separation = torch.linalg.vector_norm(residual, dim=1)
    loss = separation / torch.linalg.vector_norm(target, dim=1)
    if not with_descent:
        return loss, images.new_empty(0)
    if not representation.requires_grad:
        raise NetworkError(
            "the representation has no gradient with respect to the images; "
            "give a network that is differentiable, without no_grad or detach inside"
        )
    cotangent = residual / torch.where(separation == 0, 1, separation)[:, None]
    (descent,) = torch.autograd.grad(representation, leaf, cotangent)
    return loss, descent


def _step(
    images: Tensor, velocity: Tensor, descent: Tensor, length: Tensor, *, step_size: float, momentum: float
) -> None:
    """One step along the momentum, in place. `length` (n,) is the norm of `descent`; at zero, momentum moves alone."""
    scale = (1 - momentum) / torch.where(length == 0, 1, length)  # 0 / 0 would be NaN for good
    velocity.mul_(momentum).addcmul_(descent, _per_image(scale))
    images.add_(velocity, alpha=step_size).clamp_(0, 1)


def _per_image(values: Tensor) -> Tensor:
    """(n,) as (n, 1, 1, 1), to go with images."""
    return values[:, None, None, None]


@contextmanager
def _evaluating(module: nn.Module | None) -> Iterator[None]:
    """Evaluation mode and no weight gradients inside; afterwards every flag of every part is what it was."""
    training = {part: part.training for part in module.modules()} if module is not None else {}
    differentiated = [weight for weight in module.parameters() if weight.requires_grad] if module is not None else []
    try:
        if module is not None:
            module.eval()
        for weight in differentiated:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in differentiated:
            weight.requires_grad_(True)
        for part, was_training in training.items():
            part.training = was_training  # not part.train(): it would change the parts below, and may be overridden


def _module_of(represent: Represent) -> nn.Module | None:
    """The module behind a callable, where one can be seen: the callable itself, or what it is a method of."""
    owner = getattr(represent, "__self__", represent)
    return owner if isinstance(owner, nn.Module) else None


def _device(module: nn.Module) -> torch.device:
    return next((tensor.device for tensor in chain(module.parameters(), module.buffers())), torch.device("cpu"))


def _on_cpu(record: Inversion) -> Inversion:
    return Inversion(**{field.name: getattr(record, field.name).cpu() for field in fields(Inversion)})


def _joined(records: list[Inversion]) -> Inversion:
    columns = {"history": 1}  # the dimension that runs over images, where it is not the first
    return Inversion(
        **{
            field.name: torch.cat([getattr(record, field.name) for record in records], dim=columns.get(field.name, 0))
            for field in fields(Inversion)
        }
    )


def _check_schedule(*, iterations: int, step_size: float, momentum: float, batch_size: int = 1) -> None:
    for name, value, published in (("iterations", iterations, 2000), ("batch_size", batch_size, 32)):
        if not isinstance(value, Integral) or value < 1:
            raise SettingsError(f"{name} is {value}; it must be a whole number from 1 on, published is {published}")
    if not 0 < step_size < float("inf"):
        raise SettingsError(f"step_size is {step_size}; it must be above 0 and finite, published is 0.125")
    if not 0 <= momentum < 1:
        raise SettingsError(f"momentum is {momentum}; it must be at least 0 and below 1, published is 0.9")


def _check_pairs(seed_images: Tensor, target_images: Tensor) -> None:
    _check_images(seed_images, "seed")
    _check_images(target_images, "target")
    if seed_images.shape != target_images.shape or seed_images.dtype != target_images.dtype:
        raise DataError(
            f"seed images are {tuple(seed_images.shape)} {seed_images.dtype} and target images "
            f"{tuple(target_images.shape)} {target_images.dtype}; give as many of one as of the other, of the same kind"
        )


def _check_images(images: Tensor, what: str) -> None:
    if not isinstance(images, Tensor):
        raise DataError(f"{what} images are a {type(images).__name__}; give a torch tensor (n, C, H, W)")
    if images.ndim != 4 or not images.numel():
        raise DataError(f"{what} images have shape {tuple(images.shape)}; give (n, C, H, W), n at least 1")
    if images.dtype not in (torch.float32, torch.float64):
        # Half precision has no room for steps: at 224 px a step moves a pixel by 0.0003, the spacing at 0.5 is 0.0005.
        raise DataError(f"{what} images are {images.dtype}; give float32 or float64 in [0, 1] (bytes: divide by 255)")
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    if not finite.all():
        rows = (~finite).nonzero().flatten().tolist()
        shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise DataError(f"{what} images {shown} of {len(images)} have values that are not finite; leave them out")
    low, high = (value.item() for value in torch.aminmax(images))
    if low < 0 or high > 1:
        raise DataError(
            f"{what} images go from {low:.4g} to {high:.4g}; they must be in [0, 1], "
            "before normalisation (it belongs inside the network)"
        )
