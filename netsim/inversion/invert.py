"""Representation inversion: move a seed image until a network represents it as it represents a target image.

n = images, C, H, W = an image, d = width of the representation, k = iterations.

For each image by itself, with x_0 = seed, m_0 = 0 and t = rep(target):

    loss(x) = ||rep(x) - t|| / ||t||                            relative distance: 0 is perfect
    g       = -grad loss(x_k) / ||grad loss(x_k)||
    m_k+1   = momentum * m_k + (1 - momentum) * g               no bias correction
    x_k+1   = clamp(x_k + step_size * m_k+1, 0, 1)

The result is the x_k, k = 0 ... iterations, of the lowest loss. The loss and g are computed by
`netsim.inversion.engine.loss_and_descent`; the last two lines, the momentum step, are `MomentumUpdate.step` in
netsim/inversion/steps.py, which also has another update rule. One iteration is `Slots.evaluate` and `Slots.step` in
netsim/inversion/slots.py; the loop over them is `_invert` below.

The published code also keeps x within 1000 (L2) of the seed. That is omitted here: images of fewer than a million
values cannot be so far apart, and no image can get there in fewer than 1000 / step_size iterations.

With a `stop_loss`, an image is finished at the first x_k whose loss is no higher, and the next image takes its place in
the batch. Each image takes the same path as it would alone, and the cost depends on all images, not on the slowest one
of each batch.

Re-implemented from the published description, not copied, and checked step by step against the `robustness` library in
tests/integration/test_parity.py. Sources: Jones, Springer, Kenyon, Moore 2022, "If you've trained one you've trained
them all: inter-architecture similarity increases with robustness", UAI, PMLR 180:928-937 (objective, optimiser,
settings); Ilyas et al. 2019, https://arxiv.org/abs/1905.02175 (inversion as such).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn
from tqdm import tqdm

from netsim.allocator import release_memory, retaining_memory
from netsim.errors import DataError, NetworkError, SettingsError
from netsim.inversion.engine import Engine, Represent, loss_and_descent, relative_distance
from netsim.inversion.execution import Execution, Plain, execution_on
from netsim.inversion.precision import Precision
from netsim.inversion.slots import LossAndDescent, Slots
from netsim.inversion.steps import UpdateRule, kept_bytes, update_rule_of
from netsim.networks import Network, as_network
from netsim.networks.ambient import plain_torch
from netsim.networks.gate import DTYPES, require_dtype
from netsim.settings import InversionSettings, explain

# Farthest that rounding, as in a resize, puts a pixel outside [0, 1]. Such pixels are clipped.
PIXEL_ROUNDING = 1e-6


@dataclass(frozen=True)
class Iteration:
    """Images whose loss was just evaluated, m of the n. They change in place: copy what you keep."""

    pairs: Tensor  # (m,) int64, indices into the n pairs, on the CPU
    k: Tensor  # (m,) int64, steps taken so far, 0 for the seed, on the CPU
    images: Tensor  # (m, C, H, W), x_k
    losses: Tensor  # (m,)


OnIteration = Callable[[Iteration], None]


@dataclass(frozen=True)
class Inversion:
    """Results of inverting n pairs. Losses and `distance` have the dtype of the seeds (usually float32).

    `stalled` and `nonfinite` flag images whose result needs care. A stalled image had a gradient of zero at some
    iteration, where the published step continues with momentum only; an image that equals its target is one of them. A
    nonfinite image had a loss or a gradient that was not finite (a target represented by zeros, an overflow). It was
    reset to its best image so far and stayed there, and its later losses are those of that image.
    """

    images: Tensor  # (n, C, H, W) in [0, 1]
    initial_loss: Tensor  # (n,) of the seeds
    final_loss: Tensor  # (n,) of `images`
    best_iteration: Tensor  # (n,) int64, the k of the lowest loss, 0 for the seed; that of `images` with use_best
    iterations: Tensor  # (n,) int64, steps taken; fewer than the setting where an image reached stop_loss
    stop_reason: Tensor  # (n,) uint8, an index into STOP_REASONS
    stalled: Tensor  # (n,) bool
    nonfinite: Tensor  # (n,) bool
    distance: Tensor  # (n,) L2 distance from the seed, in pixels of [0, 1]
    batch_size: int  # images that were evaluated at once, after any halving
    history: Tensor  # (iterations + 1, n) loss of x_k; row 0 is `initial_loss`; a finished image keeps its last loss


@retaining_memory
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
    """Invert representations: move each seed image until `model` represents it like its target image.

    Replaces the published function of this name, with its defaults [1]_; the idea is older [2]_. The model works on its
    own device, in evaluation mode, and is unchanged afterwards. On a terminal, a progress bar is shown.
    `netsim.inversion.invert.invert_batches` returns losses, too.

    Parameters
    ----------
    model
        A `robustness` AttackerModel, any classifier of images in [0, 1] that ends in an ``nn.Linear``, or a netsim
        Network. Its representation is the input of the last linear layer.
    seed_images
        Images to start from: (n, C, H, W), float32 or float64, in [0, 1]. What is outside by at most 1e-6, as after a
        resize, is clipped.
    target_images
        Images whose representations to reach. Shape and dtype are those of `seed_images`; pair i is seed i and
        target i.
    batch_size
        Most images to evaluate at once; halved while they do not fit into memory. It changes results by rounding only.
    step_size
        L2 length of a step in pixels of [0, 1], greater than 0. Only for the preset "published".
    iterations
        Most steps per image, at least 1. Each costs one forward pass and one gradient with respect to the images.
    use_best
        Return the image of the lowest loss, ||rep - target|| / ||target||; if False, the last image.
    preset
        "published" for the published momentum steps; "fast" for other, fewer steps to the same loss
        (`netsim.inversion.steps`), which give other images.
    stop_loss
        Loss at which an image is finished, greater than 0. Default: take all steps.

    Returns
    -------
    Images (n, C, H, W) in [0, 1], on the CPU, with the dtype of `seed_images`.

    Raises
    ------
    DataError
        If images are not finite floats (n, C, H, W) in [0, 1], or seeds and targets differ in shape or dtype.
    SettingsError
        If a setting is out of range.
    NetworkError
        If `model` is not a module, does not fit into memory, has weights of another dtype than the images, or misses
        any condition of `netsim.networks.gate`: it ends in one linear layer, represents each image by itself, is
        deterministic and differentiable, ...

    References
    ----------
    .. [1] Jones, Springer, Kenyon, Moore 2022, "If you've trained one you've trained them all: inter-architecture
       similarity increases with robustness", UAI, PMLR 180:928-937.
    .. [2] Ilyas et al. 2019, "Adversarial examples are not bugs, they are features", https://arxiv.org/abs/1905.02175.

    Examples
    --------
    >>> import netsim, torch
    >>> model = netsim.load_network("small:vgg@none", num_classes=10, input_shape=(1, 28, 28))
    >>> seeds, targets = torch.rand(2, 2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    >>> images = netsim.invert_images(model, seeds, targets, iterations=3)
    >>> images.shape
    torch.Size([2, 1, 28, 28])
    >>> goal = model.represent(targets)
    >>> (model.represent(images) - goal).norm(dim=1) < (model.represent(seeds) - goal).norm(dim=1)
    tensor([True, True])
    """
    settings = inversion_settings(
        preset=preset, iterations=iterations, step_size=step_size, batch_size=batch_size, stop_loss=stop_loss
    )
    if not isinstance(model, nn.Module):
        raise NetworkError(f"the model must be a torch.nn.Module that classifies images, got {_type_name(model)}")
    seed_images, target_images = _valid_pairs(seed_images, target_images)
    with (
        plain_torch(),
        tqdm(total=len(seed_images) * (iterations + 1), unit="it", desc="inverting", disable=None) as bar,
    ):

        def advance(iteration: Iteration) -> None:
            bar.update(len(iteration.pairs))

        inversion = invert_batches(
            as_network(model, seed_images[:2]),
            seed_images,
            target_images,
            settings,
            use_best=use_best,
            on_iteration=advance,
        )
    release_memory()  # the caller may have other work for it
    return inversion.images


def inversion_settings(**values: Any) -> InversionSettings:
    """Make settings from plain values, including numpy's.

    Raises
    ------
    SettingsError
        If a value is out of range.
    """
    try:
        return InversionSettings(**{name: _plain(value) for name, value in values.items()})
    except ValidationError as error:
        raise SettingsError(explain(error, InversionSettings)) from None


def _plain(value: Any) -> Any:
    """Convert a number of another library to Python's; return everything else as it is."""
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


@retaining_memory
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
    execution: Execution | None = None,
) -> Inversion:
    """Invert n pairs on the network's device, `settings.batch_size` at a time, and return results on the CPU.

    One iteration is one forward pass and one input gradient, in `precision`; `final_loss` is evaluated by the network
    itself. The batch size, by default as many images as fit into memory, determines speed and memory, and changes
    results by float rounding only.

    Parameters
    ----------
    seed_images, target_images
        (n, C, H, W), float32 or float64, in [0, 1]; pair i is seed i and target i.
    precision
        Numeric precision of the layers; `netsim.inversion.calibrate.choose_precision` finds the fastest.
    update_rule
        Replaces the rule of `settings.preset`.
    use_best
        Return the image of the lowest loss, as published; if False, the last image.
    on_iteration
        Called at every iteration with the images in progress.
    execution
        How iterations are executed. Default: as CUDA graphs on a GPU, and plainly elsewhere.

    Raises
    ------
    DataError, NetworkError
        As in `invert_images`.
    """
    update_rule = update_rule or update_rule_of(settings)
    seed_images, target_images = (images.cpu() for images in _valid_pairs(seed_images, target_images))
    require_dtype(network.mean, seed_images.dtype, name=network.name)
    with _evaluating(network), plain_torch(), torch.no_grad():
        kept = kept_bytes(update_rule, seed_images[:1])
        engine = Engine(network, seed_images, precision=precision, batch_size=settings.batch_size, kept_bytes=kept)
        exact, target = _represent_targets(engine, target_images)
        execution = execution or execution_on(engine.device, network.name)
        # What a graph replays cannot depend on whether a gradient is finite.
        retry = engine.loss_and_descent if execution.replays and engine.may_lose_gradients else None
        inversion = _invert(
            partial(engine.loss_and_descent, retry=retry is None),
            seed_images.detach(),
            target.to(seed_images.dtype),
            settings,
            update_rule,
            batch_size=engine.batch_size,
            device=engine.device,
            use_best=use_best,
            on_iteration=on_iteration,
            execution=execution,
            retry=retry,
        )
        represented = engine.represent_exactly(inversion.images)
        final_loss = relative_distance(represented, exact).to(inversion.final_loss).cpu()
        return replace(inversion, final_loss=final_loss, batch_size=engine.batch_size)


