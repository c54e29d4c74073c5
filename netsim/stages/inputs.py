"""Inputs of the stages: networks as recorded, images that are used, devices, and forward passes."""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from netsim.errors import DataError, StoreError
from netsim.images import ImageSet, ListedImages, Split, load_images, to_unit
from netsim.images.doubles import same_pictures
from netsim.networks import (
    Network,
    Shape,
    behaviour_of,
    content_hash,
    load_network,
    load_once,
    load_weights,
    same_behaviour,
)
from netsim.networks.batches import evaluation_batches
from netsim.networks.gate import require_dtype
from netsim.networks.kept import KeptNetworks
from netsim.references import has_photographs
from netsim.settings import ImageSettings, SweepSettings
from netsim.store.coverage import embedded
from netsim.store.layout import NATURAL, SEED, digests_path, from_stored, images_path, representation_path, weights_path
from netsim.store.metadata import CheckedSplit, CheckMetadata, TrainMetadata
from netsim.store.provenance import check_weights, weights_hash
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import Unit


def used_splits(settings: SweepSettings) -> list[Split]:
    """List the splits that a sweep uses: test images, and training images if a network has no weights."""
    members = (*settings.members, *settings.observing)
    return ["test", "train"] if any(member.training for member in members) else ["test"]


def used_images(settings: SweepSettings) -> dict[Split, ImageSet]:
    """List the images of the splits that a sweep uses, afresh."""
    return {split: _load(settings.images, split) for split in used_splits(settings)}


def splits_of(*, trained: bool) -> list[Split]:
    """List the splits that a network is made or tested with, whatever other networks are in the sweep."""
    return ["test", "train"] if trained else ["test"]


def _load(images: ImageSettings, split: Split) -> ImageSet:
    return load_images(images.source, split, images.size, images.class_order)


def count_classes(sets: Iterable[ImageSet]) -> int:
    """Count the classes that networks are trained for. Without names, the last may occur in one of the splits only."""
    return max(len(images.classes) for images in sets)


def untrained_network(reference: str, *, classes: int, shape: Shape, rng_seed: int) -> Network:
    """Build a network with the initial weights that `training.rng_seed` names."""
    return load_network(f"{reference}@none", num_classes=classes, input_shape=shape, rng_seed=rng_seed)


def require_matching(network: Network, images: ImageSet) -> None:
    """Check that a network has an output for every label of the images, and takes float32, as `to_unit` gives it.

    Raises
    ------
    DataError, NetworkError
        If not.
    """
    require_float32(network)
    if network.num_classes < len(images.classes):
        raise DataError(
            f"{network.reference} has {network.num_classes} outputs but the images have {len(images.classes)} classes"
        )


def require_float32(network: Network) -> None:
    """Check that a network takes float32, as `to_unit` gives it. Raises NetworkError if not."""
    require_dtype(network.mean, torch.float32, name=network.reference)


def network(run: Run, name: str) -> Network:
    """Load a network exactly as the run recorded it, once per process.

    Raises
    ------
    StoreError
        If the weights behind its reference are no longer those the run began with.
    """
    return load_as_recorded(Recorded(run, name))


kept_networks = KeptNetworks()
"""The networks of this process."""


class Recorded:
    """A network of a run as it was recorded: two that have equal weights and one name are the same."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self.weights = weights_hash(run, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recorded) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, str, str]:
        return self.run.url, self.name, self.weights


def load_as_recorded(wanted: Recorded) -> Network:
    """Load a network of a run onto this worker's device, if it is not kept. Raises StoreError as `network` does."""
    return kept_networks.get(wanted, wanted.run.url, partial(_load_as_recorded, wanted))


