"""Read NumPy archives (.npz) of uint8 images and their labels. Arrays of objects are pickles: refused.

Images are (n, H, W), (n, H, W, C) or (n, C, H, W), C 1 or 3, under one of the pairs of names in `NAMES`; an optional
array `classes` names the labels. Large arrays that `np.savez` wrote are read by range; those of `savez_compressed` are
held in memory.
"""

import io
import lzma
import zipfile
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib import format as npy

from netsim.errors import DataError, first_line, on_one_line
from netsim.images.base import Split, numbered_classes, validate_labels
from netsim.images.decoding import Raw
from netsim.images.listed import Contents, Extents, ListedImages, image_file
from netsim.images.names import SPLITS, is_clutter

# Names of images and labels, in order of preference; {split} is any name of the split. The last serve both splits.
NAMES = (("{split}_images", "{split}_labels"), ("x_{split}", "y_{split}"), ("images", "labels"))

# Errors of zipfile and of the decompressors that it uses; RuntimeError is one of a password that is required.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError)

# Bytes of images up to which they are held in memory: faster than reading small images one by one.
IN_MEMORY = 2**28


@dataclass(frozen=True)
class InMemory:
    """Contents that are held in memory.

    Attributes
    ----------
    pixels : array (n, bytes) of uint8
        The images, all of one size.
    checksum : str
        CRC-32 of the array in the archive, in hex.
    """

    pixels: np.ndarray
    checksum: str

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each image, (n,)."""
        return np.full(len(self.pixels), self.pixels.shape[1])

    def get(self, indices: np.ndarray) -> list[bytes]:
        """Return the bytes of images, in order."""
        return [self.pixels[index].tobytes() for index in indices]

    def keep(self, indices: np.ndarray) -> "InMemory":
        """Return the contents of these images only, in this order."""
        return replace(self, pixels=self.pixels[indices])

    def stamp(self) -> bytes:
        """Return the checksum."""
        return self.checksum.encode()


@dataclass(frozen=True)
class Stored(Extents):
    """Contents that are read by range from an archive without compression.

    Attributes
    ----------
    checksum : str
        CRC-32 of the array in the archive, in hex.
    """

    checksum: str = ""

    def stamp(self) -> bytes:
        """Return the checksum."""
        return self.checksum.encode()


def load(path: str, *, split: Split, size: int | None) -> ListedImages:
    """Open an archive and list the images of a split.

    Raises
    ------
    DataError
        If the file is missing or damaged, or its arrays have other names, shapes or types.
    """
    files, name = image_file(path)
    location = files.place(name)
    try:
        with files.open(name) as file, zipfile.ZipFile(file) as archive:
            entries = {
                entry.filename.removesuffix(".npy"): entry
                for entry in archive.infolist()
                if not is_clutter(entry.filename)
            }
            images_name, labels_name = _names(entries, split, location)
            raw_labels = _array(archive, labels_name, location)
            labels = raw_labels.reshape(-1) if raw_labels.ndim == 2 and raw_labels.shape[1] == 1 else raw_labels
            classes = _classes(archive, entries, labels, location)
            entry = entries[images_name]
            shape, start = _header(archive, entry, location)
            stored, axes = _axes(shape, f"{images_name} in {location}")
            item, checksum = int(np.prod(stored)), f"{entry.CRC:08x}"
            contents: Contents
            if entry.compress_type == zipfile.ZIP_STORED and shape[0] * item > IN_MEMORY:
                first = _data_offset(file, entry) + start
                n = np.arange(shape[0])
                contents = Stored(files, (name,), 0 * n, first + item * n, np.full(len(n), item), checksum)
            else:
                contents = InMemory(_array(archive, images_name, location).reshape(shape[0], item), checksum)
    except FileNotFoundError:
        raise DataError(f"no file {location!r}; images.source must be an existing .npz file") from None
    except _UNREADABLE as error:
        raise DataError(f"{location} is damaged, encrypted, or not written by np.savez ({first_line(error)})") from None
    if len(labels) != shape[0]:
        raise DataError(
            f"{images_name} and {labels_name} must have the same length, got {shape[0]} images and {len(labels)} "
            f"labels in {location}"
        )
    return ListedImages(
        name=name.removesuffix(".npz"),
        location=location,
        names=tuple(f"{images_name}[{k}]" for k in range(len(labels))),
        labels=validate_labels(labels, len(classes), location),
        classes=classes,
        contents=contents,
        decode=Raw(stored, axes, size),
    )


def _names(present: Collection[str], split: Split, location: str) -> tuple[str, str]:
    """Return the names of the arrays of images and labels."""
    for images, labels in _accepted(name for group in SPLITS[split] for name in group):
        if images in present and labels in present:
            return images, labels
    options = ", or ".join(" and ".join(names) for names in _accepted(group[0] for group in SPLITS[split]))
    got = ", ".join(map(on_one_line, sorted(present))) or "none"
    raise DataError(f"arrays for the split {split} must be {options}; got {got} in {location}")


def _accepted(splits: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Return the pairs of names of images and labels, given the names of a split, in order."""
    every = list(splits)
    return dict.fromkeys((i.format(split=s), k.format(split=s)) for i, k in NAMES for s in every)


