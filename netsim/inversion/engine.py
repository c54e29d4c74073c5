"""The engine of inversion: loss and direction of steepest descent of a batch of images, as fast as the device allows.

n = images, C, H, W = an image, d = width of the representation.

An iteration needs only the loss ||rep(x) - t|| / ||t|| and its gradient with respect to the images. So the engine
computes one forward pass and one input gradient: no head, no weight gradients. It works on a copy of the network, in
which BatchNorm is folded into the preceding convolution, layers are stored channels last, and weights and activations
have 16 bits if a half precision is set; in tf32, a GPU rounds the factors of products. Images, losses and everything
that is accumulated over iterations stay in the dtype of the images; losses that are reported are evaluated again by the
network itself.

Images are evaluated `batch_size` at a time. When these do not fit into memory, the batch size is halved for good.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from netsim.errors import DataError, NetworkError, first_line
from netsim.inversion.folding import prepared_body
from netsim.inversion.precision import Precision
from netsim.networks import Network
from netsim.networks.ambient import tf32_numbers
from netsim.networks.batches import Batches
from netsim.networks.memory import fitting_batch_size, peak_bytes

# Function that maps images (n, C, H, W) to representations (n, d), each image by itself.
Represent = Callable[[Tensor], Tensor]

COTANGENT_SCALES = (2.0**10, 2.0**2, 2.0**-6)
"""Lengths of the cotangent with which a gradient is tried in float16, where it can overflow or vanish."""


class Engine:
    """A network on its device, prepared for inversion. Make a new engine after a change of the network's weights.

    Parameters
    ----------
    example_images
        Images (n, C, H, W) in [0, 1] to check the folded copy on; the first one is used.
    precision
        Numeric precision of the layers.
    batch_size
        Most images to evaluate at once. Default: as many as fit into memory (`fitting_batch_size`).
    kept_bytes
        Memory that the caller keeps of each image between iterations, for the default batch size.

    Raises
    ------
    NetworkError
        If the network cannot be computed in `precision`, or not even one image fits into memory.
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
            example = example.clone()  # a tensor made in inference mode cannot have a gradient
            self._body = prepared_body(network, example, precision)
        self._batches = Batches(network, batch_size or 1)
        if precision != Precision():
            self._require_precision(example)
        if batch_size is None:
            self._batches.size = self._batches.attempt(lambda: self._fitting_batch_size(example, kept_bytes), 1)

    @property
    def batch_size(self) -> int:
        """Images that are evaluated at once; halved, for good, whenever they do not fit into memory."""
        return self._batches.size

    def modules(self) -> Iterator[nn.Module]:
        """Iterate over the modules of the copy that is evaluated."""
        return self._body.modules()

    def represent(self, images: Tensor) -> Tensor:
        """Compute the representations (n, d) that `loss_and_descent` differentiates, in `precision`."""
        return self._body(self.network.normalised(images))

    def represent_all(self, images: Tensor) -> Tensor:
        """Compute `represent` in batches: `images` (n, C, H, W) on any device -> (n, d)."""
        with self._rounding():
            return self._batches.evaluate(self.represent, images)

    def represent_exactly(self, images: Tensor) -> Tensor:
        """Compute representations by the network itself, in batches: `images` (n, C, H, W) on any device -> (n, d)."""
        return self._batches.evaluate(self.network.represent, images)

    def loss_and_descent(
        self, images: Tensor, target: Tensor, *, with_descent: bool = True, retry: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of each image, and its direction of steepest descent.

        Parameters
        ----------
        images
            (n, C, H, W), on the device of the network.
        target
            Representations (n, d) of the targets.
        retry
            Take a gradient that is not finite again, which requires a look at all of them, so that nothing can be
            captured as a graph.

        Returns
        -------
        loss
            (n,) ||rep - t|| / ||t||.
        descent
            (n, C, H, W) minus the gradient of ||rep - t||, that is, of the loss times ||t||. Empty without
            `with_descent`.

        Raises
        ------
        NetworkError
            If not even one image fits into memory.
        """
        scales = self._scales if retry else self._scales[:1]

        def evaluate() -> tuple[Tensor, Tensor]:
            results = [
                loss_and_descent(self.represent, *batch, with_descent=with_descent, scales=scales)
                for batch in zip(images.split(self.batch_size), target.split(self.batch_size), strict=True)
            ]
            losses, descents = zip(*results, strict=True)
            return results[0] if len(results) == 1 else (torch.cat(losses), torch.cat(descents))

        with self._rounding():
            return self._batches.attempt(evaluate, len(images))

    def iteration_bytes(self, images: Tensor) -> int:
        """Measure the peak memory of an iteration of all `images` (n, C, H, W) at once."""
        target = torch.ones(len(images), self.network.width, dtype=images.dtype, device=self.device)
        return peak_bytes(lambda: loss_and_descent(self.represent, images, target, scales=self._scales), self.device)

    def _fitting_batch_size(self, example: Tensor, kept_bytes: int) -> int:
        def bytes_of(count: int) -> int:
            return self.iteration_bytes(example.expand(count, -1, -1, -1))

        return fitting_batch_size(bytes_of, self.device, kept_bytes=kept_bytes)

    def _rounding(self) -> AbstractContextManager[None]:
        """Enter the mode in which the layers are computed."""
        return tf32_numbers() if self.precision.dtype == "tf32" else nullcontext()

    @torch.no_grad()
    def _require_precision(self, example: Tensor) -> None:
        try:
            self._batches.attempt(lambda: self.represent(example), 1)
        except RuntimeError as error:
            raise NetworkError(
                f"{self.network.name} cannot be computed in {self.precision} ({first_line(error)}); "
                "set inversion.precision to float32 or auto"
            ) from error

    @property
    def may_lose_gradients(self) -> bool:
        """True if a gradient can overflow or vanish, and has to be taken again."""
        return len(self._scales) > 1

    @property
    def _scales(self) -> tuple[float, ...]:
        """Lengths of the cotangent to try. The range of bfloat16 is that of float32, so one is enough there."""
        return COTANGENT_SCALES if "float16" in (self.precision.dtype, self.precision.grouped) else (1.0,)


def loss_and_descent(
    represent: Represent,
    images: Tensor,
    target: Tensor,
    *,
    with_descent: bool = True,
    scales: tuple[float, ...] = (1.0,),
) -> tuple[Tensor, Tensor]:
    """Compute the loss (n,) of each image and the direction (n, C, H, W) of steepest descent of ||rep - t||.

    The gradient is taken from the side of the representation, with the unit residual as cotangent. That is equally
    exact whatever the scale of the representation, and it avoids the derivative of a norm at zero, where a seed that
    equals its target starts.

    Parameters
    ----------
    represent
        Differentiable function of images, each by itself.
    images
        (n, C, H, W).
    target
        Representations (n, d) of the targets.
    with_descent
        Without it, the direction is empty and nothing is differentiated.
    scales
        Lengths of the cotangent, tried in turn for the images whose gradient was not finite so far. The result does not
        depend on them otherwise.

    Raises
    ------
    DataError
        If the representation and `target` differ in shape.
    NetworkError
        If the representation has no gradient with respect to the images.
    """
    with torch.set_grad_enabled(with_descent):
        leaf = images.detach().requires_grad_(with_descent)  # shares memory: no copy
        representation = represent(leaf)
    if representation.shape != target.shape:
        raise DataError(
            f"representations of images and targets must have the same shape (n, d), got "
            f"{tuple(representation.shape)} and {tuple(target.shape)}; use the same network for both"
        )
    residual = target - representation.detach()  # in the dtype of the images, even if the network has 16 bits
    separation = torch.linalg.vector_norm(residual, dim=1)
    loss = separation / torch.linalg.vector_norm(target, dim=1)
    if not with_descent:
        return loss, images.new_empty(0)
    if not representation.requires_grad:
        raise NetworkError(
            "representations must be differentiable with respect to the images, got no gradient; "
            "remove no_grad or detach from the network"
        )
    unit = residual / torch.where(separation == 0, 1, separation)[:, None]
    return loss, _gradient(representation, leaf, unit, scales)


def _gradient(representation: Tensor, leaf: Tensor, unit: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Differentiate `unit` . representation by `leaf`; where one scale gives no finite gradient, take the next."""

    def with_scale(scale: float) -> Tensor:
        (gradient,) = torch.autograd.grad(representation, leaf, unit * scale, retain_graph=scale != scales[-1])
        return gradient / scale if scale != 1 else gradient

    gradient = with_scale(scales[0])
    for scale in scales[1:]:
        lost = (~torch.isfinite(gradient).flatten(1).all(dim=1) & torch.isfinite(unit).all(dim=1))[:, None, None, None]
        if not lost.any():
            break
        gradient = torch.where(lost, with_scale(scale), gradient)
    return gradient


def relative_distance(representation: Tensor, target: Tensor) -> Tensor:
    """Compute ||representation - target|| / ||target|| of each row: (n, d), (n, d) -> (n,)."""
    return torch.linalg.vector_norm(representation - target, dim=1) / torch.linalg.vector_norm(target, dim=1)
