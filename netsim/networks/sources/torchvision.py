"""torchvision:NAME[@WEIGHTS]: any torchvision classifier, and a wide ResNet of Salman et al. that it lacks."""

import os
import sys
from contextlib import redirect_stdout
from functools import cache
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from netsim.errors import NetworkError, SettingsError, first_line, nearest
from netsim.networks.preprocessing import IMAGENET, Preprocessing
from netsim.networks.sources.base import Built, NetworkSource, Reference
from netsim.networks.weights import no_code_in_pickles


@cache
def torchvision_names() -> tuple[str, ...]:
    """Return the names of all classifiers."""
    return (*torchvision.models.list_models(module=torchvision.models), "wide_resnet50_4")


def check(parsed: Reference) -> None:
    """Raise SettingsError for an unknown architecture or name of weights."""
    if parsed.name not in torchvision_names():
        raise SettingsError(f"no torchvision network {parsed.name!r}{nearest(parsed.name, torchvision_names())}")
    _published_weights(parsed)


def build(parsed: Reference, num_classes: int | None) -> Built:
    """Build the network with published weights, or with random ones, for 1000 classes by default.

    Raises
    ------
    SettingsError
        If `num_classes` differs from that of the published weights.
    NetworkError
        If they cannot be downloaded.
    """
    published = _published_weights(parsed)
    preprocessing = _preprocessing(published)
    if parsed.weights == "none" or parsed.file is not None:
        classes = 1000 if num_classes is None else num_classes
        return Built(untrained_model(parsed.name, classes, preprocessing.size), preprocessing)
    fixed = len(published.meta["categories"])
    if num_classes not in (None, fixed):  # before the download
        raise SettingsError(
            f"num_classes must be {fixed} for the weights {published.name} of {parsed.name}, got {num_classes}. "
            "Omit num_classes, or use random weights with @none."
        )
    return Built(_download(parsed, published), preprocessing)


def untrained_model(name: str, num_classes: int, size: int | None = None) -> nn.Module:
    """Build an architecture with random weights. Vision transformers require images of one `size`, in pixels."""
    if name == "wide_resnet50_4":
        return ResNet(Bottleneck, [3, 4, 6, 3], width_per_group=256, num_classes=num_classes)
    settings: dict[str, Any] = {}
    if name.startswith("vit_") and size is not None:
        settings = {"image_size": size}
    if name in ("googlenet", "inception_v3"):
        # without init_weights they warn that their initialisation may change; and their published weights, which may
        # be in a file, require that the model itself normalises the images once more
        settings = {"init_weights": True, "transform_input": True}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **settings)


def _published_weights(parsed: Reference) -> Any:
    """Return the weights named, or else the default ones, whose preprocessing is used; None if none are published."""
    unpublished = parsed.weights == "none" or parsed.file is not None
    if parsed.name == "wide_resnet50_4":
        if not unpublished:
            raise SettingsError("wide_resnet50_4 has no weights in torchvision: write @none or @FILE")
        return None
    choices = torchvision.models.get_model_weights(parsed.name)
    if parsed.weights is None or unpublished:
        return choices.DEFAULT
    if parsed.weights not in choices.__members__:
        known = [*choices.__members__, "none", "FILE"]
        raise SettingsError(f"{parsed.name} has no weights {parsed.weights!r}{nearest(parsed.weights, known)}")
    return choices[parsed.weights]


def tag(parsed: Reference) -> str:
    """Return the name of the published weights, as in IMAGENET1K_V1."""
    return str(_published_weights(parsed).name)


def _preprocessing(weights: Any) -> Preprocessing:
    if weights is None:
        return IMAGENET
    preset = weights.transforms()
    (size,), (resized,) = preset.crop_size, preset.resize_size
    return Preprocessing(
        tuple(preset.mean), tuple(preset.std), size=size, crop=size / resized, interpolation=preset.interpolation.value
    )


def _download(parsed: Reference, weights: Any) -> nn.Module:
    """Load weights by torchvision's own loader, which caches the file and checks the hash in its name."""
    try:
        with no_code_in_pickles(), redirect_stdout(sys.stderr):  # torch.hub announces a download on stdout
            return torchvision.models.get_model(parsed.name, weights=weights, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, UnpicklingError) as error:
        folder = os.path.join(torch.hub.get_dir(), "checkpoints")
        raise NetworkError(
            f"cannot download the weights {weights.name} of {parsed.name} ({first_line(error)}).\n"
            f"Put {weights.url} into {folder}, name a file with @FILE, or use random weights with @none."
        ) from error


SOURCE = NetworkSource(check, build, publishes=True, tag=tag)
