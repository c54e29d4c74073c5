"""Representation inversion: move a seed image until a network represents it as it represents a target image.

n = images, C, H, W = an image, d = width of the representation, k = iterations.

Re-implemented from the published description, not copied, and checked step by step against the `robustness` library in
tests/integration/test_parity.py. Sources: Jones, Springer, Kenyon, Moore 2022, "If you've trained one you've trained
them all: inter-architecture similarity increases with robustness", UAI, PMLR 180:928-937 (objective, optimiser,
settings);
Ilyas et al. 2019, https://arxiv.org/abs/1905.02175 (inversion as such).

For each image by itself, with x_0 = seed, m_0 = 0 and t = rep(target):

    loss(x) = ||rep(x) - t|| / ||t||                            relative distance: 0 is perfect
    g       = -grad loss(x_k) / ||grad loss(x_k)||
    m_k+1   = momentum * m_k + (1 - momentum) * g               no bias correction
    x_k+1   = clamp(x_k + step_size * m_k+1, 0, 1)

and the answer is the x_k, k = 0 ... iterations, of the lowest loss. The published code also keeps x within 1000 (L2) of
the seed. That is left out: images of fewer than a million values cannot be so far apart, nor can any image get there
in under 1000 / step_size iterations. These steps are `MomentumUpdate`; netsim.inversion.steps has others.

With a `stop_loss`, an image is finished at the first x_k whose loss is no higher, and the next one takes its place:
each goes the same way as it would alone, and the cost follows the images, not the slowest one of a batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from numbers import Integral, Real
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from tqdm import tqdm

from netsim.errors import DataError, NetworkError, SettingsError
from netsim.inversion.engine import Engine, Represent, loss_and_descent, relative_distance
from netsim.inversion.precision import Precision
from netsim.inversion.steps import UpdateRule, kept_bytes, update_rule_of
from netsim.networks import Network, as_network
from netsim.settings import InversionSettings, explain

LossAndDescent = Callable[..., tuple[Tensor, Tensor]]  # as Engine.loss_and_descent


@dataclass(frozen=True)
class Iteration:
    """What `on_iteration` is told: the images that were just measured, m of the n. Copy what is to be kept."""

    pairs: Tensor  # (m,) int64, which of the n, on the CPU
    k: Tensor  # (m,) int64, the iteration each is at, 0 for the seed, on the CPU
    images: Tensor  # (m, C, H, W), x_k
    losses: Tensor  # (m,)


OnIteration = Callable[[Iteration], None]


@dataclass(frozen=True)
class Inversion:
    """What inverting n pairs gave. Losses and `distance` are in the dtype of the seeds (float32 as a rule).

    `stalled` and `nonfinite` flag images whose result needs care. A stalled image had a gradient of zero at some
    iteration, where the published steps go on with their momentum only; an image that matches its target exactly is one
    of them. A nonfinite one had a loss or a gradient that was not finite (a target represented by zeros, an overflow):
    it was put back to its best so far and stayed there, and its losses after that are those of this image.
    """

    images: Tensor  # (n, C, H, W) in [0, 1]
    initial_loss: Tensor  # (n,) of the seeds
    final_loss: Tensor  # (n,) of `images`
    best_iteration: Tensor  # (n,) int64, the k of the lowest loss, 0 for the seed; `images` with use_best
    iterations: Tensor  # (n,) int64, steps taken: fewer than asked for where an image reached stop_loss
    stop_reason: Tensor  # (n,) uint8, an index into STOP_REASONS
    stalled: Tensor  # (n,) bool
    nonfinite: Tensor  # (n,) bool
    distance: Tensor  # (n,) L2 distance from the seed, in pixels of [0, 1]
    batch_size: int  # images that were evaluated at once, in the end
    history: Tensor  # (iterations + 1, n) loss of x_k; row 0 is `initial_loss`; a finished image keeps its last loss


def invert_images(
    model: nn.Module,
    seed_images: Tensor,
    target_images: Tensor,
    batch_size: int = 32,
    step_size: float = 1 / 8,
    iterations: int = 2000,
    use_best: bool = True,
    *,
    preset: str = "published",
    stop_loss: float | None = None,
) -> Tensor:
    """Images that start as `seed_images` and that `model` represents like `target_images`: (n, C, H, W), on the CPU.

    Stands in for the published function of this name, with its defaults. `model` is a `robustness` AttackerModel, any
    classifier that takes images in [0, 1], or a netsim Network; it works on the device that it is on, in evaluation
    mode, and is left as it came. Both image sets are (n, C, H, W), float32 or float64, in [0, 1]; pair i is seed i and
    target i. `step_size` is the L2 length of a step in pixels of [0, 1]. With `use_best=False` the last image is
    returned instead of the best. Fewer images at a time than `batch_size` are inverted where memory does not hold as
    many. A progress bar shows on a terminal only.

    Beyond the published function: an image is finished where its loss is at most `stop_loss`; `preset="fast"` takes
    other, fewer steps to the same loss (netsim.inversion.steps), has no `step_size`, and gives other images.

    Raises DataError for unfit images, SettingsError for unfit settings, NetworkError for a model without a final linear
    layer. `invert_batches` returns the losses too. Source: Jones et al. 2022, PMLR 180:928-937.
    """
    settings = inversion_settings(
        preset=preset, iterations=iterations, step_size=step_size, batch_size=batch_size, stop_loss=stop_loss
    )
    _check_pairs(seed_images, target_images)
    if not isinstance(model, nn.Module):
        raise NetworkError(f"the model is a {type(model).__name__}; give a torch.nn.Module that classifies images")
    with (
        torch.inference_mode(False),  # a notebook may be in it, and what is made in it takes no gradient
        tqdm(total=len(seed_images) * (iterations + 1), unit="it", desc="inverting", disable=None) as bar,
    ):

        def advance(at: Iteration) -> None:
            bar.update(len(at.pairs))

        record = invert_batches(
            as_network(model, seed_images[:2]),
            seed_images,
            target_images,
            settings,
            use_best=use_best,
            on_iteration=advance,
        )
    return record.images


def inversion_settings(**values: Any) -> InversionSettings:
    """Make settings from plain values, numpy's among them. Raises SettingsError for values out of range."""
    try:
        return InversionSettings(**{name: _plain(value) for name, value in values.items()})
    except ValidationError as error:
        raise SettingsError(explain(error, InversionSettings)) from None


