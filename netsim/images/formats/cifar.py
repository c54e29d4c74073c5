"""CIFAR-10 and CIFAR-100, the binary version: records of label and 3072 pixels, red, green and blue (Krizhevsky 2009,
https://www.cs.toronto.edu/~kriz/cifar.html). The version for Python holds pickles, which can run anything: refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netsim.errors import DataError
from netsim.images.base import ArrayImages, Split, checked_labels
from netsim.images.listed import image_files, last_name
from netsim.storage.files import Files

SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class Version:
    """What the files of one of the two are called, and where its label is in a record."""

    folder: str  # inside the archive
    files: dict[Split, tuple[str, ...]]
    classes: str
    label_bytes: int  # the last of them is the label
    pickled: tuple[str, ...]  # files of the version for Python


CIFAR10 = Version(
    folder="cifar-10-batches-bin",
    files={"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)},
    classes="batches.meta.txt",
    label_bytes=1,
    pickled=("cifar-10-batches-py", "data_batch_1", "test_batch"),
)
CIFAR100 = Version(
    folder="cifar-100-binary",
    files={"train": ("train.bin",), "test": ("test.bin",)},
    classes="fine_label_names.txt",
    label_bytes=2,  # coarse, then fine
    pickled=("cifar-100-python", "train", "test"),
)


def load_cifar10(place: str, *, split: Split, size: int | None) -> ArrayImages:
    return _load(CIFAR10, place, split, size)


def load_cifar100(place: str, *, split: Split, size: int | None) -> ArrayImages:
    return _load(CIFAR100, place, split, size)


def _load(version: Version, place: str, split: Split, size: int | None) -> ArrayImages:
    files = image_files(place)
    here = files.names()
    if version.folder in here:
        files = image_files(f"{files.url}/{version.folder}")
        here = files.names()
    _require(version, files, here, (*version.files[split], version.classes))
    classes = tuple(_read(files, version.classes).decode(errors="replace").split("\n"))
    classes = tuple(name.strip() for name in classes if name.strip())
    records = np.concatenate([_records(version, files, name) for name in version.files[split]])
    labels = checked_labels(records[:, version.label_bytes - 1], len(classes), files.url)
    pixels = records[:, version.label_bytes :].reshape(-1, 3, SIDE, SIDE)
    return ArrayImages(last_name(files), pixels, labels, classes, size=size)


def _require(version: Version, files: Files, here: Sequence[str], needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in here]
    if not missing:
        return
    if any(name in here for name in version.pickled):
        raise DataError(
            f"{files.url!r} holds the version for Python, which is pickled and may run anything; "
            f"take the binary version ({version.folder}) from the same page"
        )
    raise DataError(f"{files.url!r} lacks {', '.join(missing)} of the binary version ({version.folder})")


def _read(files: Files, name: str) -> bytes:
    try:
        return files.get(name)
    except FileNotFoundError:
        raise DataError(f"{files.place(name)} is gone") from None


def _records(version: Version, files: Files, name: str) -> np.ndarray:
    data, record = _read(files, name), version.label_bytes + PIXELS
    if not data or len(data) % record:
        raise DataError(
            f"{files.place(name)} has {len(data)} bytes, no multiple of {record}: it is damaged or another file"
        )
    return np.frombuffer(data, np.uint8).reshape(-1, record)
