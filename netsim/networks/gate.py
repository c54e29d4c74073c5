"""The conditions that a network must meet to be inverted, each with an error of its own. n = images, d = width.

Everything else relies on them: an image is represented alike in a batch of any size, a result can be computed again,
and images can be moved along a gradient. They are checked when a `Network` is made, by one pass of the whole classifier
with two images, then by representing each of the two alone, one of them with its gradient. Only if these disagree,
further passes find out why.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from netsim.errors import NetworkError, first_line

# Dtypes of weights and images: half precision has no room for the steps of an inversion.
DTYPES = (torch.float32, torch.float64)

# Largest change of a representation that counts as rounding, relative to its largest value. Between batches of one and
# of two images, 50 architectures with random weights change by at most 1.2e-6 in float32.
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-8}

# The same for logits that are computed from a representation: a model that is cut may run other kernels.
LOGIT_ROUNDING = 1e-3

# Shortest difference between two representations that must have a gradient. That of a shorter one may underflow.
MIN_DIFFERENCE = 1e-20

Represent = Callable[[Tensor], Tensor]


# --- Weights ---


def require_weights(model: nn.Module, *, name: str) -> None:
    """Check that every weight has a value, that all are on one device, and that all are float32 or all float64.

    Raises
    ------
    NetworkError
        If not.
    """
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    missing = [path for path, tensor in tensors.items() if is_lazy(tensor) or tensor.device.type == "meta"]
    if missing:
        raise NetworkError(
            f"{name} must have values for all of its weights, got none for {_listed(missing)}. "
            "Load its weights; if it has lazy layers, first run it on a batch of images."
        )
    devices = {str(tensor.device): path for path, tensor in tensors.items()}
    if len(devices) > 1:
        raise NetworkError(f"weights of {name} must be on one device, got {_kinds(devices)}. Move it with .to(device).")
    floats = {_short(tensor.dtype): path for path, tensor in tensors.items() if tensor.is_floating_point()}
    if not floats.keys() <= set(map(_short, DTYPES)):
        raise NetworkError(
            f"weights of {name} must be float32 or float64, got {_kinds(floats)}. Convert it with .float()."
        )
    if len(floats) > 1:
        raise NetworkError(
            f"weights of {name} must have one dtype, got {_kinds(floats)}. Convert it with .float() or .double()."
        )


def require_dtype(weights: Tensor, dtype: torch.dtype, *, name: str) -> None:
    """Check that images of a dtype can be given to a network with these weights.

    Raises
    ------
    NetworkError
        If the dtypes differ.
    """
    if weights.dtype != dtype:
        convert = {torch.float32: ".float()", torch.float64: ".double()"}
        raise NetworkError(
            f"images for {name} must be {_short(weights.dtype)}, as its weights are, got {_short(dtype)}. "
            f"Convert the images with {convert[weights.dtype]}, or the network with {convert.get(dtype, '.float()')}."
        )


def evaluate(model: nn.Module, *, name: str) -> None:
    """Put a module into evaluation mode, and check that all of its layers are in it.

    Raises
    ------
    NetworkError
        If a layer is not, or `eval` fails.
    """
    try:
        model.eval()  # what it returns may be None, where `train` is overridden
    except Exception as error:
        raise NetworkError(f"{name} must have an evaluation mode, got {cause(error)} from its eval()") from error
    training = [path or type(layer).__name__ for path, layer in model.named_modules() if layer.training]
    if training:
        raise NetworkError(
            f"{name} must be in evaluation mode after eval(), got {_listed(training)} in training mode. "
            "Let train(mode), where it is overridden, call super().train(mode)."
        )


# --- Passes ---


@dataclass(frozen=True)
class WholePass:
    """A pass of the whole classifier with two images.

    Attributes
    ----------
    entered
        What entered the last linear layer.
    logits
        What the classifier returned.
    """

    entered: Tensor
    logits: Tensor


def ramp(shape: tuple[int, int, int]) -> Tensor:
    """Return one image (1, C, H, W), a ramp from black to white."""
    return torch.linspace(0, 1, shape[0] * shape[1] * shape[2], dtype=torch.float32).reshape(1, *shape)


def two_images(image: Tensor) -> Tensor:
    """Return an image (1, C, H, W) in [0, 1], and a darker one of other content that is made from it."""
    first = image.detach()
    pattern = torch.sin(7.0 * torch.arange(first.numel(), device=first.device)).reshape(first.shape) / 2 + 0.5
    return torch.cat([first, 0.35 * (first + pattern.to(first))])


@dataclass(frozen=True)
class State:
    """The tensors in the state dict of a module at one time, to notice a pass that changes them."""

    tensors: dict[str, Tensor]
    versions: dict[str, int]
    buffers: dict[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module) -> "State":
        """Copy the buffers. Weights are large: torch counts their changes."""
        tensors = _tensors_in(module)
        buffers = {path: tensor.clone() for path, tensor in tensors.items() if not isinstance(tensor, nn.Parameter)}
        return cls(tensors, {path: tensor._version for path, tensor in tensors.items()}, buffers)

    def require_unchanged(self, module: nn.Module, *, name: str) -> None:
        """Check that a forward pass of the module has changed none of them.

        Raises
        ------
        NetworkError
            If it has.
        """
        after = _tensors_in(module)
        changed = [path for path in {**self.tensors, **after} if self._changed(path, after.get(path))]
        if changed:
            raise NetworkError(
                f"a forward pass of {name} must not change its weights or buffers in evaluation mode, got changes of "
                f"{_listed(changed)}. Change them only if self.training."
            )

    def _changed(self, path: str, now: Tensor | None) -> bool:
        if now is None or path not in self.tensors:
            return True
        if path in self.buffers:
            return not _identical(self.buffers[path], now)
        return now is not self.tensors[path] or now._version != self.versions[path]


@dataclass(frozen=True)
class Gate:
    """The checks of a network that is cut, after one pass of the whole classifier.

    Attributes
    ----------
    name
        Name of the network in messages.
    represent, head
        The network up to its last linear layer, and that layer.
    uncut
        Makes the whole classifier anew.
    images
        The two images of `whole`.
    whole
        A first pass of the whole classifier.
    """

    name: str
    represent: Represent
    head: nn.Linear
    uncut: Callable[[], Represent]
    images: Tensor
    whole: WholePass

    def require_invertible(self) -> None:
        """Check that the network is cut well, deterministic, independent of the batch and differentiable.

        Raises
        ------
        NetworkError
            If not. The message names the first of these that does not hold.
        """
        alone = _attempt(self.represent, self.images[:1])
        leaf = self.images[1:].clone().requires_grad_()
        with torch.enable_grad():
            differentiated = _attempt(self.represent, leaf)
        # the model may average what its last layer computes of several vectors: it is then one of their average
        entered = self.whole.entered
        both = entered if self._is_cut(entered) else _attempt(self.represent, self.images)
        if not (self._is_cut(both) and _is_row(alone, both, 0) and _is_row(differentiated, both, 1)):
            raise NetworkError(self._explain(alone, differentiated))
        assert isinstance(differentiated, Tensor) and isinstance(both, Tensor)
        self._require_gradient(differentiated, leaf, both[:1] - both[1:])

    def _is_cut(self, representation: Tensor | Exception) -> bool:
        """Return True if the last layer computes the logits from a representation of the two images."""
        if not isinstance(representation, Tensor) or representation.dtype != self.head.weight.dtype:
            return False
        if representation.shape != (2, self.head.in_features):
            return False
        return agree(self.head(representation), self.whole.logits, LOGIT_ROUNDING)

    def _explain(self, alone: Tensor | Exception, differentiated: Tensor | Exception) -> str:
        """Find out by further passes what makes representations differ."""
        classify = self.uncut()
        for again in (_attempt(classify, self.images), _attempt(classify, self.images)):
            if not agree(again, self.whole.logits, LOGIT_ROUNDING):
                got = cause(again) if isinstance(again, Exception) else "others at the next"
                return (
                    f"{self.name} must be deterministic: two forward passes of the same images must give the same "
                    f"logits, got {got}. Switch off dropout and noise in evaluation mode."
                )
        if not self._is_cut(both := _attempt(self.represent, self.images)):
            return (
                f"{self.name} must return the output of its last nn.Linear on one vector per image, got other values. "
                "Return logits without a softmax; two heads that are averaged, as in distilled transformers, "
                "cannot be cut."
            )
        assert isinstance(both, Tensor)
        for row, single in enumerate((alone, _attempt(self.represent, self.images[1:]))):
            if not _is_row(single, both, row):
                return self._batch_matters(single, both[row : row + 1])
        if isinstance(differentiated, Exception):
            return self._no_gradient(cause(differentiated))
        return (
            f"{self.name} must represent images alike with and without gradients, got different values. "
            "Remove what depends on torch.is_grad_enabled() from its forward pass."
        )

    def _batch_matters(self, single: Tensor | Exception, beside: Tensor) -> str:
        must = f"{self.name} must represent each image by itself, whatever else is in the batch"
        if isinstance(single, Exception):
            return f"{must}, got {cause(single)} from a batch of one image"
        if single.shape != beside.shape:
            return (
                f"{must}, got shape {tuple(single.shape)} instead of {tuple(beside.shape)} from a batch of one image. "
                "Keep the first axis: flatten(1) instead of squeeze() or flatten()."
            )
        change = float((single - beside).abs().max() / beside.abs().max())
        return (
            f"{must}, got representations that change by {change:.0%} beside another image. Give BatchNorm its running "
            "statistics, and normalise over an image, not over the batch."
        )

    def _require_gradient(self, representation: Tensor, leaf: Tensor, difference: Tensor) -> None:
        """Differentiate the distance to the other image's representation, as an inversion does."""
        length = float(torch.linalg.vector_norm(difference))
        cotangent = difference / length if length > MIN_DIFFERENCE else torch.ones_like(difference)
        gradient = self._gradient(representation, leaf, cotangent)
        if not torch.isfinite(gradient).all():
            raise NetworkError(
                f"the gradient of {self.name} with respect to images must be finite, got NaN or infinity. "
                "Keep sqrt, log and norms away from zero."
            )
        if length > MIN_DIFFERENCE and not gradient.any() and not self._gradient_of_first(cotangent).any():
            raise NetworkError(
                self._no_gradient("a gradient of zero everywhere", "Remove rounding, comparisons and argmax.")
            )

    def _gradient_of_first(self, cotangent: Tensor) -> Tensor:
        leaf = self.images[:1].clone().requires_grad_()
        with torch.enable_grad():
            representation = self.represent(leaf)
        return self._gradient(representation, leaf, cotangent)

    def _gradient(self, representation: Tensor, leaf: Tensor, cotangent: Tensor) -> Tensor:
        if not representation.requires_grad:
            raise NetworkError(self._no_gradient("no gradient"))
        try:
            (gradient,) = torch.autograd.grad(representation, leaf, cotangent, allow_unused=True)
        except Exception as error:
            raise NetworkError(self._no_gradient(cause(error))) from error
        if gradient is None:
            raise NetworkError(self._no_gradient("no gradient"))
        return gradient

    def _no_gradient(self, got: str, way_out: str = "") -> str:
        if "reentrant" in got:
            got = "a re-entrant checkpoint"
            way_out = "Call torch.utils.checkpoint.checkpoint with use_reentrant=False."
        if "inplace operation" in got:
            got = "an in-place change of a value that the gradient needs"
            way_out = "Give layers behind a ReLU, and all whose input is used again, inplace=False."
        return (
            f"representations of {self.name} must be differentiable with respect to images by torch.autograd.grad, "
            f"got {got}. {way_out or 'Remove no_grad, inference_mode and detach from its forward pass.'}"
        )