def _plain(value: Any) -> Any:
    """Convert numbers of other libraries to Python's."""
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def invert_batches(
    network: Network,
    seed_images: Tensor,
    target_images: Tensor,
    settings: InversionSettings = InversionSettings(),
    *,
    precision: Precision = Precision(),
    update_rule: UpdateRule | None = None,
    use_best: bool = True,
    on_iteration: OnIteration | None = None,
) -> Inversion:
    """Invert n pairs on the network's device, `settings.batch_size` at a time, and return the record on the CPU.

    One iteration is one forward pass and one input gradient, in `precision` (netsim.inversion.calibrate); `final_loss`
    is evaluated by the network itself. The batch size, by default as many images as memory holds, decides speed and
    memory, and changes results by float rounding only.

    Parameters
    ----------
    update_rule
        Replaces the rule of `settings.preset`.
    use_best
        Return the image of lowest loss, as published; otherwise the last one.
    on_iteration
        Called with the images under way at every iteration.

    Raises
    ------
    DataError, NetworkError
        As in `invert_images`.
    """
    update_rule = update_rule or update_rule_of(settings)
    _check_pairs(seed_images, target_images)
    seed_images, target_images = seed_images.cpu(), target_images.cpu()
    with _evaluating(network), torch.inference_mode(False), torch.no_grad():
        kept = kept_bytes(update_rule, seed_images[:1])
        engine = Engine(network, seed_images, precision=precision, batch_size=settings.batch_size, kept_bytes=kept)
        exact, target = _represent_targets(engine, target_images)
        record = _invert(
            engine.loss_and_descent,
            seed_images.detach(),
            target.to(seed_images.dtype),
            settings,
            update_rule,
            batch_size=engine.batch_size,
            device=engine.device,
            use_best=use_best,
            on_iteration=on_iteration,
        )
        represented = engine.represent_exactly(record.images)
        final_loss = relative_distance(represented, exact).to(record.final_loss).cpu()
        return replace(record, final_loss=final_loss, batch_size=engine.batch_size)


