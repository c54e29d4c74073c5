"""robustness:DATASET:ARCH: networks of the robustness library itself, by its own classes.

The checkpoints that its training leaves and its `make_and_restore_model` reads are pickles: `netsim convert` makes
safetensors of them. The normalisation is that of the checkpoint, or of the data set where a file says nothing.
"""

from typing import Any

from torch import nn

from netsim.errors import SettingsError, nearest
from netsim.networks.preprocessing import Preprocessing
from netsim.networks.sources._robustness_compat import import_robustness
from netsim.networks.sources.base import Built, NetworkSource, Reference

DATASETS = {"cifar": 32, "cinic": 32, "imagenet": 224, "restricted_imagenet": 224, "places365": 224}
"""Of robustness.datasets.DATASETS, those that say by themselves what their classes are; pixels a side."""


def check(parsed: Reference) -> None:
    dataset, _, name = parsed.name.partition(":")
    if dataset not in DATASETS:
        raise SettingsError(f"no data set {dataset!r} of robustness{nearest(dataset, DATASETS)}")
    known = _architectures(dataset)
    if name not in known:
        raise SettingsError(f"robustness has no network {name!r} for {dataset}{nearest(name, known)}")
    if parsed.weights is None:
        raise SettingsError(
            f"network 'robustness:{parsed.name}' names no weights: write @FILE.safetensors, as `netsim convert` makes "
            "it of a checkpoint, or @none"
        )


def build(parsed: Reference, num_classes: int | None) -> Built:
    dataset, _, name = parsed.name.partition(":")
    about = import_robustness().datasets.DATASETS[dataset]("unused")
    model = _architectures(dataset)[name](num_classes=about.num_classes if num_classes is None else num_classes)
    mean, std, size = tuple(about.mean.tolist()), tuple(about.std.tolist()), DATASETS[dataset]
    if size == 32:
        return Built(model, Preprocessing(mean, std, size=size))
    return Built(model, Preprocessing(mean, std, size=size, crop=0.875, interpolation="bilinear"))


def _architectures(dataset: str) -> dict[str, Any]:
    """What `dataset.get_model` finds by name, without the other things it would find."""
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