def _load_as_recorded(wanted: Recorded) -> Network:
    run, name = wanted.run, wanted.name
    record = run.record("train", name)
    recorded, stored = TrainMetadata.of(record), run.sweep.network(name)
    reference, shape = stored.reference, recorded.input_shape
    if stored.training is not None:
        seed = stored.training.rng_seed
        loaded = untrained_network(reference, classes=recorded.classes, shape=shape, rng_seed=seed)
        load_weights(loaded, run.read_file(record, weights_path(name)))
    else:
        loaded = load_once(reference, input_shape=shape)
    if content_hash(loaded) != wanted.weights:
        other = ", and a function must return the same weights in every process" if _is_function(reference) else ""
        raise StoreError(
            f"the weights of {reference} have changed since this run began; changed weights need a new --store{other}"
        )
    if stored.behaviour and not same_behaviour(stored.behaviour, behaviour_of(loaded, shape)):
        raise StoreError(
            f"{reference} gives other representations here than where the sweep began, by equal weights; "
            "its code must be the same on all machines, and changed code is another network: give it another name"
        )
    return loaded.eval().to(device())


def _is_function(reference: str) -> bool:
    return reference.startswith("python:")


def device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def computed_on() -> dict[str, Any]:
    """Return metadata that the last bits of a result may depend on."""
    name = torch.cuda.get_device_name() if device().type == "cuda" else platform.machine()
    return {"device": f"{device().type} {name}", "threads": torch.get_num_threads()}


@lru_cache(maxsize=4)
def listed_images(images: ImageSettings, split: Split) -> ImageSet:
    """List a split of the images, once per process."""
    return _load(images, split)


@lru_cache(maxsize=4)
def _readable(settings: ImageSettings, split: Split, listed_hash: str, skipped: tuple[int, ...]) -> ImageSet:
    """Drop unreadable images from a list that was checked. Raises StoreError if the list has changed."""
    images = listed_images(settings, split)
    assert isinstance(images, ListedImages)
    if images.content_hash() != listed_hash:
        raise images_changed_error(images)
    return images.without(skipped)


def readable_images(run: Run, split: Split) -> ImageSet:
    """Return the images of a split without those that the check found unreadable."""
    settings = run.settings.images
    if not has_photographs(settings.source):
        return listed_images(settings, split)
    checked = _checked(run, split)
    return _readable(settings, split, checked.listed_hash, _skipped(checked))


def _skipped(checked: CheckedSplit) -> tuple[int, ...]:
    return tuple(image.index for image in checked.unreadable)


@lru_cache(maxsize=4)
def listed_pictures(images: ImageSettings) -> np.ndarray:
    """Find the test images that are the same picture, where images are not decoded one by one; see `same_pictures`."""
    return same_pictures(listed_images(images, "test"))


def pictures(run: Run) -> np.ndarray:
    """Return a number for each readable test image, equal for those that are the same picture: (n,) int64."""
    if not has_photographs(run.settings.images.source):
        return listed_pictures(run.settings.images)
    checked = _checked(run, "test")
    numbers = np.arange(checked.listed)
    for index, first in checked.doubles:
        numbers[index] = first
    return np.delete(numbers, _skipped(checked))


@lru_cache(maxsize=4)
def _hash(images: ImageSettings) -> str:
    return listed_images(images, "test").content_hash()


def hash_of_test_images(run: Run) -> str:
    """Hash the test images that the run uses."""
    if not has_photographs(run.settings.images.source):
        return _hash(run.settings.images)
    readable_images(run, "test")  # they are still those that were checked
    return _checked(run, "test").images_hash


@lru_cache(maxsize=64)
def _checked(run: Run, split: Split) -> CheckMetadata:
    return CheckMetadata.of(run.record("check", split))


@lru_cache(maxsize=4)
def _digests(run: Run) -> np.ndarray:
    """Read the hashes of the readable test photographs as they were checked: (n,) uint64."""
    data = run.read_file(run.record("check", "test"), digests_path("test"))
    return np.delete(np.frombuffer(data, dtype="<u8"), _skipped(_checked(run, "test")))


