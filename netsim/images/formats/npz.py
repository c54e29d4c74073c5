"""NumPy archives (.npz) of uint8 images and their labels. Arrays of objects are pickles, and are refused.

Images are (n, H, W), (n, H, W, C) or (n, C, H, W), C 1 or 3, under the names of one of `NAMES`; `classes`, if it is
there, names the labels. What `np.savez` wrote is read by range where it is large; `savez_compressed` goes into memory.
"""

import io
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib import format as npy

from netsim.errors import DataError
from netsim.images.base import Split, checked_labels, numbered
from netsim.images.decoding import Raw
from netsim.images.listed import Contents, Extents, ListedImages, image_files

NAMES = (("{split}_images", "{split}_labels"), ("x_{split}", "y_{split}"), ("images", "labels"))
"""Of images and labels; {split} is train, and test or else val. The last are both splits."""

IN_MEMORY = 2**28
"""Bytes of images up to which they are held in memory: small images are read quicker from there than one by one."""


@dataclass(frozen=True)
class InMemory:
    """Images of one size, (n, bytes)."""

    pixels: np.ndarray
    checksum: str

    @property
    def sizes(self) -> np.ndarray:
        return np.full(len(self.pixels), self.pixels.shape[1])

    def get(self, indices: np.ndarray) -> list[bytes | None]:
        return [self.pixels[index].tobytes() for index in indices]

    def keep(self, indices: np.ndarray) -> "InMemory":
        return replace(self, pixels=self.pixels[indices])

    def stamp(self) -> bytes:
        return self.checksum.encode()


@dataclass(frozen=True)
class Stored(Extents):
    """The same where they lie."""

    checksum: str = ""

    def stamp(self) -> bytes:
        return self.checksum.encode()


def load(place: str, *, split: Split, size: int | None) -> ListedImages:
    root, _, name = place.rpartition("/")
    files = image_files(root or ("/" if place.startswith("/") else "."))
    where = files.place(name)
    try:
        with files.open(name) as file, zipfile.ZipFile(file) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            images_name, labels_name = _names(entries, split, where)
            raw_labels = _array(archive, labels_name, where)
            labels = raw_labels.reshape(-1) if raw_labels.ndim == 2 and raw_labels.shape[1] == 1 else raw_labels
            classes = _classes(archive, entries, labels, where)
            entry = entries[images_name]
            shape, start = _header(archive, entry, where)
            stored, axes = _axes(shape, f"{images_name} in {where}")
            item, checksum = int(np.prod(stored)), f"{entry.CRC:08x}"
            contents: Contents
            if entry.compress_type == zipfile.ZIP_STORED and shape[0] * item > IN_MEMORY:
                at = _data_offset(file, entry) + start
                n = np.arange(shape[0])
                contents = Stored(files, (name,), 0 * n, at + item * n, np.full(len(n), item), checksum)
            else:
                contents = InMemory(_array(archive, images_name, where).reshape(shape[0], item), checksum)
    except FileNotFoundError:
        raise DataError(f"no file {where!r}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{where} is damaged, or not written by np.savez ({error})") from None
    if len(labels) != shape[0]:
        raise DataError(f"{where} has {shape[0]} images in {images_name} and {len(labels)} labels in {labels_name}")
    return ListedImages(
        name=name.removesuffix(".npz"),
        place=where,
        names=tuple(f"{images_name}[{k}]" for k in range(len(labels))),
        labels=checked_labels(labels, len(classes), where),
        classes=classes,
        contents=contents,
        decode=Raw(stored, axes, size),
    )


def _names(here: Collection[str], split: Split, where: str) -> tuple[str, str]:
    splits = ("train",) if split == "train" else ("test", "val")
    wanted = dict.fromkeys(tuple(name.format(split=s) for name in names) for names in NAMES for s in splits)
    for images, labels in wanted:
        if images in here and labels in here:
            return images, labels
    asked = ", or ".join(" and ".join(names) for names in wanted)
    raise DataError(f"{where} has {', '.join(sorted(here)) or 'nothing'}; for the split {split}, {asked} fit")


def _array(archive: zipfile.ZipFile, name: str, where: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as member:
        try:
            return np.asarray(npy.read_array(member, allow_pickle=False))
        except ValueError as error:
            raise DataError(f"{name} in {where} cannot be read: {error}") from None


def _classes(archive: zipfile.ZipFile, here: Collection[str], labels: np.ndarray, where: str) -> tuple[str, ...]:
    if "classes" in here:
        return tuple(map(str, _array(archive, "classes", where).tolist()))
    return numbered(labels, where)


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> tuple[tuple[int, ...], int]:
    """The shape of an array of bytes, and where its values begin in the .npy file."""
    with archive.open(entry) as member:
        try:
            version = npy.read_magic(member)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(member)
        except ValueError as error:
            raise DataError(f"{entry.filename} in {where} is no array ({error})") from None
        start = member.tell()
    if dtype != np.uint8:
        raise DataError(f"{entry.filename} in {where} is {dtype}, not uint8: save images as bytes, 255 is white")
    if fortran:
        raise DataError(f"{entry.filename} in {where} is in Fortran's order; save np.ascontiguousarray(images)")
    return shape, start


def _axes(shape: tuple[int, ...], what: str) -> tuple[tuple[int, ...], str]:
    """The shape of one image, and the order of its axes."""
    stored = tuple(shape[1:])
    if len(stored) == 2:
        return stored, "HW"
    last, first = (len(stored) == 3 and stored[axis] in (1, 3) for axis in (2, 0))
    if last == first:
        fits = "(n, H, W), (n, H, W, 3) and (n, 3, H, W) fit"
        raise DataError(f"{what} has shape {shape}; {fits}" + (", and this is two of them" if last else ""))
    return stored, "HWC" if last else "CHW"


def _data_offset(file: io.BufferedReader, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of a member that is not compressed begin: behind its local header, which has its own lengths."""
    file.seek(entry.header_offset)
    header = file.read(30)
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
