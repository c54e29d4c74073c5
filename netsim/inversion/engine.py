"""The engine of inversion: loss and direction of steepest descent of a batch of images, as fast as the device allows.

n = images, C, H, W = an image, d = width of the representation.

What an iteration needs of a network is its loss ||rep(x) - t|| / ||t|| and the gradient of it by the images. So the
engine takes one forward and one input gradient: no head, no weight gradients. It works on a copy of the network, where
BatchNorm is folded into the convolution before it, layers are stored channels last, and weights and activations have 16
bits where a half precision is asked for. Images, losses and what is added up over iterations stay in the dtype of the
images; whoever reports a loss measures it again with the network itself.

Images are evaluated `batch_size` at a time. When that does not fit into memory, half as many are tried from there on.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from netsim.errors import DataError, NetworkError
from netsim.inversion.folding import prepared_body
from netsim.inversion.memory import fitting_batch_size, is_out_of_memory
from netsim.inversion.precision import Precision
from netsim.networks import Network
from netsim.networks.network import first_line

logger = logging.getLogger(__name__)

Represent = Callable[[Tensor], Tensor]  # images (n, C, H, W) -> representations (n, d), each image by itself
T = TypeVar("T")


COTANGENT_SCALES = (2.0**10, 2.0**2, 2.0**-6)
"""Lengths of the cotangent with which a gradient is tried in float16, where one could overflow or vanish."""


class Engine:
    """`network` on its device, ready to be inverted. It follows no later change of the network's weights.

    `example_images` (n, C, H, W) in [0, 1] are what the folded copy is checked on; one is enough. `batch_size` None is
    chosen by a probe of the memory that an image takes (`fitting_batch_size`), besides the `kept_bytes` that the caller
    keeps of it.
    """

    def __init__(
        self,
        network: Network,
        example_images: Tensor,
        *,
        precision: Precision = Precision(),
        batch_size: int | None = None,
        kept_bytes: int = 0,
    ) -> None:
        self.network = network
        self.precision = precision
        self.device = network.mean.device
        example = example_images[:1].detach().to(self.device)
        with torch.inference_mode(False):
            example = example.clone()  # what was made in inference mode takes no gradient
            self._body = prepared_body(network, example, precision)
        self.batch_size = batch_size or 1
        if precision != Precision():
            self._require_precision(example)
        if batch_size is None:
            self.batch_size = fitting_batch_size(self, example, kept_bytes=kept_bytes)

    def parts(self) -> Iterator[nn.Module]:
        """The layers that are evaluated."""
        return self._body.modules()

    def represent(self, images: Tensor) -> Tensor:
        """(n, d), in the precision of the precision: what `loss_and_descent` differentiates."""
        return self._body(self.network.normalised(images))

    def loss_and_descent(self, images: Tensor, target: Tensor, *, with_descent: bool = True) -> tuple[Tensor, Tensor]:
        """Loss (n,) of `images` against the representations `target` (n, d), and the direction of steepest descent.

        The direction (n, C, H, W) is minus the gradient of ||rep - t||, that is, of the loss times ||t||; it is empty
        without `with_descent`. Raises NetworkError if not even one image fits into memory.
        """
        return self._fitting(lambda: self._in_batches(images, target, with_descent), len(images))

    def represent_exactly(self, images: Tensor) -> Tensor:
        """(n, d) by the network itself, not in the precision of the precision: `images` (n, C, H, W) on any device."""
        return self._all(self.network.represent, images)

    def represent_all(self, images: Tensor) -> Tensor:
        """(n, d) by what `loss_and_descent` differentiates: `images` (n, C, H, W) on any device."""
        return self._all(self.represent, images)

    @torch.no_grad()
    def _all(self, represent: Represent, images: Tensor) -> Tensor:
        def in_batches() -> Tensor:
            return torch.cat([represent(batch.to(self.device)) for batch in images.split(self.batch_size)])

        return self._fitting(in_batches, len(images))

    def _fitting(self, work: Callable[[], T], images: int) -> T:
        """What `work` gives, with as many images at a time as fit into memory."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                fault = str(error).partition("\n")[0]
            self._halve(images, fault)  # out here, where the error no longer holds what was allocated

    @torch.no_grad()
    def _require_precision(self, example: Tensor) -> None:
        try:
            self._fitting(lambda: self.represent(example), 1)
        except RuntimeError as error:
            raise NetworkError(
                f"{self.network.name} cannot be computed in {self.precision} ({first_line(error)}); "
                "give inversion.precision float32 or auto"
            ) from error

    def _in_batches(self, images: Tensor, target: Tensor, with_descent: bool) -> tuple[Tensor, Tensor]:
        found = [
            loss_and_descent(self.represent, *batch, with_descent=with_descent, scales=self._scales)
            for batch in zip(images.split(self.batch_size), target.split(self.batch_size), strict=True)
        ]
        losses, descents = zip(*found, strict=True)
        return (losses[0], descents[0]) if len(found) == 1 else (torch.cat(losses), torch.cat(descents))

    @property
    def _scales(self) -> tuple[float, ...]:
        """bfloat16 reaches as far as float32 does."""
        return COTANGENT_SCALES if "float16" in (self.precision.dtype, self.precision.grouped) else (1.0,)

    def _halve(self, images: int, fault: str) -> None:
        tried = min(self.batch_size, images)
        if tried == 1:
            raise NetworkError(
                f"{self.network.name} does not fit into the memory of {self.device} with a single image; "
                f"give smaller images, fewer workers, or a device with more memory ({fault})"
            )
        self.batch_size = -(-tried // 2)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "%s: out of memory with %d images at a time; going on with %d", self.network.name, tried, self.batch_size
        )


def loss_and_descent(
    represent: Represent,
    images: Tensor,
    target: Tensor,
    *,
    with_descent: bool = True,
    scales: tuple[float, ...] = (1.0,),
) -> tuple[Tensor, Tensor]:
    """Loss (n,) of the images and direction (n, C, H, W) of steepest descent of ||rep - t||.

    It is taken from the representation's side, with the residual as a unit vector, because that is as exact whatever
    the scale of the representation is, and because the derivative of a norm at zero, which is where a seed that equals
    its target starts, never comes up. `scales` are tried in turn as the length of the unit vector, for the images whose
    gradient is not finite with those before; the result does not depend on them otherwise.
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
    unit = residual / torch.where(separation == 0, 1, separation)[:, None]
    return loss, _gradient(representation, leaf, unit, scales)


def relative_distance(representation: Tensor, target: Tensor) -> Tensor:
    """||representation - target|| / ||target|| of each row: (n, d), (n, d) -> (n,)."""
    return torch.linalg.vector_norm(representation - target, dim=1) / torch.linalg.vector_norm(target, dim=1)


def _gradient(representation: Tensor, leaf: Tensor, unit: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Of `unit` . representation by `leaf`; where it is not finite with one scale, with the next."""
    found = None
    for scale in scales:
        more = scale != scales[-1]
        (descent,) = torch.autograd.grad(representation, leaf, unit * scale, retain_graph=more)
        descent = descent / scale if scale != 1 else descent
        found = descent if found is None else torch.where(lost, descent, found)  # noqa: F821 (not in the first round)
        if not more:
            break
        lost = (~torch.isfinite(found).flatten(1).all(dim=1) & torch.isfinite(unit).all(dim=1))[:, None, None, None]
        if not lost.any():
            break
    assert found is not None
    return found


# ---- the copy that is evaluated


# ---- which precision


# ---- how many images at a time