def invert(
    represent: Represent,
    seed: Tensor,
    target_representation: Tensor,
    settings: InversionSettings = InversionSettings(),
    *,
    update_rule: UpdateRule | None = None,
    use_best: bool = True,
    on_iteration: OnIteration | None = None,
    execution: Execution | None = None,
) -> Inversion:
    """Move images until `represent` maps them to given representations: one batch, any differentiable function.

    This is the loop in its pure form, for functions that are not a `Network`, such as a layer inside a model or a
    formula. Tests use it to compare the loop with the equations above. Nothing is folded, converted or divided into
    batches, and memory is not probed; use `invert_batches` for that.

    `represent` is called iterations + 1 times and differentiated with respect to the images only. The result of an
    image does not depend on the others beyond float rounding, provided that `represent` treats each by itself. For that
    reason a module, or the module that `represent` is a method of, is in evaluation mode meanwhile. Without a
    `stop_loss`, nothing waits for the device: an iteration has no ``.item()``.

    Parameters
    ----------
    represent
        Differentiable function, (n, C, H, W) -> (n, d).
    seed
        Images (n, C, H, W), float32 or float64, in [0, 1].
    target_representation
        (n, d), a row for each seed.
    update_rule, use_best, on_iteration
        As in `invert_batches`.
    execution
        How iterations are executed. Default: plainly, because `represent` may do anything.

    Returns
    -------
    Results on the device of `seed`. `final_loss` is that of the loop.

    Raises
    ------
    DataError, NetworkError
        As in `invert_images`.
    """
    seed = _valid_images(seed, "seed")
    if target_representation.ndim != 2 or len(target_representation) != len(seed):
        raise DataError(
            f"the target representation must have shape ({len(seed)}, d), a row for each seed, "
            f"got {tuple(target_representation.shape)}"
        )
    with _evaluating(_module_of(represent)), plain_torch(), torch.no_grad():
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
            execution=execution or Plain(),
        )


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
    execution: Execution,
    retry: LossAndDescent | None = None,
) -> Inversion:
    """Invert all n pairs, at most `batch_size` at once: where one is finished, the next begins."""
    slots = Slots(
        loss_and_descent_of,
        seed,
        target,
        settings,
        update_rule,
        count=min(batch_size, len(seed)),
        device=device,
        use_best=use_best,
        retry=retry,
    )
    results, last_k = _Results(seed), settings.iterations
    for iteration in count(1):
        last = bool((slots.steps >= last_k).all())
        look = settings.stop_loss is not None and not last and iteration % execution.look_every == 0
        if last and not execution.replays:
            slots.evaluate(with_descent=False)
        else:
            execution.run(slots.evaluate)
        if look:
            slots.send_flags()
        if on_iteration is not None:
            on_iteration(_in_progress(slots, last_k))
        if not last:
            slots.mend()
            execution.run(slots.step)  # the device has work while the host looks at the flags
        finished = slots.received_flags() if look else slots.live & last
        slots.steps += 1
        if finished.any():
            rows = np.flatnonzero(finished)
            results.collect(slots.pairs[rows], slots.results(rows))
            slots.replace(rows)
            if not slots.live.any():
                break
            if slots.live.sum() <= execution.shrink_at * len(slots) and not slots.live.all():
                slots.shrink()
                execution.reset()
    execution.reset()
    return results.to_inversion(slots.history.to(seed.device), batch_size)


