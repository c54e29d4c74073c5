"""Networks as the rest of netsim sees them: images in [0, 1] -> representation -> logits. n = images, d = width.

A `Network` is any image classifier cut in two: `body` ends where the last linear layer begins, `head` is that layer. So
`head(represent(images)) == forward(images)` for every architecture, and what is compared is the same kind of thing
everywhere: Klabunde et al. 2025 (https://arxiv.org/abs/2510.19427) compare layers of different kinds in different
networks. The cut is found by watching which `nn.Linear` runs last, so it needs no code per architecture.

Images are normalised inside, without clamping. `robustness` clamps there, and torch >= 2.14 gives a clamp no gradient
at its bounds: pixels that reach 0 or 1 would never leave again. Where a pixel may go is the inversion's business.
"""

import copy
import hashlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pickle import UnpicklingError
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
Channels = Sequence[float] | Tensor | None  # one value a channel; None: the model does without

SOURCES = ("torchvision", "small", "python")
IMAGENET_SHAPE: Shape = (3, 224, 224)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMED_TENSORS = 3  # of those that do not fit, in an error message


# ---- what a network is


class Network(nn.Module):
    """A classifier of images in [0, 1], cut at its last linear layer. In evaluation mode, and without weight gradients.

    `mean` and `std` are per channel (default 0 and 1: a model that normalises by itself). The module given is not
    changed, and its tensors are shared, not copied: training this network would train that module too.

    Raises NetworkError if no cut gives `head(represent(images)) == model(images)` on `example_images` (n, C, H, W).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        example_images: Tensor,
        *,
        name: str,
        reference: str,
        mean: Channels = None,
        std: Channels = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.reference = reference
        body = sharing_copy(model).eval()
        example = example_images[:2].to(_any_float_tensor(body))
        channels = example.shape[1]
        self.register_buffer("mean", _per_channel([0.0] * channels if mean is None else mean, example, name=name))
        self.register_buffer("std", _per_channel([1.0] * channels if std is None else std, example, name=name))

        with torch.no_grad():
            self.head, logits = _last_linear(body, self._normalised(example), name=name)
            self.head_paths = _paths_to(self.head, body)
            self.body = _without(self.head_paths, body)
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
        return self.body(self._normalised(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of `images` (n, C, H, W) in [0, 1]."""
        return self.head(self.represent(images))

    def _normalised(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def _check_cut(self, example: Tensor, logits: Tensor) -> None:
        if not torch.isfinite(logits).all():
            raise NetworkError(f"{self.name} gives values that are not finite for images in [0, 1]")
        try:
            representation = self.represent(example)
        except RuntimeError:  # what follows the layer cannot read what enters it
            representation = logits[:0]
        if representation.shape != (len(example), self.width) or not _close(self.head(representation), logits):
            raise NetworkError(
                f"{self.name}: what its last linear layer makes of one vector an image is not what it returns; "
                "netsim needs a model that ends in nn.Linear and returns logits, without a softmax"
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
    reference = f"{kind.__module__}.{kind.__qualname__}"
    return Network(model, example_images, name=kind.__name__.lower(), reference=reference, mean=mean, std=std)


def _unwrap(model: nn.Module) -> tuple[nn.Module, Channels, Channels]:
    """The classifier inside, and the mean and std it was normalised with, if it was."""
    model = _plain(model)
    inner, normalizer = getattr(model, "model", None), getattr(model, "normalizer", None)
    if isinstance(inner, nn.Module) and normalizer is not None and hasattr(normalizer, "new_mean"):
        return _plain(inner), normalizer.new_mean, normalizer.new_std
    return model, None, None


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
        raise NetworkError(f"cannot copy the layers of {type(model).__name__}: {_first_line(error)}") from error


def _last_linear(model: nn.Module, images: Tensor, *, name: str) -> tuple[nn.Linear, Tensor]:
    """The nn.Linear that runs last, and what the model returns."""
    executed: list[nn.Linear] = []
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [linear.register_forward_pre_hook(lambda module, _: executed.append(module)) for linear in linears]
    try:
        logits = model(images)
    except Exception as error:  # the user's code can fail in any way
        fault = f"{type(error).__name__}: {_first_line(error)}"
        raise NetworkError(f"{name} cannot read images of shape {tuple(images.shape[1:])} ({fault})") from error
    finally:
        for hook in hooks:
            hook.remove()
    if not executed:
        raise NetworkError(f"{name} runs no nn.Linear; a representation is what enters the last linear layer")
    if not isinstance(logits, Tensor):
        raise NetworkError(f"{name} returns {type(logits).__name__}, not a tensor of logits")
    return executed[-1], logits


def _paths_to(layer: nn.Module, model: nn.Module) -> tuple[str, ...]:
    """All of them: a layer may be reachable by two names."""
    return tuple(path for path, module in model.named_modules(remove_duplicate=False) if module is layer)


def _without(paths: Sequence[str], model: nn.Module) -> nn.Module:
    """The model with nn.Identity at `paths`."""
    if "" in paths:  # the model is one linear layer
        return nn.Identity()
    for path in paths:
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    return model


def _any_float_tensor(model: nn.Module) -> Tensor:
    """Its device and dtype are those that images must have."""
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.zeros(()))


def _per_channel(values: Sequence[float] | Tensor, like: Tensor, *, name: str) -> Tensor:
    flat = torch.as_tensor(values).detach().to(like, copy=True).flatten()
    if len(flat) != like.shape[1]:
        raise NetworkError(f"{name} reads images of {len(flat)} channels, and these have {like.shape[1]}")
    return flat.reshape(-1, 1, 1)


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of half precision: a graph that is cut may choose other kernels."""
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-3 * float(b.abs().max()))


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
    def file(self) -> str | None:
        """The path or URL of the weights. torchvision's own are plain names, without dots or slashes."""
        if self.weights in (None, "none") or (self.source == "torchvision" and self.weights.isidentifier()):
            return None
        return self.weights


def parse_reference(reference: str) -> Reference:
    """Raises SettingsError, with the nearest name, for a source or an architecture that does not exist."""
    source, colon, rest = reference.partition(":")
    name, at, weights = rest.partition("@")
    if source not in SOURCES:
        raise SettingsError(f"no source {source!r} in network {reference!r}{nearest(source, SOURCES)}")
    if not colon or not name or (at and not weights):
        raise SettingsError(f"network {reference!r} is incomplete: write source:name[@weights]")
    if source == "small" and name not in small.SMALL:
        raise SettingsError(f"no small network {name!r}{nearest(name, small.SMALL)}")
    if source == "torchvision" and name not in torchvision_names():
        raise SettingsError(f"no torchvision network {name!r}{nearest(name, torchvision_names())}")
    if source == "python" and not (name.partition(":")[0] and name.partition(":")[2]):
        raise SettingsError(f"network {reference!r} names no function: write 'python:module:function'")
    return Reference(source=source, name=name, weights=weights or None)


@cache
def torchvision_names() -> tuple[str, ...]:
    """torchvision's classifiers, and the wide ResNet of Salman et al. 2020 that it does not have."""
    return (*torchvision.models.list_models(module=torchvision.models), "wide_resnet50_4")


def needs_training(reference: str) -> bool:
    """Whether a network has no weights of its own and none were named: the small ones."""
    parsed = parse_reference(reference)
    return parsed.source == "small" and parsed.weights is None


def load_network(
    reference: str, num_classes: int | None = None, *, input_shape: Shape | None = None, rng_seed: int = 0
) -> Network:
    """The network that `reference` (source:name[@weights]) names, on the CPU.

    torchvision:NAME        any of torchvision's classifiers, or wide_resnet50_4, with its default weights (downloaded);
                            SqueezeNet alone cannot be cut, because it has no linear layer
    torchvision:NAME@ENUM   with other weights of torchvision's, as in @IMAGENET1K_V1
    small:NAME              one of the nine small ones, which come without weights
    python:MODULE:FUNCTION  what a function of yours returns: a classifier of images in [0, 1], or an AttackerModel
    ...@none                random weights, named by the architecture and `rng_seed`: the same at every start
    ...@FILE.safetensors    a local file or any fsspec URL, in the tensor names of the architecture itself

    `num_classes` sets the number of classes where no weights do, and is checked where they do. `input_shape` (C, H, W)
    is what the network is tried on: 28 x 28 grey for small ones, else 224 x 224 RGB, unless given.

    Raises SettingsError for a reference or a `num_classes` that does not exist, NetworkError for weights that cannot be
    had, read or fitted, or a network that cannot be cut.
    """
    parsed = parse_reference(reference)
    build = partial(_build, parsed, reference=reference, input_shape=input_shape, rng_seed=rng_seed)
    network = build(num_classes)
    if parsed.file is not None:
        tensors = _parse(_read_file(parsed.file), origin=parsed.file)
        found = _class_count(tensors, network)
        if num_classes is None and found != network.num_classes and parsed.source != "python":
            network = build(found)
        _fill(network, tensors, origin=parsed.file)
    if num_classes not in (None, network.num_classes):
        raise SettingsError(f"{reference} has {network.num_classes} classes, not {num_classes}; leave num_classes out")
    return network


def _build(
    parsed: Reference, num_classes: int | None, *, reference: str, input_shape: Shape | None, rng_seed: int
) -> Network:
    """With the weights published for it, or random ones."""
    with _random_numbers(f"{parsed.name}/{rng_seed}"):
        model, mean, std = BUILDERS[parsed.source](parsed, num_classes)
    shape = input_shape or (small.INPUT_SHAPE if parsed.source == "small" else IMAGENET_SHAPE)
    example = torch.linspace(0, 1, shape[0] * shape[1] * shape[2]).reshape(1, *shape)
    return Network(model, example, name=parsed.name.rpartition(":")[2], reference=reference, mean=mean, std=std)


def _build_small(parsed: Reference, num_classes: int | None) -> tuple[nn.Module, Channels, Channels]:
    model = small.SMALL[parsed.name](num_classes=10 if num_classes is None else num_classes)
    return model.to(memory_format=torch.channels_last), small.MEAN, small.STD  # a quarter faster on a CPU


def _build_python(parsed: Reference, num_classes: int | None) -> tuple[nn.Module, Channels, Channels]:
    module_name, _, function_name = parsed.name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise SettingsError(f"importing {module_name!r} finds no module {error.name!r}; install it") from error
        message = f"cannot import {module_name!r} ({_first_line(error)}); is its folder on PYTHONPATH?"
        raise SettingsError(message) from error
    except (Exception, SystemExit) as error:  # the user's code can fail in any way, and must not end ours with success
        raise SettingsError(f"importing {module_name!r} raises {type(error).__name__}: {_first_line(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise SettingsError(f"no function {function_name!r} in {module_name}{nearest(function_name, known)}")
    try:
        model = function()
    except (Exception, SystemExit) as error:
        raise NetworkError(f"{parsed.name} raises {type(error).__name__}: {_first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise NetworkError(f"{parsed.name} returns {type(model).__name__}, not a torch.nn.Module")
    return _unwrap(model)


def _build_torchvision(parsed: Reference, num_classes: int | None) -> tuple[nn.Module, Channels, Channels]:
    published = _published_weights(parsed)
    mean, std = _normalisation(published)
    if parsed.weights == "none" or parsed.file is not None:
        return _untrained(parsed.name, 1000 if num_classes is None else num_classes), mean, std
    fixed = len(published.meta["categories"])
    if num_classes not in (None, fixed):  # before the download
        raise SettingsError(
            f"the weights {published.name} of {parsed.name} have {fixed} classes, not {num_classes}; "
            "leave num_classes out, or start from @none"
        )
    return _download(parsed, published), mean, std


BUILDERS = {"torchvision": _build_torchvision, "small": _build_small, "python": _build_python}


def _published_weights(parsed: Reference) -> Any:
    """The weights that are named, else the default ones: their normalisation holds for @none and files too. Or None."""
    unpublished = parsed.weights == "none" or parsed.file is not None
    if parsed.name == "wide_resnet50_4":
        if not unpublished:
            raise SettingsError("wide_resnet50_4 has no weights in torchvision: write @none or @FILE.safetensors")
        return None
    choices = torchvision.models.get_model_weights(parsed.name)
    if parsed.weights is None or unpublished:
        return choices.DEFAULT
    if parsed.weights not in choices.__members__:
        known = [*choices.__members__, "none", "FILE.safetensors"]
        raise SettingsError(f"{parsed.name} has no weights {parsed.weights!r}{nearest(parsed.weights, known)}")
    return choices[parsed.weights]


def _normalisation(weights: Any) -> tuple[Sequence[float], Sequence[float]]:
    preset = None if weights is None else weights.transforms()
    return getattr(preset, "mean", IMAGENET_MEAN), getattr(preset, "std", IMAGENET_STD)


def _download(parsed: Reference, weights: Any) -> nn.Module:
    """By torchvision's own loader: it keeps the file in torch's cache and checks the hash in its name."""
    try:
        with _no_code_in_pickles(), redirect_stdout(sys.stderr):  # torch.hub announces a download on stdout
            return torchvision.models.get_model(parsed.name, weights=weights, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, UnpicklingError) as error:
        folder = os.path.join(torch.hub.get_dir(), "checkpoints")
        raise NetworkError(
            f"cannot get the weights {weights.name} of {parsed.name} ({_first_line(error)}).\n"
            f"Put {weights.url} into {folder}, name a file with @FILE.safetensors, or use random weights with @none"
        ) from error


def _untrained(name: str, num_classes: int) -> nn.Module:
    if name == "wide_resnet50_4":
        return ResNet(Bottleneck, [3, 4, 6, 3], width_per_group=256, num_classes=num_classes)
    # these two warn that how they draw weights may change one day, unless they are told
    settings = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **settings)


@contextmanager
def _random_numbers(name: str) -> Iterator[None]:
    """Inside, torch draws on the CPU the random numbers named `name`; outside, nothing has changed."""
    with torch.random.fork_rng(devices=[]):
        digest = hashlib.sha256(name.encode()).digest()
        torch.random.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
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
    """sha256 hex over name, dtype, shape and bytes of every tensor in the state dict: one bit makes another network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_to_bytes(network: Network) -> bytes:
    """A safetensors file in the tensor names of the original architecture, so that its own class can read it too."""
    tensors = _named_tensors(network)
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    )


def load_weights(network: Network, data: bytes, *, origin: str = "the weights") -> None:
    """Fill `network` from a safetensors file. `origin` says in messages where `data` is from.

    Raises NetworkError for anything but safetensors (a pickle can run code), for tensors that are missing, surplus, of
    another shape (the first three are named), or not finite. Nothing is changed then.
    """
    _fill(network, _parse(data, origin=origin), origin=origin)


def _parse(data: bytes, *, origin: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise NetworkError(
            f"{origin} is no safetensors file ({_first_line(error)}); netsim reads nothing else, "
            "because a pickle can run code: convert it with safetensors.torch.save_file"
        ) from error


def _class_count(tensors: Mapping[str, Tensor], network: Network) -> int:
    """How many classes a file's last layer tells apart; the network's own number where that layer is not in it."""
    weight = tensors.get(f"{network.head_paths[0]}.weight")
    return network.num_classes if weight is None or weight.ndim != 2 else len(weight)


def _fill(network: Network, given: Mapping[str, Tensor], *, origin: str) -> None:
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
    both = sorted(wanted.keys() & given.keys())
    faults = {
        # BatchNorm counts its batches only since torch 0.4.1, and the count changes no output
        "missing": [name for name in wanted.keys() - given.keys() if not name.endswith("num_batches_tracked")],
        "surplus": list(given.keys() - wanted.keys()),
        "misshapen": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in both
            if given[name].shape != wanted[name].shape
        ],
        "not finite": [name for name in both if not torch.isfinite(given[name]).all()],
    }
    return [f"{fault} {_some(names)}" for fault, names in faults.items() if names]


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_TENSORS
    return ", ".join(sorted(names)[:NAMED_TENSORS]) + (f" and {more} more" if more > 0 else "")


def _read_file(url: str) -> bytes:
    try:
        with fsspec.open(url, "rb") as file:
            return file.read()
    except (OSError, ValueError, ImportError) as error:
        raise NetworkError(f"cannot read the weights {url!r}: {_first_line(error)}") from error
