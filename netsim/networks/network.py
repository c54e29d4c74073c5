"""Networks as the rest of netsim sees them: images in [0, 1] -> representation -> logits. n = images, d = width.

A `Network` is any image classifier cut in two: `body` ends where the last linear layer begins, `head` is that layer. So
`head(represent(images)) == forward(images)` for every architecture, and what is compared is the same kind of thing
everywhere: Klabunde et al. 2025 (https://arxiv.org/abs/2510.19427) compare layers of different kinds in different
networks. The cut is found by watching which `nn.Linear` runs last, so it needs no code per architecture.

Images are normalised inside, without clamping. `robustness` clamps there, and torch >= 2.14 gives a clamp no gradient
at its bounds: pixels that reach 0 or 1 would never leave again. Where a pixel may go is the inversion's business.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netsim.errors import DataError, NetworkError
from netsim.networks.preprocessing import Preprocessing


class Network(nn.Module):
    """A classifier of images in [0, 1], cut at its last linear layer. In evaluation mode, and without weight gradients.

    `preprocessing` says what the model makes of images (default: it takes them as they are). The module given is not
    changed, and its tensors are shared, not copied: training this network would train that module too. `origin` is what
    a converted file of weights says of itself.

    Raises NetworkError if no cut gives `head(represent(images)) == model(images)` on `example_images` (n, C, H, W).
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
    ) -> None:
        super().__init__()
        self.name = name
        self.reference = reference
        self.preprocessing = preprocessing
        self.origin: Mapping[str, Any] = {}
        body = sharing_copy(model).eval()
        example = example_images[:2].to(_any_float_tensor(body))
        self._normalise_by(preprocessing, example)

        with torch.no_grad():
            self.head, logits = self._last_linear(body, self.normalised(example))
            self.head_paths = _paths_to(self.head, body)
            self.body = _without(self.head, self.head_paths, body)
            self._check_cut(example, logits)
        self.eval()

    @property
    def width(self) -> int:
        return self.head.in_features

    @property
    def num_classes(self) -> int:
        return self.head.out_features

    def represent(self, images: Tensor) -> Tensor:
        """(n, d): what enters the last linear layer, which does not run. `images` (n, C, H, W) in [0, 1]."""
        return self.body(self.normalised(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of `images` (n, C, H, W) in [0, 1]."""
        return self.head(self.represent(images))

    def normalised(self, images: Tensor) -> Tensor:
        """What the body is given: `images` in [0, 1] in the network's own range and order of channels."""
        if self.order is not None:
            images = images[:, self.order]
        return (images - self.mean) / self.std

    def _normalise_by(self, preprocessing: Preprocessing, example: Tensor) -> None:
        """Buffers, so that the content hash covers them; `order` only where it is another than RGB."""
        mean, std = preprocessing.on_unit_scale(example, name=self.name)
        order = torch.tensor([2, 1, 0], device=example.device) if preprocessing.order == "BGR" else None
        for name, values in {"mean": mean, "std": std, "order": order}.items():
            self.register_buffer(name, values)

    def _last_linear(self, body: nn.Module, images: Tensor) -> tuple[nn.Linear, Tensor]:
        """The nn.Linear that runs last, and what the model returns."""
        executed: list[nn.Linear] = []
        linears = [module for module in body.modules() if isinstance(module, nn.Linear)]
        hooks = [linear.register_forward_pre_hook(lambda module, _: executed.append(module)) for linear in linears]
        try:
            logits = body(images)
        except Exception as error:  # the user's code can fail in any way
            raise NetworkError(self._unreadable(images, error)) from error
        finally:
            for hook in hooks:
                hook.remove()
        if not executed:
            raise NetworkError(
                f"{self.name} runs no nn.Linear; a representation is what enters the last linear layer, "
                "and a network that ends in a convolution, as SqueezeNet does, has none"
            )
        if not isinstance(logits, Tensor):
            raise NetworkError(f"{self.name} returns {type(logits).__name__}, not a tensor of logits")
        return executed[-1], logits

    def _unreadable(self, images: Tensor, error: Exception) -> str:
        fault = f"{type(error).__name__}: {first_line(error)}"
        size = self.preprocessing.size
        way_out = f"; it is made for {size} x {size} pixels" if size not in (None, images.shape[-1]) else ""
        return f"{self.name} cannot read images of shape {tuple(images.shape[1:])} ({fault}){way_out}"

    def _check_cut(self, example: Tensor, logits: Tensor) -> None:
        if not torch.isfinite(logits).all():
            raise NetworkError(f"{self.name} gives values that are not finite for images in [0, 1]")
        try:
            representation = self.represent(example)
        except Exception:  # what follows the layer cannot read what enters it
            representation = logits[:0]
        if representation.shape != (len(example), self.width) or not _close(self.head(representation), logits):
            raise NetworkError(
                f"{self.name}: what its last linear layer makes of one vector an image is not what it returns; "
                "netsim needs a model that ends in one nn.Linear and returns logits, without a softmax; "
                "two heads that are averaged, as in distilled transformers, are not one"
            )


def as_network(model: nn.Module, example_images: Tensor) -> Network:
    """Any classifier as a `Network`: a Network itself, an nn.Module that takes images in [0, 1], or an AttackerModel.

    `example_images` (n, C, H, W) in [0, 1]; two are enough. Of robustness' AttackerModel (it has `.model` and
    `.normalizer`) the inner model is taken, with the same normalisation but without its clamp. A module that wants
    other than RGB in [0, 1] says so in an attribute `preprocessing`, a `netsim.Preprocessing`.

    Raises NetworkError for a model without a last linear layer, DataError for images that are not finite.
    """
    if isinstance(model, Network):
        return model
    if not torch.isfinite(example_images).all():
        raise DataError("the example images have values that are not finite")
    model, preprocessing = unwrap(model)
    kind = type(model)
    reference = f"{kind.__module__}.{kind.__qualname__}"
    return Network(model, example_images, name=kind.__name__.lower(), reference=reference, preprocessing=preprocessing)


def unwrap(model: nn.Module) -> tuple[nn.Module, Preprocessing]:
    """The classifier inside, and what it expects of images: what it was wrapped in says so, or its `preprocessing`."""
    model = _plain(model)
    inner, normalizer = getattr(model, "model", None), getattr(model, "normalizer", None)
    if isinstance(inner, nn.Module) and normalizer is not None and hasattr(normalizer, "new_mean"):
        return _plain(inner), Preprocessing(normalizer.new_mean, normalizer.new_std)
    own = getattr(model, "preprocessing", None)
    return model, own if isinstance(own, Preprocessing) else Preprocessing()


def _plain(model: nn.Module) -> nn.Module:
    """Without DataParallel and torch.compile: both keep a way to the layers that is not changed by a cut."""
    if isinstance(model, nn.DataParallel):
        return _plain(model.module)
    return getattr(model, "_orig_mod", model)


def sharing_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares their tensors: the original keeps its mode, its layers and its gradients."""
    memo: dict[int, Any] = {}  # what deepcopy finds here it does not copy
    for module in model.modules():
        for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(value, nn.Parameter):
                memo[id(value)] = nn.Parameter(value.detach(), requires_grad=False)
            elif isinstance(value, Tensor):
                memo[id(value)] = value.detach()
    try:
        return copy.deepcopy(model, memo)
    except (TypeError, RuntimeError) as error:
        raise NetworkError(f"cannot copy the layers of {type(model).__name__}: {first_line(error)}") from error


def _paths_to(layer: nn.Module, model: nn.Module) -> tuple[str, ...]:
    """All of them: a layer may be reachable by two names."""
    return tuple(path for path, module in model.named_modules(remove_duplicate=False) if module is layer)


def _without(layer: nn.Linear, paths: Sequence[str], model: nn.Module) -> nn.Module:
    """The model without the layer at `paths`: what enters it passes there."""
    if "" in paths:  # the model is one linear layer
        return nn.Identity()
    for path in paths:
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, _InPlaceOf(layer))
    return model


class _InPlaceOf(nn.Module):
    """Returns what it is given. Models ask their last layer for its `in_features`, or for the dtype of its `weight`."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self._layer = (layer,)  # no module of this one, with tensors of its own

    def forward(self, x: Tensor) -> Tensor:
        return x

    def __getattr__(self, name: str) -> Any:
        if name in ("in_features", "out_features", "weight", "bias"):
            return getattr(self._layer[0], name)
        return super().__getattr__(name)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_InPlaceOf":
        return _InPlaceOf(self._layer[0])


def _any_float_tensor(model: nn.Module) -> Tensor:
    """Its device and dtype are those that images must have."""
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.zeros(()))


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of half precision: a graph that is cut may choose other kernels."""
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