def invert(
    represent: Represent,
    seed: Tensor,
    target_representation: Tensor,
    settings: InversionSettings = InversionSettings(),
    *,
    update_rule: UpdateRule | None = None,
    use_best: bool = True,
    on_iteration: OnIteration | None = None,
) -> Inversion:
    """Move the images `seed` (n, C, H, W) until `represent` gives `target_representation` (n, d): one batch.

    Calls `represent` iterations + 1 times and differentiates it by the images alone. An image's result does not depend
    on the others in the batch beyond float rounding, provided that `represent` treats each by itself; a module is put
    into evaluation mode meanwhile for that reason. `on_iteration` is called for k = 0 ... iterations. With `stop_loss`
    an image is finished when its loss is no higher. The record is on the device of `seed`. Without a `stop_loss`,
    nothing here waits for the device: an iteration has no `.item()`.

    Raises DataError, SettingsError or NetworkError, as in `invert_images`. Source: the equations above.
    """
    _check_images(seed, "seed")
    if target_representation.ndim != 2 or len(target_representation) != len(seed):
        raise DataError(
            f"the target representation has shape {tuple(target_representation.shape)}; give ({len(seed)}, d), "
            "a row for each seed"
        )

    with _evaluating(_module_of(represent)), torch.inference_mode(False), torch.no_grad():
        return _invert(
            partial(loss_and_descent, represent),
            seed.detach(),
            target_representation.detach().to(seed),
            settings,
            update_rule or update_rule_of(settings),
            batch_size=len(seed),
            device=seed.device,
            use_best=use_best,
            on_iteration=on_iteration,
        )


class _Batch:
    """The images under way, m of the n, and all that is kept of each: tensors (m, ...) on the device."""

    def __init__(self, pairs: Tensor, seed: Tensor, target: Tensor, update_rule: UpdateRule) -> None:
        self.pairs, self.k = pairs, torch.zeros_like(pairs)  # on the CPU: asking them does not wait for the device
        self.images, self.best, self.target = seed.clone(), seed.clone(), target
        self.best_loss = seed.new_full((len(seed),), torch.inf)
        self.nonfinite = torch.zeros_like(self.best_loss, dtype=torch.bool)
        self.stalled = self.nonfinite.clone()
        self.memory = update_rule.fresh(self.images)

    def __len__(self) -> int:
        return len(self.pairs)

    def keep(self, rows: Tensor) -> None:
        """Only the images where `rows` (m,) is true."""
        on_device = rows.to(self.images.device)
        self.memory = {name: tensor[on_device] for name, tensor in self.memory.items()}
        for name, tensor in self._tensors():
            setattr(self, name, tensor[rows if tensor.device == rows.device else on_device])

    def join(self, other: "_Batch") -> None:
        self.memory = {name: torch.cat([tensor, other.memory[name]]) for name, tensor in self.memory.items()}
        for name, tensor in self._tensors():
            setattr(self, name, torch.cat([tensor, getattr(other, name)]))

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Tensor)]


def _invert(
    loss_and_descent_of: LossAndDescent,
    seed: Tensor,
    target: Tensor,
    settings: InversionSettings,
    update_rule: UpdateRule,
    *,
    batch_size: int,
    device: torch.device,
    use_best: bool,
    on_iteration: OnIteration | None,
) -> Inversion:
    """All n pairs, at most `batch_size` under way at once: where one is finished, the next begins."""
    record, history = _Record(seed), seed.new_empty(settings.iterations + 1, len(seed), device=device)
    waiting = iter(range(len(seed)))

    def begin(count: int) -> _Batch:
        pairs = torch.tensor(list(islice(waiting, count)), dtype=torch.int64)
        return _Batch(pairs, _rows(seed, pairs, device), _rows(target, pairs, device), update_rule)

    batch = begin(batch_size)
    while len(batch):
        last = batch.k == settings.iterations
        loss, descent = loss_and_descent_of(batch.images, batch.target, with_descent=not bool(last.all()))
        history[batch.k.to(device), batch.pairs.to(device)] = loss
        if on_iteration is not None:
            on_iteration(Iteration(batch.pairs, batch.k, batch.images, loss))
        improved = loss < batch.best_loss  # false for NaN
        batch.best_loss = torch.where(improved, loss, batch.best_loss)
        torch.where(_per_image(improved), batch.images, batch.best, out=batch.best)
        batch.nonfinite |= ~torch.isfinite(loss)
        finished, reached = last, torch.zeros_like(last)
        if settings.stop_loss is not None:
            reached = (loss <= settings.stop_loss).cpu()
            finished = last | reached | batch.nonfinite.cpu()
        if finished.any():
            record.take(batch, finished, loss, reached=reached, use_best=use_best)
            batch.keep(~finished)
        if len(batch):
            if finished.any():
                going_on = (~finished).to(device)
                loss, descent = loss[going_on], descent[going_on]
            length = torch.linalg.vector_norm(descent, dim=(1, 2, 3))
            batch.nonfinite |= ~torch.isfinite(length)
            batch.stalled |= (length == 0) & ~batch.nonfinite
            update_rule.step(batch.memory, batch.images, descent, length, loss)
            torch.where(_per_image(batch.nonfinite), batch.best, batch.images, out=batch.images)
            batch.k = batch.k + 1
        if finished.any() and len(more := begin(batch_size - len(batch))):
            batch.join(more)
    return record.finish(history.to(seed.device), batch_size)


