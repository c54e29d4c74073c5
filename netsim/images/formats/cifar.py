"""Read the binary version of CIFAR-10 and CIFAR-100.

A record is the label and 3072 pixels, red, green and blue (Krizhevsky 2009,
https://www.cs.toronto.edu/~kriz/cifar.html). The Python version consists of pickles, which can run any code: refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netsim.errors import DataError
from netsim.images.base import ArrayImages, Split, validate_labels
from netsim.images.listed import image_files, set_name
from netsim.storage.files import Files

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True)
class Version:
    """File names and record format of CIFAR-10 or CIFAR-100.

    Attributes
    ----------
    folder : str
        Folder in the downloaded archive.
    files : dict
        Split -> names of its files.
    classes : str
        Name of the file of class names.
    label_bytes : int
        Bytes before the pixels of a record; the last of them is the label.
    pickled : tuple of str
        Names of files and folders of the Python version.
    """

    folder: str
    files: dict[Split, tuple[str, ...]]
    classes: str
    label_bytes: int
    pickled: tuple[str, ...]


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


def load_cifar10(path: str, *, split: Split, size: int | None) -> ArrayImages:
    """Read a split of CIFAR-10. Raise DataError for missing, damaged or pickled files."""
    return _load(CIFAR10, path, split, size)


def load_cifar100(path: str, *, split: Split, size: int | None) -> ArrayImages:
    """Read a split of CIFAR-100 with its fine labels. Raise DataError for missing, damaged or pickled files."""
    return _load(CIFAR100, path, split, size)


def _load(version: Version, path: str, split: Split, size: int | None) -> ArrayImages:
    files = image_files(path)
    present = files.names()
    if version.folder in present:
        files = image_files(f"{files.url}/{version.folder}")
        present = files.names()
    _require_files(version, files, present, (*version.files[split], version.classes))
    lines = _read(files, version.classes).decode(errors="replace").split("\n")
    classes = tuple(line.strip() for line in lines if line.strip())
    records = np.concatenate([_records(version, files, name) for name in version.files[split]])
    labels = validate_labels(records[:, version.label_bytes - 1], len(classes), files.url)
    pixels = records[:, version.label_bytes :].reshape(-1, 3, _SIDE, _SIDE)
    return ArrayImages(set_name(files), pixels, labels, classes, size=size)


def _require_files(version: Version, files: Files, present: Sequence[str], required: tuple[str, ...]) -> None:
    """Raise DataError unless all required files are present."""
    missing = [name for name in required if name not in present]
    if not missing:
        return
    if any(name in present for name in version.pickled):
        raise DataError(
            f"{files.url!r} must contain the binary version, got the Python version, whose pickles can run any code; "
            f"download the binary version ({version.folder}) from the same page"
        )
    raise DataError(f"{files.url!r} lacks {', '.join(missing)}; it must contain the binary version ({version.folder})")


def _read(files: Files, name: str) -> bytes:
    try:
        return files.get(name)
    except FileNotFoundError:
        raise DataError(f"{files.place(name)} is missing") from None


def _records(version: Version, files: Files, name: str) -> np.ndarray:
    """Return the records of a file, (images, bytes of a record) uint8. Raise DataError if its size is wrong."""
    data, record = _read(files, name), version.label_bytes + _PIXELS
    if not data or len(data) % record:
        raise DataError(
            f"size of {files.place(name)} must be a multiple of {record} bytes, got {len(data)}; "
            "it is damaged or another file: download it again"
        )
    return np.frombuffer(data, np.uint8).reshape(-1, record)
