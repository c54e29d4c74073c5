"""The slots of an inversion: static buffers of the images in progress, and the two bodies of an iteration on them.

m = slots, n = images, k = iterations, C, H, W = an image, d = width of the representation.

All state of the images in progress lies in tensors (m, ...) that are allocated once. `evaluate` and `step` are one
iteration. They never wait for the device and take the same path whatever the values are, so they can be captured as
graphs and replayed (`netsim.inversion.execution`). An image that is finished is masked: it changes no more until the
host looks, takes its result, and copies the next image into its slot.
"""

from collections.abc import Callable
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netsim.inversion.steps import UpdateRule
from netsim.settings import InversionSettings

# Signature of Engine.loss_and_descent.
LossAndDescent = Callable[..., tuple[Tensor, Tensor]]

# Prefix of an update rule's memory among the names of buffers.
MEMORY = "memory/"


class Slots:
    """The images in progress, m of the n, on the device, and which of all images are still waiting.

    Parameters
    ----------
    loss_and_descent
        Function of images (m, C, H, W) and target representations (m, d), as `Engine.loss_and_descent`.
    seed, target
        (n, C, H, W) and (n, d), on any device.
    count
        Number m of slots, at most n.
    device
        Where the images are evaluated.
    use_best
        Keep the image of the lowest loss of each; if False, the last one.
    retry
        Replacement of `loss_and_descent` for gradients that are not finite; None if it has tried everything.

    Attributes
    ----------
    pairs, steps
        (m,) arrays of the host: the index of each slot's image, and the steps it has taken unless it is finished.
    live
        (m,) array of the host: False where the result was taken and no image was waiting for the slot.
    images, loss
        x_k (m, C, H, W), and the losses (m,) of the last evaluation.
    history
        (iterations + 1, n), loss of x_k.
    """

    images: Tensor
    best: Tensor  # the result so far
    target: Tensor
    loss: Tensor
    best_loss: Tensor
    pair: Tensor  # (m,) int64, as `pairs`
    k: Tensor  # (m,) int64, steps taken
    finished: Tensor  # (m,) bool
    reached: Tensor  # (m,) bool: finished by its loss
    nonfinite: Tensor  # (m,) bool
    stalled: Tensor  # (m,) bool

    def __init__(
        self,
        loss_and_descent: LossAndDescent,
        seed: Tensor,
        target: Tensor,
        settings: InversionSettings,
        update_rule: UpdateRule,
        *,
        count: int,
        device: torch.device,
        use_best: bool,
        retry: LossAndDescent | None = None,
    ) -> None:
        self._loss_and_descent, self._retry = loss_and_descent, retry
        self._rule, self._use_best = update_rule, use_best
        self._iterations, self._stop_loss = settings.iterations, settings.stop_loss
        self._seeds, self._targets, self._device = seed, target, device
        self._waiting = iter(range(len(seed)))
        self.history = seed.new_empty(settings.iterations + 1, len(seed), device=device)
        self.pairs = self._next(count)
        self.steps, self.live = np.zeros(count, dtype=np.int64), np.ones(count, dtype=bool)
        self._buffers = self._begin(self.pairs)
        if device.type == "cuda":
            self._host_flags = torch.empty(count, dtype=torch.bool, pin_memory=torch.cuda.is_available())
        self._use_first(count)

    def __len__(self) -> int:
        return len(self.pairs)

    # --- One iteration, on the device ---

    def evaluate(self, *, with_descent: bool = True) -> None:
        """Evaluate the images: losses, directions of descent, the best images so far, and which are finished."""
        loss, self._descent = self._loss_and_descent(self.images, self.target, with_descent=with_descent)
        if with_descent:
            self._length = torch.linalg.vector_norm(self._descent, dim=(1, 2, 3))
        active = ~self.finished
        torch.where(active, loss, self.loss, out=self.loss)
        self.history[self.k, self.pair] = self.loss
        self.nonfinite |= _is_not_finite(self.loss)
        torch.eq(self.k, self._iterations, out=self.finished)
        if self._stop_loss is not None:
            torch.le(self.loss, self._stop_loss, out=self.reached)
            self.finished |= self.reached | self.nonfinite
        improved = active & (self.loss < self.best_loss)  # false for NaN
        if not self._use_best:
            improved |= active & self.finished & ~self.nonfinite
        torch.where(improved, self.loss, self.best_loss, out=self.best_loss)
        torch.where(_per_image(improved), self.images, self.best, out=self.best)

    def step(self) -> None:
        """Move the images. Those that are finished, or whose loss or gradient is not finite, are their best ones."""
        active = ~self.finished
        self.nonfinite |= active & _is_not_finite(self._length)
        self.stalled |= active & ~self.nonfinite & (self._length == 0)
        self._rule.step(self._memory, self.images, self._descent, self._length, self.loss)
        held = self.nonfinite | self.finished
        torch.where(_per_image(held), self.best, self.images, out=self.images)
        self.k += active

    # --- Between iterations, on the host ---

    def mend(self) -> None:
        """Take the gradients again, with `retry`, if one of them is not finite although its loss is."""
        if self._retry is None or not bool((_is_not_finite(self._length) & ~self.nonfinite).any()):
            return
        _, descent = self._retry(self.images, self.target)
        self._descent.copy_(descent)
        self._length.copy_(torch.linalg.vector_norm(descent, dim=(1, 2, 3)))

    def send_flags(self) -> None:
        """Start to copy the flags of finished images to the host. On a GPU, nothing waits for that."""
        if self._device.type == "cuda":
            self._host_flags[: len(self)].copy_(self.finished, non_blocking=True)
            self._sent = torch.cuda.current_stream(self._device).record_event()

    def received_flags(self) -> NDArray[np.bool_]:
        """Return True for the images (m,) that were finished when their flags were sent."""
        if self._device.type == "cuda":
            self._sent.synchronize()
            return self._host_flags[: len(self)].numpy() & self.live
        return self.finished.cpu().numpy() & self.live

    def results(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the state of the images in some slots, by attribute of this class."""
        index = self._index(rows)
        names = ("best", "best_loss", "k", "reached", "nonfinite", "stalled")
        return {name: getattr(self, name)[index] for name in names}

    def replace(self, rows: NDArray[np.int64]) -> None:
        """Copy images that are waiting into some slots. Slots for which there is none are live no more."""
        pairs = self._next(len(rows))
        refilled, given_up = rows[: len(pairs)], rows[len(pairs) :]
        self.live[given_up] = False
        if len(refilled):
            index = self._index(refilled)
            for name, values in self._begin(pairs).items():
                self._buffers[name][index] = values
            self.pairs[refilled], self.steps[refilled] = pairs, 0

    def shrink(self) -> None:
        """Give up the slots that are not live: images from the end move into their places."""
        count = int(self.live.sum())
        holes, movers = np.flatnonzero(~self.live[:count]), count + np.flatnonzero(self.live[count:])
        to, source = self._index(holes), self._index(movers)
        for buffer in self._buffers.values() if len(holes) else ():
            buffer[to] = buffer[source]
        for values in (self.pairs, self.steps, self.live):
            values[holes] = values[movers]
        self._use_first(count)

    def _use_first(self, count: int) -> None:
        """Use the first slots only, whose tensors are views of the buffers."""
        views = {name: buffer[:count] for name, buffer in self._buffers.items()}
        self._memory = {name.removeprefix(MEMORY): view for name, view in views.items() if name.startswith(MEMORY)}
        for name in views.keys() - {MEMORY + name for name in self._memory}:
            setattr(self, name, views[name])
        self.pairs, self.steps, self.live = self.pairs[:count], self.steps[:count], self.live[:count]

    def _next(self, count: int) -> NDArray[np.int64]:
        """Take at most `count` of the images that are waiting."""
        return np.fromiter(islice(self._waiting, count), dtype=np.int64)

    def _begin(self, pairs: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return all buffers of some images before their first iteration."""
        rows = torch.from_numpy(pairs)
        images = _rows(self._seeds, rows, self._device)
        loss, flags = images.new_full((len(rows),), torch.inf), torch.zeros(len(rows), dtype=torch.bool)
        state = {
            "images": images,
            "best": images.clone(),
            "target": _rows(self._targets, rows, self._device),
            "loss": loss,
            "best_loss": loss.clone(),
            "pair": rows.to(self._device),
            "k": torch.zeros_like(rows, device=self._device),
        }
        state |= {name: flags.to(self._device, copy=True) for name in ("finished", "reached", "nonfinite", "stalled")}
        return state | {MEMORY + name: values for name, values in self._rule.initial_memory(images).items()}

    def _index(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(rows).to(self._device)


def _rows(tensor: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Return rows of a tensor on any device, on `device`."""
    return tensor[rows.to(tensor.device)].to(device)


def _per_image(values: Tensor) -> Tensor:
    """Reshape (m,) to (m, 1, 1, 1), to broadcast over images."""
    return values[:, None, None, None]


def _is_not_finite(values: Tensor) -> Tensor:
    """Return True for NaN and infinity, in half as many operations as `~torch.isfinite`."""
    return ~(values.abs() < torch.inf)
