"""Inputs of the stages: networks as recorded, images that are used, devices, and forward passes."""

import platform
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch

from netsim.errors import DataError, StoreError
from netsim.images import ImageSet, ListedImages, Split, load_images, to_unit
from netsim.networks import Network, Shape, content_hash, load_network, load_weights, needs_training
from netsim.references import has_photographs
from netsim.settings import SweepSettings
from netsim.store.layout import (
    NATURAL,
    from_stored,
    weights_path,
)
from netsim.store.metadata import CheckMetadata, TrainMetadata
from netsim.store.provenance import check_weights, weights_hash
from netsim.store.records import Record
from netsim.store.run import Run


def used_splits(settings: SweepSettings) -> list[Split]:
    """The test images, and those that networks without weights are trained on."""
    trained = any(needs_training(settings.reference(name)) for name in settings.names)
    return ["test", "train"] if trained else ["test"]


def used_images(settings: SweepSettings) -> dict[Split, ImageSet]:
    """All that is listed in those splits, listed anew."""
    of = settings.images
    return {split: load_images(of.source, split, of.size) for split in used_splits(settings)}


def classes_of(sets: Iterable[ImageSet]) -> int:
    """Classes that networks are trained for. Where they have no names, the last may be in one of the splits only."""
    return max(len(images.classes) for images in sets)


def untrained_network(settings: SweepSettings, reference: str, *, classes: int, shape: Shape) -> Network:
    seed = settings.training.rng_seed
    return load_network(f"{reference}@none", num_classes=classes, input_shape=shape, rng_seed=seed)


def check_classes(network: Network, images: ImageSet) -> None:
    """Raises DataError if the images have labels that the network has no output for."""
    if network.num_classes < len(images.classes):
        raise DataError(
            f"{network.reference} tells {network.num_classes} classes apart, the images have {len(images.classes)}"
        )


def network(run: Run, name: str) -> Network:
    """The network called `name`, exactly as the run recorded it; loaded once in a process.

    Raises StoreError if the weights behind its reference are no longer those the run began with.
    """
    return load_recorded(run.url, name, weights_hash(run, name))


NETWORKS_KEPT = 64
"""By a worker, more than a sweep has: what does not fit would be loaded again for every shard."""


@lru_cache(maxsize=NETWORKS_KEPT)
def load_recorded(url: str, name: str, weights_hash: str) -> Network:
    run = Run.open(url)
    record = run.record("train", name)
    recorded = TrainMetadata.of(record)
    reference, shape = run.settings.reference(name), recorded.input_shape
    if recorded.trained_here:
        loaded = untrained_network(run.settings, reference, classes=recorded.classes, shape=shape)
        load_weights(loaded, run.read_file(record, weights_path(name)))
    else:
        loaded = load_network(reference, input_shape=shape)
    if content_hash(loaded) != weights_hash:
        raise StoreError(
            f"the weights of {reference} are not those this run began with; changed weights need a new --store"
        )
    return loaded.eval().to(device())


def device() -> torch.device:
    """A GPU where there is one. Its convolutions then work in float32 as they say, not in TF32."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def computed_on() -> dict[str, Any]:
    """What the last bits of a result may depend on."""
    name = torch.cuda.get_device_name() if device().type == "cuda" else platform.machine()
    return {"device": f"{device().type} {name}", "threads": torch.get_num_threads()}


@lru_cache(maxsize=4)
def listed_images(source: str, split: Split, size: int | None) -> ImageSet:
    return load_images(source, split, size)


@lru_cache(maxsize=4)
def _readable(source: str, split: Split, size: int | None, listed_hash: str, skipped: tuple[int, ...]) -> ImageSet:
    """Those images of a list that was looked at which can be read. Raises StoreError for another list."""
    images = listed_images(source, split, size)
    assert isinstance(images, ListedImages)
    if images.content_hash() != listed_hash:
        raise images_changed(images)
    return images.without(skipped)


def used_split_images(run: Run, split: Split) -> ImageSet:
    """The images that the run uses: all of them that were found to be readable."""
    settings = run.settings.images
    if not has_photographs(settings.source):
        return listed_images(settings.source, split, settings.size)
    checked = _checked(run).splits[split]
    skipped = tuple(image.index for image in checked.unreadable)
    return _readable(settings.source, split, settings.size, checked.listed_hash, skipped)


@lru_cache(maxsize=4)
def _hash(source: str, size: int | None) -> str:
    return listed_images(source, "test", size).content_hash()


def hash_of_test_images(run: Run) -> str:
    """Of the test images that the run uses."""
    settings = run.settings.images
    if not has_photographs(settings.source):
        return _hash(settings.source, settings.size)
    used_split_images(run, "test")  # they are still those that were looked at
    return _checked(run).test.images_hash


@lru_cache(maxsize=64)
def _checked(run: Run) -> CheckMetadata:
    return CheckMetadata.of(run.record("check", "images"))


def images_changed(images: ImageSet) -> StoreError:
    return StoreError(f"the images of {images.name} changed since this run began; changed images need a new --store")


def represent(network: Network, images: torch.Tensor) -> torch.Tensor:
    """The representation (n, d), on the CPU."""
    with torch.no_grad():
        return torch.cat([network.represent(batch.to(device())).cpu() for batch in images.split(REPRESENT_BATCH)])


REPRESENT_BATCH = 32
"""Images that a network looks at at once: shards may be larger than memory."""


def set_images(run: Run, set_name: str, shard: int) -> tuple[torch.Tensor, Record]:
    """A shard's images of a set (n, C, H, W), float32 in [0, 1], and the record that covers them.

    Raises StoreError if they are missing or damaged.
    """
    if set_name == NATURAL:
        record = run.record("draw", "pairs", shard)
        return to_unit(run.read(record, "images/target")), record
    record = run.record("invert", set_name.removeprefix("inverted/"), shard)
    check_weights(run, record)
    return torch.from_numpy(from_stored(run.read(record, f"{set_name}/image"))), record