def _in_progress(slots: Slots, last_k: int) -> Iteration:
    """Return the images that were just evaluated. What the host does not know to be finished is among them."""
    k, pairs, images, losses = slots.steps, slots.pairs, slots.images, slots.loss
    if not (active := slots.live & (k <= last_k)).all():
        rows = torch.from_numpy(np.flatnonzero(active)).to(images.device)
        k, pairs, images, losses = k[active], pairs[active], images[rows], losses[rows]
    return Iteration(torch.from_numpy(pairs), torch.from_numpy(k), images, losses)


class _Results:
    """Results of the images that are finished so far, on the device of the seeds."""

    def __init__(self, seed: Tensor) -> None:
        n = len(seed)
        self.seed, self.images = seed, torch.empty_like(seed)
        self.final_loss = seed.new_empty(n)
        self.iterations = torch.zeros(n, dtype=torch.int64, device=seed.device)
        self.stop_reason = torch.zeros(n, dtype=torch.uint8, device=seed.device)
        self.stalled = torch.zeros(n, dtype=torch.bool, device=seed.device)
        self.nonfinite = self.stalled.clone()

    def collect(self, pairs: NDArray[np.int64], state: Mapping[str, Tensor]) -> None:
        """Add the images of `pairs` (m,), whose slots had this `state`."""
        index = torch.from_numpy(pairs).to(self.seed.device)
        best, loss, k, reached, nonfinite, stalled = (values.to(self.seed.device) for values in state.values())
        self.images[index], self.final_loss[index], self.iterations[index] = best, loss, k
        self.nonfinite[index], self.stalled[index] = nonfinite, stalled
        # Indices into STOP_REASONS.
        self.stop_reason[index] = torch.where(nonfinite, 2, reached.to(torch.int64)).to(self.stop_reason)

    def to_inversion(self, history: Tensor, batch_size: int) -> Inversion:
        """Return all results, when every image is finished."""
        after = torch.arange(len(history), device=history.device)[:, None] > self.iterations
        history = torch.where(after, self.final_loss, history)
        # The loop replaces the best image by strictly better ones only: it keeps the first of equals, as argmin does.
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
    """Represent targets by the network itself, and as the loop is to reach them: (n, d) each.

    In full precision, the loop's are the engine's representations, so that a seed that equals its target has a loss of
    zero. In half precision they are the exact ones, so that rounding does not move the target.
    """
    exact = engine.represent_exactly(images)
    return exact, engine.represent_all(images) if engine.precision == Precision() else exact