class _Record:
    """The Inversion while it fills, image by image, on the device of the seeds."""

    def __init__(self, seed: Tensor) -> None:
        n = len(seed)
        self.seed, self.images = seed, torch.empty_like(seed)
        self.final_loss = seed.new_empty(n)
        self.iterations = torch.zeros(n, dtype=torch.int64, device=seed.device)
        self.stop_reason = torch.zeros(n, dtype=torch.uint8, device=seed.device)
        self.stalled = torch.zeros(n, dtype=torch.bool, device=seed.device)
        self.nonfinite = self.stalled.clone()

    def take(self, batch: _Batch, rows: Tensor, loss: Tensor, *, reached: Tensor, use_best: bool) -> None:
        """The images of `batch` that are finished: where `rows` (m,) is true."""
        pairs, on_device = batch.pairs[rows].to(self.seed.device), rows.to(loss.device)
        nonfinite = batch.nonfinite[on_device]
        take_best = nonfinite | use_best
        images = torch.where(_per_image(take_best), batch.best[on_device], batch.images[on_device])
        self.images[pairs] = images.to(self.seed.device)
        self.final_loss[pairs] = torch.where(take_best, batch.best_loss[on_device], loss[on_device]).to(
            self.seed.device
        )
        self.iterations[pairs] = batch.k[rows].to(self.seed.device)
        self.stalled[pairs] = batch.stalled[on_device].to(self.seed.device)
        self.nonfinite[pairs] = nonfinite.to(self.seed.device)
        reason = torch.where(reached[rows].to(nonfinite.device), 1, 0)
        self.stop_reason[pairs] = torch.where(nonfinite, 2, reason).to(self.stop_reason)

    def finish(self, history: Tensor, batch_size: int) -> Inversion:
        after = torch.arange(len(history), device=history.device)[:, None] > self.iterations
        history = torch.where(after, self.final_loss, history)
        # The lowest loss by strict improvement is the first of the lowest ones, which is what argmin gives.
        best_iteration = torch.where(torch.isfinite(history), history, torch.inf).argmin(dim=0)
        return Inversion(
            images=self.images,
            initial_loss=history[0].clone(),
            final_loss=self.final_loss,
            best_iteration=best_iteration,
            iterations=self.iterations,
            stop_reason=self.stop_reason,
            stalled=self.stalled,
            nonfinite=self.nonfinite,
            distance=torch.linalg.vector_norm(self.images - self.seed, dim=(1, 2, 3)),
            batch_size=batch_size,
            history=history,
        )


def _represent_targets(engine: Engine, images: Tensor) -> tuple[Tensor, Tensor]:
    """By the network itself, and as the engine is to reach them: (n, d) each.

    In full precision that is the engine's own representation of them, so that a seed which equals its target has a loss
    of zero. In half precision it is the exact one: rounding must not move the goal too.
    """
    try:
        exact = engine.represent_exactly(images)
        return exact, engine.represent_all(images) if engine.precision == Precision() else exact
    except RuntimeError as error:
        dtype = next((weight.dtype for weight in engine.network.parameters()), images.dtype)
        if dtype == images.dtype:
            raise
        # Not refused beforehand: a network may well convert its input by itself.
        raise DataError(f"images are {images.dtype} and the network is {dtype}: convert one of them") from error


def _rows(tensor: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    return tensor[rows.to(tensor.device)].to(device)


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
