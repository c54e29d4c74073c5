"""robustness:DATASET:ARCH: networks of the robustness library, of its own classes.

The checkpoints that its training writes and its `make_and_restore_model` reads are pickles, which `netsim convert`
converts to safetensors. The normalisation is that of the checkpoint, or else of the data set.
"""

from typing import Any

from torch import nn

from netsim.errors import SettingsError, nearest
from netsim.networks.preprocessing import Preprocessing
from netsim.networks.sources._robustness_compat import import_robustness
from netsim.networks.sources.base import Built, NetworkSource, Reference

# Those of robustness.datasets.DATASETS that have a fixed set of classes, with the height of their images in pixels.
DATASETS = {"cifar": 32, "cinic": 32, "imagenet": 224, "restricted_imagenet": 224, "places365": 224}


def check(parsed: Reference) -> None:
    """Raise SettingsError for an unknown data set or architecture, and for a reference without weights."""
    dataset, _, name = parsed.name.partition(":")
    if dataset not in DATASETS:
        raise SettingsError(f"no data set {dataset!r} in robustness{nearest(dataset, DATASETS)}")
    known = _architectures(dataset)
    if name not in known:
        raise SettingsError(f"no network {name!r} in robustness for {dataset}{nearest(name, known)}")
    if parsed.weights is None:
        raise SettingsError(
            f"network 'robustness:{parsed.name}' requires weights: write @FILE for a checkpoint, or @none"
        )


def build(parsed: Reference, num_classes: int | None) -> Built:
    """Build the network with random weights, for the data set's classes by default."""
    dataset, _, name = parsed.name.partition(":")
    info = import_robustness().datasets.DATASETS[dataset]("unused")
    model = _architectures(dataset)[name](num_classes=info.num_classes if num_classes is None else num_classes)
    mean, std, size = tuple(info.mean.tolist()), tuple(info.std.tolist()), DATASETS[dataset]
    if size == 32:
        return Built(model, Preprocessing(mean, std, size=size))
    return Built(model, Preprocessing(mean, std, size=size, crop=0.875, interpolation="bilinear"))


def _architectures(dataset: str) -> dict[str, Any]:
    """Return the constructors that `dataset.get_model` finds by name, without the layers and helpers it also finds."""
    robustness = import_robustness()
    module = robustness.cifar_models if DATASETS[dataset] == 32 else robustness.imagenet_models
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and name.islower() and name != "test" and not _is_layer(value)
    }


def _is_layer(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


SOURCE = NetworkSource(check, build)