def read_test_images(run: Run, indices: np.ndarray) -> np.ndarray:
    """Read readable test images at `indices`: uint8 (k, C, H, W).

    Raises
    ------
    StoreError
        If a photograph has other bytes than when it was checked: lists go by names and sizes only.
    """
    images = readable_images(run, "test")
    if not (isinstance(images, ListedImages) and has_photographs(run.settings.images.source)):
        return images.read(indices)
    pixels, digests = images.read_with_digests(indices)
    changed = [images.names[index] for index in indices[digests != _digests(run)[indices]]]
    if changed:
        raise images_changed_error(images, changed)
    return pixels


def images_changed_error(images: ImageSet, changed: Sequence[str] = ()) -> StoreError:
    """Make the error for images that are no longer those the run began with; some may be named."""
    named = f", such as {changed[0]!r}" if changed else ""
    return StoreError(
        f"the images of {images.name} have changed since this run began{named}; changed images need a new --store"
    )


def represent(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Compute representations (n, d) of images (n, C, H, W), on this worker's device; the result is on the CPU."""
    return evaluation_batches(network, images).evaluate(network.represent, images).cpu()


def logits(run: Run, name: str, representation: np.ndarray) -> np.ndarray:
    """Apply a network's last layer to representations (n, d): exactly its logits (n, classes)."""
    head = network(run, name).head
    with torch.no_grad():
        return head(torch.tensor(representation).to(head.weight)).float().cpu().numpy()


class Represented:
    """Representations of a set by some networks, as sources of shards, each from the unit that has it.

    Attributes
    ----------
    records
        All records that were read, of every shard.

    Raises
    ------
    StoreError
        If a network has not looked at a shard, or with other weights than it has now.
    """

    def __init__(self, run: Run, set_name: str, names: Sequence[str], shards: int) -> None:
        self._run, self._set, self._names = run, set_name, names
        covered = embedded(run, run.done("embed", [set_name]))
        self._units = [self._units_of(covered.get((set_name, shard), {}), shard) for shard in range(shards)]
        wanted = dict.fromkeys(unit for units in self._units for unit in units.values())
        self._records = run.records_of(wanted)
        for record in self._records.values():
            check_weights(run, record)

    def _units_of(self, covered: Mapping[str, str], shard: int) -> dict[str, Unit]:
        """Map each network to the unit with its representations of a shard."""
        for name in self._names:
            if name not in covered:
                raise StoreError(f"embed {self._set} shard {shard} by {name} is not done in {self._run.url}")
        return {name: ("embed", covered[name], shard) for name in self._names}

    @property
    def records(self) -> list[Record]:
        """All records that were read."""
        return list(self._records.values())

    @property
    def sources(self) -> list[Callable[[], dict[str, np.ndarray]]]:
        """Functions that read a shard: network -> (pairs, d)."""
        return [partial(self.read, shard) for shard in range(len(self._units))]

    def read(self, shard: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Read the representations of a shard by some of the networks, all by default: (pairs, d) each."""
        units = self._units[shard]
        paths = {name: representation_path(self._set, name) for name in names or self._names}
        values: dict[str, np.ndarray] = {}
        for unit in dict.fromkeys(units[name] for name in paths):
            values |= self._run.read_some(self._records[unit], [p for n, p in paths.items() if units[n] == unit])
        return {name: values[path] for name, path in paths.items()}


def set_images(run: Run, set_name: str, shard: int) -> tuple[torch.Tensor, Record]:
    """Read a shard's images of a set (n, C, H, W), float32 in [0, 1], and the record that covers them.

    Raises
    ------
    StoreError
        If they are missing or damaged.
    """
    if set_name in (NATURAL, SEED):
        record = run.record("draw", "pairs", shard)
        return to_unit(run.read(record, images_path(set_name))), record
    record = run.record("invert", set_name.removeprefix("inverted/"), shard)
    check_weights(run, record)
    return torch.from_numpy(from_stored(run.read(record, images_path(set_name)))), record
