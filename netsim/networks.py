"""Networks as the rest of netsim sees them: images in [0, 1] -> representation -> logits. n = images, d = width.

A `Network` is any image classifier cut in two: `body` ends where the last linear layer begins, `head` is that layer. So
`head(represent(images)) == forward(images)` for every architecture, and what is compared is the same kind of thing
everywhere: Klabunde et al. 2025 (https://arxiv.org/abs/2510.19427) compare layers of different kinds in different
networks by accident. The cut is found by watching which `nn.Linear` runs last, so it needs no code per architecture.

Images are normalised inside, without clamping. `robustness` clamps there, and torch >= 2.14 gives a clamp no gradient at
its bounds: pixels that reach 0 or 1 would never leave again. Where a pixel may go is the inversion's business.
"""

import copy
import hashlib
import importlib
import os
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import safetensors.torch
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from netsim import small
from netsim.errors import DataError, NetworkError, SettingsError, nearest

Shape = tuple[int, int, int]  # (C, H, W)

SOURCES = ("torchvision", "small", "python")
IMAGENET_SHAPE: Shape = (3, 224, 224)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMED_TENSORS = 3  # of those that do not fit, in an error message


# ---- what a network is


class Network(nn.Module):
    """A classifier of images in [0, 1], cut at its last linear layer. In evaluation mode, and without weight gradients.

    `mean` and `std` are per channel (default 0 and 1: a model that normalises by itself). The module given is not
    changed, and the tensors are shared with it, not copied: training this network would train that module too.

    Raises NetworkError if no cut gives `head(represent(images)) == model(images)` on `example_images` (n, C, H, W).
    """

    def __init__(
        self,
        model: nn.Module,
        example_images: Tensor,
        *,
        name: str,
        reference: str,
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.reference = reference
        body = _sharing_copy(model).eval()
        example = example_images[:2].to(_device_and_dtype(body))
        channels = example.shape[1]
        self.register_buffer("mean", _per_channel([0.0] * channels if mean is None else mean, example))
        self.register_buffer("std", _per_channel([1.0] * channels if std is None else std, example))

        with torch.no_grad():
            head, logits = _last_linear(body, self._normalised(example), name=name)
            self.head_paths = tuple(path for path, module in _all_modules(body) if module is head)
            self.body = _without(body, self.head_paths)
            self.head = head
            self._check_cut(example, logits)

    @property
    def width(self) -> int:
        return self.head.in_features

    @property
    def num_classes(self) -> int:
        return self.head.out_features

    def represent(self, images: Tensor) -> Tensor:
        """(n, d): what enters the last linear layer. `images` are (n, C, H, W) in [0, 1]. One pass, the head does not run."""
        return self.body(self._normalised(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of `images` (n, C, H, W) in [0, 1]."""
        return self.head(self.represent(images))

    def _normalised(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def _check_cut(self, example: Tensor, logits: Tensor) -> None:
        representation = self.represent(example)
        if representation.shape != (len(example), self.width):
            raise NetworkError(
                f"{self.name}: its last linear layer reads {tuple(representation.shape)}, not (images, {self.width}); "
                "netsim compares one vector an image"
            )
        if not torch.isfinite(logits).all():
            raise NetworkError(f"{self.name} gives values that are not finite for images in [0, 1]")
        if logits.shape != (len(example), self.num_classes) or not _close(self.head(representation), logits):
            raise NetworkError(
                f"{self.name}: the output of its last linear layer is not its output; "
                "netsim needs a model that ends in nn.Linear and returns logits (no softmax, no wrapper that bypasses layers)"
            )


def as_network(model: nn.Module, example_images: Tensor) -> Network:
    """Any classifier as a `Network`: a Network itself, an nn.Module that takes images in [0, 1], or an AttackerModel.

    `example_images` (n, C, H, W) in [0, 1]; two are enough. Of robustness' AttackerModel (it has `.model` and
    `.normalizer`) the inner model is taken, with the same normalisation but without its clamp.

    Raises NetworkError for a model without a last linear layer, DataError for images that are not finite.
    """
    if isinstance(model, Network):
        return model
    if not torch.isfinite(example_images).all():
        raise DataError("the example images have values that are not finite")
    model, mean, std = _unwrap(model)
    kind = type(model)
    return Network(
        model, example_images, name=kind.__name__.lower(), reference=f"{kind.__module__}.{kind.__qualname__}", mean=mean, std=std
    )


def _unwrap(model: nn.Module) -> tuple[nn.Module, Tensor | None, Tensor | None]:
    """The classifier inside, and the mean and std it was normalised with, if it was."""
    model = _plain(model)
    normalizer = getattr(model, "normalizer", None)
    if hasattr(model, "model") and hasattr(normalizer, "new_mean") and hasattr(normalizer, "new_std"):
        return _plain(model.model), normalizer.new_mean, normalizer.new_std
    return model, None, None


def _plain(model: nn.Module) -> nn.Module:
    """Without DataParallel and torch.compile: both keep a way to the original layers that a cut copy would not change."""
    if isinstance(model, nn.DataParallel):
        return _plain(model.module)
    return getattr(model, "_orig_mod", model)


def _sharing_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares their tensors: the original keeps its mode, its layers and its gradients."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(value, nn.Parameter):
                memo[id(value)] = nn.Parameter(value.detach(), requires_grad=False)
            elif isinstance(value, Tensor):
                memo[id(value)] = value.detach()
    return copy.deepcopy(model, memo)


def _last_linear(model: nn.Module, images: Tensor, *, name: str) -> tuple[nn.Linear, Tensor]:
    """The nn.Linear that runs last, and what the model returns."""
    executed: list[nn.Linear] = []
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [linear.register_forward_pre_hook(lambda module, _: executed.append(module)) for linear in linears]
    try:
        logits = model(images)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise NetworkError(f"{name} cannot read images of shape {tuple(images.shape[1:])}: {_first_line(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if not executed:
        raise NetworkError(f"{name} runs no nn.Linear; a representation is what enters the last linear layer")
    if not isinstance(logits, Tensor):
        raise NetworkError(f"{name} returns {type(logits).__name__}, not a tensor of logits")
    return executed[-1], logits


def _all_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every path, so a layer that is reachable by two names is seen twice."""
    return list(model.named_modules(remove_duplicate=False))


def _without(model: nn.Module, paths: Sequence[str]) -> nn.Module:
    """The model with nn.Identity at `paths`."""
    if "" in paths:
        return nn.Identity()
    for path in paths:
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    return model


def _device_and_dtype(model: nn.Module) -> Tensor:
    """Any floating-point tensor of the model: what images have to be like."""
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.zeros(()))


def _per_channel(values: Sequence[float] | Tensor, like: Tensor) -> Tensor:
    flat = torch.as_tensor(values).detach().to(like, copy=True).flatten()
    if len(flat) != like.shape[1]:
        raise NetworkError(f"normalisation for {len(flat)} channels, but the images have {like.shape[1]}")
    return flat.reshape(-1, 1, 1)


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding: a smaller graph may choose other kernels."""
    return torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


# ---- where networks come from


@dataclass(frozen=True)
class Reference:
    """`source:name[@weights]`, taken apart. `weights`: None where none are named, "none" for random ones."""

    source: str
    name: str
    weights: str | None

    @property
    def is_file(self) -> bool:
        weights = self.weights
        return weights not in (None, "none") and (self.source != "torchvision" or "/" in weights or "." in weights)


def parse_reference(reference: str) -> Reference:
    """Raises SettingsError, with the nearest name, for a source or an architecture that does not exist."""
    source, colon, rest = reference.partition(":")
    name, at, weights = rest.partition("@")
    if source not in SOURCES:
        raise SettingsError(f"no source {source!r} in network {reference!r}{nearest(source, SOURCES)}")
    if not colon or not name or (at and not weights):
        raise SettingsError(f"network {reference!r} is incomplete: write source:name[@weights], as in 'torchvision:resnet50'")
    if source == "small" and name not in small.SMALL:
        raise SettingsError(f"no small network {name!r}{nearest(name, small.SMALL)}")
    if source == "torchvision" and name not in torchvision_names():
        raise SettingsError(f"no torchvision network {name!r}{nearest(name, torchvision_names())}")
    if source == "python" and not all(name.partition(":")):
        raise SettingsError(f"network {reference!r} names no function: write 'python:module:function'")
    return Reference(source=source, name=name, weights=weights or None)


def needs_training(reference: str) -> bool:
    """Whether a network has no weights of its own and none were named: the small ones."""
    parsed = parse_reference(reference)
    return parsed.source == "small" and parsed.weights is None


def load_network(reference: str, num_classes: int | None = None, *, input_shape: Shape | None = None) -> Network:
    """The network that `reference` (source:name[@weights]) names.

    torchvision:NAME            any of torchvision's classifiers, or wide_resnet50_4, with its default weights (downloaded)
    torchvision:NAME@ENUM       with other weights of torchvision's, as in @IMAGENET1K_V1
    small:NAME                  one of the nine small ones, which come without weights
    python:MODULE:FUNCTION      what a function of yours returns: a classifier of images in [0, 1], or an AttackerModel
    ...@none                    random weights, the same everywhere: they are drawn by the name
    ...@FILE.safetensors        a local file or any fsspec URL, in the tensor names of the architecture itself

    `num_classes` sets the number of classes of a network without published weights; of others it is checked.
    `input_shape` (C, H, W) is what the network is tried on: default 28 x 28 grey for small ones, else 224 x 224 RGB.

    Raises SettingsError for a reference or a `num_classes` that does not exist, NetworkError for weights that cannot be
    had, read or fitted, or a network that cannot be cut.
    """
    parsed = parse_reference(reference)
    build = {"torchvision": _build_torchvision, "small": _build_small, "python": _build_python}[parsed.source]
    with _random_weights(parsed.name):
        model, mean, std = build(parsed, num_classes)
    shape = input_shape or (small.INPUT_SHAPE if parsed.source == "small" else IMAGENET_SHAPE)
    example = torch.linspace(0, 1, shape[0] * shape[1] * shape[2]).reshape(1, *shape)
    network = Network(model, example, name=parsed.name.rpartition(":")[2], reference=reference, mean=mean, std=std)
    if num_classes not in (None, network.num_classes):
        raise SettingsError(
            f"{reference} tells {network.num_classes} classes apart, not {num_classes}; "
            "its weights fix the number: leave num_classes out, or start from @none"
        )
    if parsed.is_file:
        load_weights(network, _read_file(parsed.weights), origin=parsed.weights)
    return network


Built = tuple[nn.Module, Sequence[float] | Tensor | None, Sequence[float] | Tensor | None]  # model, mean, std


def _build_small(reference: Reference, num_classes: int | None) -> Built:
    model = small.SMALL[reference.name](num_classes=10 if num_classes is None else num_classes)
    return model.to(memory_format=torch.channels_last), small.MEAN, small.STD  # a quarter faster on a CPU


def _build_python(reference: Reference, num_classes: int | None) -> Built:
    module_name, _, function_name = reference.name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingsError(f"cannot import {module_name!r} ({_first_line(error)}); is its folder on PYTHONPATH?") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SettingsError(f"no function {function_name!r} in {module_name}{nearest(function_name, _public(module))}")
    model = function()
    if not isinstance(model, nn.Module):
        raise NetworkError(f"{reference.name} returns {type(model).__name__}, not a torch.nn.Module")
    return _unwrap(model)


def _public(module: object) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def torchvision_names() -> list[str]:
    """torchvision's classifiers, and the wide ResNet of Salman et al. 2020 that it does not have."""
    return [*torchvision.models.list_models(module=torchvision.models), "wide_resnet50_4"]


def _build_torchvision(reference: Reference, num_classes: int | None) -> Built:
    published = _published_weights(reference)
    mean, std = _normalisation(published)
    wanted = None if reference.weights == "none" or reference.is_file else published
    if wanted is not None:
        _check_class_count(reference, wanted, num_classes)
        return _download(reference, wanted), mean, std
    return _untrained(reference.name, 1000 if num_classes is None else num_classes), mean, std


def _published_weights(reference: Reference) -> Any:
    """The weights that are named, else the default ones: their normalisation holds for @none and files too. Or None."""
    if reference.name == "wide_resnet50_4":
        if reference.weights == "none" or reference.is_file:
            return None
        raise SettingsError("wide_resnet50_4 has no weights in torchvision: write @none or @FILE.safetensors")
    choices = torchvision.models.get_model_weights(reference.name)
    if reference.weights in (None, "none") or reference.is_file:
        return choices.DEFAULT
    if reference.weights not in choices.__members__:
        known = [*choices.__members__, "none", "FILE.safetensors"]
        raise SettingsError(f"{reference.name} has no weights {reference.weights!r}{nearest(str(reference.weights), known)}")
    return choices[reference.weights]


def _normalisation(weights: Any) -> tuple[Sequence[float], Sequence[float]]:
    preset = None if weights is None else weights.transforms()
    return getattr(preset, "mean", IMAGENET_MEAN), getattr(preset, "std", IMAGENET_STD)


def _check_class_count(reference: Reference, weights: Any, num_classes: int | None) -> None:
    """Before the download."""
    fixed = len(weights.meta["categories"])
    if num_classes not in (None, fixed):
        raise SettingsError(
            f"the weights {weights.name} of {reference.name} tell {fixed} classes apart, not {num_classes}; "
            "leave num_classes out, or start from @none"
        )


def _download(reference: Reference, weights: Any) -> nn.Module:
    """torchvision's own loader: it keeps the file in torch's cache and checks the hash in its name."""
    try:
        with _no_code_in_pickles():
            return torchvision.models.get_model(reference.name, weights=weights, progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        cache = os.path.join(torch.hub.get_dir(), "checkpoints")
        raise NetworkError(
            f"cannot get the weights {weights.name} of {reference.name} ({_first_line(error)}).\n"
            f"Put {weights.url} into {cache}, name a file with @FILE.safetensors, or use random weights with @none"
        ) from error


def _untrained(name: str, num_classes: int) -> nn.Module:
    if name == "wide_resnet50_4":
        return ResNet(Bottleneck, [3, 4, 6, 3], width_per_group=256, num_classes=num_classes)
    # these two warn that their slow initialisation will change one day, and it must not: random weights are named
    settings = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **settings)


@contextmanager
def _random_weights(name: str) -> Iterator[None]:
    """Inside, torch draws the random numbers named `name`; outside, nothing has changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1)
        yield


@contextmanager
def _no_code_in_pickles() -> Iterator[None]:
    """torchvision's weights are pickles, and torch.hub unpickles without restriction unless this variable is set."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        os.environ.pop(key)
        if before is not None:
            os.environ[key] = before


# ---- weights as bytes


def content_hash(module: nn.Module) -> str:
    """sha256 hex over the name, dtype, shape and bytes of every tensor in the state dict: one bit makes another network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_to_bytes(network: Network) -> bytes:
    """A safetensors file in the tensor names of the original architecture, so that its own class can read it too."""
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _named_tensors(network).items()}
    return safetensors.torch.save(copies)


def load_weights(network: Network, data: bytes, *, origin: str = "the weights") -> None:
    """Fill `network` from a safetensors file. `origin` says in messages where `data` is from.

    Raises NetworkError for anything but safetensors (a pickle can run code), for tensors that are missing, surplus, of
    another shape (the first three are named), or not finite. Nothing is changed then.
    """
    try:
        given = safetensors.torch.load(data)
    except SafetensorError as error:
        raise NetworkError(
            f"{origin} is no safetensors file ({_first_line(error)}); netsim reads nothing else, "
            "because a pickle can run code: convert it with safetensors.torch.save_file"
        ) from error
    wanted = _named_tensors(network)
    faults = _misfits(wanted, given)
    if faults:
        raise NetworkError(f"{origin} does not fit {network.reference}: {'; '.join(faults)}")
    with torch.no_grad():
        for name, tensor in given.items():
            wanted[name].copy_(tensor)


def _named_tensors(network: Network) -> dict[str, Tensor]:
    """The live tensors by the names they have in the original architecture."""
    tensors = dict(network.body.state_dict(keep_vars=True))
    for path in network.head_paths:
        prefix = f"{path}." if path else ""
        tensors |= {prefix + name: tensor for name, tensor in network.head.state_dict(keep_vars=True).items()}
    return tensors


def _misfits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    # BatchNorm counts its batches only since torch 0.4.1, and the count changes no output
    missing = [name for name in wanted.keys() - given.keys() if not name.endswith("num_batches_tracked")]
    surplus = [name for name in given.keys() - wanted.keys()]
    both = sorted(wanted.keys() & given.keys())
    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in both
        if given[name].shape != wanted[name].shape
    ]
    nonfinite = [name for name in both if not torch.isfinite(given[name]).all()]
    kinds = {"missing": missing, "surplus": surplus, "misshapen": misshapen, "not finite": nonfinite}
    return [f"{kind}: {_some(names)}" for kind, names in kinds.items() if names]


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_TENSORS
    return ", ".join(sorted(names)[:NAMED_TENSORS]) + (f" and {more} more" if more > 0 else "")


def _read_file(url: str) -> bytes:
    try:
        with fsspec.open(url, "rb") as file:
            return file.read()
    except (OSError, ValueError, ImportError) as error:
        raise NetworkError(f"cannot read the weights {url!r}: {_first_line(error)}") from error