def _array(archive: zipfile.ZipFile, name: str, location: str) -> np.ndarray:
    """Read an array; raise DataError for objects."""
    with archive.open(f"{name}.npy") as member:
        try:
            return np.asarray(npy.read_array(member, allow_pickle=False))
        except ValueError as error:
            raise DataError(f"cannot read {name} in {location}: {first_line(error)}") from None


def _classes(archive: zipfile.ZipFile, present: Collection[str], labels: np.ndarray, location: str) -> tuple[str, ...]:
    """Return the names of the classes, or their numbers if the archive has no names."""
    if "classes" in present:
        names = _array(archive, "classes", location)
        if names.ndim != 1:
            raise DataError(f"classes must have shape (classes,), got {names.shape} in {location}; write one name each")
        texts = np.char.decode(names, "utf-8", "backslashreplace") if names.dtype.kind == "S" else names
        return tuple(map(str, texts.tolist()))
    return numbered_classes(labels, location)


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, location: str) -> tuple[tuple[int, ...], int]:
    """Return the shape of a uint8 array, and the offset of its values in the .npy file."""
    with archive.open(entry) as member:
        try:
            version = npy.read_magic(member)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(member)
        except ValueError as error:
            raise DataError(f"{entry.filename} in {location} is not an array ({first_line(error)})") from None
        start = member.tell()
    if dtype != np.uint8:
        raise DataError(f"{entry.filename} in {location} must be uint8, got {dtype}; save pixels as 0 to 255")
    if fortran:
        raise DataError(
            f"{entry.filename} in {location} must be in C order, got Fortran order; save np.ascontiguousarray(images)"
        )
    return shape, start


def _axes(shape: tuple[int, ...], array: str) -> tuple[tuple[int, ...], str]:
    """Return the shape of one image, and the order of its axes: HW, HWC or CHW."""
    stored = tuple(shape[1:])
    if 0 in stored:
        raise DataError(f"images must have at least one pixel, got {array} of shape {shape}")
    if len(stored) == 2:
        return stored, "HW"
    channels_last, channels_first = (len(stored) == 3 and stored[axis] in (1, 3) for axis in (2, 0))
    if channels_last == channels_first:
        ambiguous = ", which is ambiguous" if channels_last else ""
        raise DataError(
            f"shape of {array} must be (n, H, W), (n, H, W, C) or (n, C, H, W), C 1 or 3, got {shape}{ambiguous}"
        )
    return stored, "HWC" if channels_last else "CHW"


def _data_offset(file: io.BufferedReader, entry: zipfile.ZipInfo) -> int:
    """Return the offset of the data of an uncompressed member; its local header has name lengths of its own."""
    file.seek(entry.header_offset)
    header = file.read(30)
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
