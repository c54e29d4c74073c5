"""Networks as the rest of netsim uses them: images in [0, 1] -> representation -> logits. n = images, d = width.

A `Network` is any image classifier cut in two: `body` ends where the last linear layer begins, and `head` is that
layer. So `head(represent(images)) == forward(images)` for every architecture, and representations of different networks
are comparable: Klabunde et al. 2025 (https://arxiv.org/abs/2510.19427) compare layers of different kinds in different
networks. The cut is found by observing which `nn.Linear` runs last, so no architecture needs code of its own.

Images are normalised inside, without clamping. `robustness` clamps there, and since torch 2.14 a clamp has no gradient
at its bounds: pixels that reach 0 or 1 would never move again. The bounds on pixels are left to the inversion.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from netsim.errors import DataError, NetworkError
from netsim.networks import gate
from netsim.networks.ambient import plain_numbers, plain_torch
from netsim.networks.gate import Gate, State, WholePass, cause
from netsim.networks.preprocessing import Preprocessing
from netsim.networks.wrappers import unwrap


class Network(nn.Module):
    """A classifier of images in [0, 1], cut in front of its last linear layer.

    It is in evaluation mode, and its weights require no gradients. `model` is not changed, but its tensors are shared,
    not copied, unless they were made in inference mode: training this network trains `model` too.

    Parameters
    ----------
    model
        Classifier that returns logits (n, num_classes).
    example_images
        Images (n, C, H, W) in [0, 1] to run the model on; the first is used, and another one that is made from it.
    name, reference
        Name in messages and results, and the reference the network was loaded by.
    preprocessing
        What `model` expects of its images. Default: RGB in [0, 1].
    hint
        What to do if `model` fails on `example_images`, for the end of the error message.
    check
        False to cut a model whose weights are still to be filled in, without the passes of `netsim.networks.gate`.

    Attributes
    ----------
    body, head
        Everything in front of the last linear layer, and that layer.
    head_paths
        All names of the last linear layer inside `model`.
    mean, std, order
        Normalisation of pixels in [0, 1], each (C, 1, 1), and the permutation of channels (None for RGB).
    origin
        Metadata of the converted file that the weights were read from; empty for all others.

    Raises
    ------
    NetworkError
        If `model` fails on `example_images`, if no cut gives ``head(represent(images)) == model(images)`` on them, or
        for any of the conditions in `netsim.networks.gate`: the model is in evaluation mode, deterministic and
        differentiable, represents each image by itself, and has finite weights of one dtype on one device.
    """

    mean: Tensor
    std: Tensor
    order: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        example_images: Tensor,
        *,
        name: str,
        reference: str,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 (frozen)
        hint: str = "",
        check: bool = True,
    ) -> None:
        super().__init__()
        self.name = name
        self.reference = reference
        self.preprocessing = preprocessing
        self.origin: Mapping[str, Any] = {}
        with plain_torch(), torch.no_grad():
            gate.require_weights(model, name=name)
            body = self._evaluating_copy(model)
            images = gate.two_images(example_images[:1].to(_any_float_tensor(body)))
            self._normalise_by(preprocessing, images)
            state = State.of(body)
            self.head, whole = self._last_linear(body, self.normalised(images), hint)
            state.require_unchanged(body, name=name)
            self.head_paths = _paths_to(self.head, body)
            self.body = _without(self.head, self.head_paths, body)
            if check:
                Gate(name, self.represent, self.head, partial(self._uncut, model), images, whole).require_invertible()
        self.eval()

    @property
    def width(self) -> int:
        """Number of features d of a representation."""
        return self.head.in_features

    @property
    def num_classes(self) -> int:
        """Number of logits of an image."""
        return self.head.out_features

    def represent(self, images: Tensor) -> Tensor:
        """Compute the input (n, d) of the last linear layer, without running it. `images` (n, C, H, W) in [0, 1]."""
        with plain_numbers():
            return self.body(self.normalised(images))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits (n, num_classes) of `images` (n, C, H, W) in [0, 1]."""
        with plain_numbers():
            return self.head(self.represent(images))

    def normalised(self, images: Tensor) -> Tensor:
        """Convert `images` (n, C, H, W) in [0, 1] to the range and channel order of the network, as `body` expects."""
        if self.order is not None:
            images = images[:, self.order]
        return (images - self.mean) / self.std

    def _normalise_by(self, preprocessing: Preprocessing, example: Tensor) -> None:
        """Register buffers, which the content hash covers; `order` is one only if it differs from RGB."""
        mean, std = preprocessing.on_unit_scale(example, name=self.name)
        order = torch.tensor([2, 1, 0], device=example.device) if preprocessing.order == "BGR" else None
        for name, values in {"mean": mean, "std": std, "order": order}.items():
            self.register_buffer(name, values)

    def _evaluating_copy(self, model: nn.Module) -> nn.Module:
        copied = sharing_copy(model)
        gate.evaluate(copied, name=self.name)
        return copied

    def _uncut(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the whole classifier as a function of images in [0, 1]."""
        whole = self._evaluating_copy(model)
        return lambda images: whole(self.normalised(images))

    def _last_linear(self, body: nn.Module, images: Tensor, hint: str) -> tuple[nn.Linear, WholePass]:
        """Run the model; return the `nn.Linear` that ran last, and what entered it and the model's logits."""
        executed: list[nn.Linear] = []
        entered = images

        def keep(linear: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            nonlocal entered
            assert isinstance(linear, nn.Linear)
            executed.append(linear)
            entered = (*args, *kwargs.values())[0].clone()  # the model may change it in place later

        linears = [module for module in body.modules() if isinstance(module, nn.Linear)]
        hooks = [linear.register_forward_pre_hook(keep, with_kwargs=True) for linear in linears]
        try:
            logits = body(images)
        except (Exception, SystemExit) as error:  # user code can fail in any way
            raise NetworkError(self._failure(images, error, hint)) from error
        finally:
            for hook in hooks:
                hook.remove()
        if not executed:
            raise NetworkError(
                f"{self.name} must end in an nn.Linear, got a network that runs none. A representation is the input of "
                "the last linear layer; a network that ends in a convolution, as SqueezeNet does, has none."
            )
        if not isinstance(logits, Tensor):
            raise NetworkError(f"{self.name} must return a tensor of logits, got {type(logits).__name__}")
        whole = WholePass(entered, logits)
        gate.require_outputs(whole, executed[-1], name=self.name)
        return executed[-1], whole

    def _failure(self, images: Tensor, error: BaseException, hint: str) -> str:
        """Describe a failed forward pass, with the size the network is made for if the images have another one."""
        size = self.preprocessing.size
        if size not in (None, images.shape[-1]):
            hint = f"it is made for {size} x {size} pixels"
        message = f"{self.name} cannot read images of shape {tuple(images.shape[1:])} ({cause(error)})"
        return f"{message}; {hint}" if hint else message


@plain_torch()
def as_network(model: nn.Module, example_images: Tensor) -> Network:
    """Convert any classifier to a `Network`; return a `Network` as it is.

    Parameters
    ----------
    model
        A module that takes images in [0, 1], or states what it takes in an attribute `preprocessing`, a
        `netsim.Preprocessing`; or robustness's AttackerModel (it has `.model` and `.normalizer`), of which the inner
        model is used, with the same normalisation but without its clamp.
    example_images
        Images (n, C, H, W) in [0, 1]; two are enough.

    Raises
    ------
    NetworkError
        For a model that does not end in a linear layer, or fails on the images.
    DataError
        For images that are not finite.
    """
    if isinstance(model, Network):
        return model
    if not len(example_images) or not torch.isfinite(example_images).all():
        raise DataError("example images must be finite and at least one, got none, NaN or infinity")
    model, preprocessing = unwrap(model)
    kind = type(model)
    reference = f"{kind.__module__}.{kind.__qualname__}"
    return Network(model, example_images, name=kind.__name__.lower(), reference=reference, preprocessing=preprocessing)


def sharing_copy(model: nn.Module) -> nn.Module:
    """Copy the modules but share their tensors. The original keeps its mode, its layers and its gradients."""
    memo: dict[int, Any] = {}  # deepcopy does not copy what is in it
    for module in model.modules():
        for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(value, nn.Parameter):
                memo[id(value)] = nn.Parameter(_shared(value), requires_grad=False)
            elif isinstance(value, Tensor):
                memo[id(value)] = _shared(value)
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # user code can fail in any way
        raise NetworkError(f"cannot copy the layers of {type(model).__name__}: {cause(error)}") from error


def _shared(tensor: Tensor) -> Tensor:
    """Return a tensor with the same memory, or a copy of one that was made in inference mode: it allows no gradient."""
    return tensor.detach().clone() if tensor.is_inference() else tensor.detach()


def _paths_to(layer: nn.Module, model: nn.Module) -> tuple[str, ...]:
    """Return all names of `layer` in `model`: a layer may have two."""
    return tuple(path for path, module in model.named_modules(remove_duplicate=False) if module is layer)


def _without(layer: nn.Linear, paths: Sequence[str], model: nn.Module) -> nn.Module:
    """Replace the layer at `paths` in place, so that its input passes through; return the model."""
    if "" in paths:  # the model is one linear layer, and `_check_cut` will refuse it
        return nn.Identity()
    for path in paths:
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, _PassThrough(layer))
    return model


class _PassThrough(nn.Module):
    """Identity in place of the last layer. Models read its `in_features`, or the dtype of its `weight`."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self._layer = (layer,)  # in a tuple, so that it is no submodule and its tensors are in no state dict

    def forward(self, input: Tensor) -> Tensor:  # named as in nn.Linear
        return input

    def __getattr__(self, name: str) -> Any:
        if name in ("in_features", "out_features", "weight", "bias"):
            return getattr(self._layer[0], name)
        return super().__getattr__(name)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_PassThrough":
        return _PassThrough(self._layer[0])


def _any_float_tensor(model: nn.Module) -> Tensor:
    """Return a tensor whose device and dtype images must have."""
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.zeros(()))