@contextmanager
def _evaluating(module: nn.Module | None) -> Iterator[None]:
    """Put a module into evaluation mode, without weight gradients; restore every flag of every part afterwards."""
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
            part.training = was_training  # not part.train(), which changes the parts below, too, and may be overridden


def _module_of(represent: Represent) -> nn.Module | None:
    """Return the module behind a callable: the callable itself, or the object it is a method of; otherwise None."""
    owner = getattr(represent, "__self__", represent)
    return owner if isinstance(owner, nn.Module) else None


def _valid_pairs(seed_images: Tensor, target_images: Tensor) -> tuple[Tensor, Tensor]:
    """Check seed and target images, and return them without rounding errors outside [0, 1]."""
    seed_images, target_images = _valid_images(seed_images, "seed"), _valid_images(target_images, "target")
    if seed_images.shape != target_images.shape or seed_images.dtype != target_images.dtype:
        raise DataError(
            f"seed and target images must have the same shape and dtype, got {tuple(seed_images.shape)} "
            f"{seed_images.dtype} and {tuple(target_images.shape)} {target_images.dtype}"
        )
    return seed_images, target_images


def _valid_images(images: Tensor, role: str) -> Tensor:
    if not isinstance(images, Tensor):
        raise DataError(f"{role} images must be a torch tensor (n, C, H, W), got {_type_name(images)}")
    if images.ndim != 4 or not images.numel():
        raise DataError(f"{role} images must have shape (n, C, H, W) with n at least 1, got {tuple(images.shape)}")
    if images.dtype not in DTYPES:
        # Half precision has no room for steps: at 224 px a step moves a pixel by 0.0003, the spacing at 0.5 is 0.0005.
        raise DataError(f"{role} images must be float32 or float64 in [0, 1], got {images.dtype}; divide bytes by 255")
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    if not finite.all():
        rows = (~finite).nonzero().flatten().tolist()
        shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise DataError(f"{role} images must be finite, got NaN or infinity in {shown} of {len(images)}; remove these")
    low, high = (value.item() for value in torch.aminmax(images))
    if low < -PIXEL_ROUNDING or high > 1 + PIXEL_ROUNDING:
        raise DataError(
            f"{role} images must be in [0, 1], got {low:.8g} to {high:.8g}; "
            "give them before normalisation, which belongs inside the network"
        )
    return images.clamp(0, 1) if low < 0 or high > 1 else images


def _type_name(value: object) -> str:
    return type(value).__name__