def require_outputs(whole: WholePass, head: nn.Linear, *, name: str) -> None:
    """Check that logits and representations are finite, and that representations have the dtype of the weights.

    Raises
    ------
    NetworkError
        If not.
    """
    for what, values in (("logits", whole.logits), ("representations", whole.entered)):
        if not torch.isfinite(values).all():
            raise NetworkError(f"{what} of {name} must be finite for images in [0, 1], got NaN or infinity")
    if whole.entered.dtype != head.weight.dtype:
        raise NetworkError(
            f"representations of {name} must be {_short(head.weight.dtype)}, as its weights are, got "
            f"{_short(whole.entered.dtype)}. Call .float() before the last layer, outside of autocast."
        )


def cause(error: BaseException) -> str:
    """Describe an error of user code in one line."""
    return f"{type(error).__name__}: {first_line(error)}".rstrip(": .")


def _attempt(function: Represent, images: Tensor) -> Tensor | Exception:
    """Return the result of user code, or the error it failed with."""
    try:
        result = function(images)
    except Exception as error:  # user code can fail in any way
        return error
    return result if isinstance(result, Tensor) else TypeError(f"returned {type(result).__name__}")


def agree(result: Tensor | Exception, expected: Tensor, rounding: float) -> bool:
    """Return True if `result` is `expected` up to rounding, relative to the largest value."""
    if not isinstance(result, Tensor) or result.shape != expected.shape:
        return False
    return torch.allclose(result.detach(), expected, rtol=rounding, atol=rounding * float(expected.abs().max()))


def _is_row(representation: Tensor | Exception, both: Tensor | Exception, row: int) -> bool:
    """Return True if a representation of one image alone is that of the same image beside another one."""
    return isinstance(both, Tensor) and agree(representation, both[row : row + 1], ROUNDING[both.dtype])


def _tensors_in(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors in the state dict themselves; quantized modules have other things in it, too."""
    return {path: value for path, value in module.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}


def _identical(one: Tensor, other: Tensor) -> bool:
    """Return True if all values are equal; NaN equals NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _kinds(examples: dict[str, str]) -> str:
    """List devices or dtypes, each with the name of a weight that has it."""
    return " and ".join(f"{kind} ({path})" for kind, path in examples.items())


def _listed(paths: list[str], *, most: int = 3) -> str:
    unlisted = len(paths) - most
    return ", ".join(paths[:most]) + (f" and {unlisted} more" if unlisted > 0 else "")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
