"""Image sets that are lists: the name, the label and the location of the bytes of each image. n, k = images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from blake3 import blake3
from numpy.typing import ArrayLike

from netsim.errors import DataError
from netsim.images.base import hash_images
from netsim.images.decoding import Unreadable, map_groups
from netsim.images.doubles import picture_digest
from netsim.storage.files import Files
from netsim.storage.places import parse_place

# Limits of a group, the images that are fetched together: number and bytes.
_GROUP_IMAGES, _GROUP_BYTES = 64, 2**25

# Unreadable images that an error message names; it counts the rest.
_MAX_NAMED = 3


class Contents(Protocol):
    """The encoded bytes of n images."""

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each image, (n,); approximate where only the total is known."""

    def get(self, indices: np.ndarray) -> Sequence[bytes | Unreadable]:
        """Return the bytes of images, in order, or the reason why an image has none."""

    def keep(self, indices: np.ndarray) -> "Contents":
        """Return the contents of these images only, in this order."""

    def stamp(self) -> bytes:
        """Return bytes that change when an image changes, as far as that is visible without reading the images."""


class Decode(Protocol):
    """Convert the bytes of an image to pixels of a fixed shape."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of every decoded image."""

    def __call__(self, data: bytes | Unreadable) -> np.ndarray | Unreadable:
        """Return the pixels, uint8 (C, H, W), or the reason why there are none."""


@dataclass(frozen=True)
class Inspection:
    """Result of decoding all n images.

    Attributes
    ----------
    unreadable : dict
        Index -> reason of the images that cannot be decoded.
    pictures : array (n,) of int64
        For each image, the index of the first one with the same pixels; its own index if it is unreadable.
    digests : array (n,) of uint64
        For each image, a hash of its bytes; 0 if there are none.
    """

    unreadable: dict[int, str]
    pictures: np.ndarray
    digests: np.ndarray


@dataclass(frozen=True)
class ListedImages:
    """Image set whose images are fetched and decoded when they are read.

    Attributes
    ----------
    name : str
        Name of the set.
    location : str
        Path or URL of the set, for error messages.
    names : tuple of str
        Name of each image.
    labels : array (n,) of int64
        Indices into `classes`.
    classes : tuple of str
        Names of the classes.
    contents : Contents
        The encoded bytes of the images.
    decode : Decode
        The decoder of these bytes.
    notes : tuple of str
        What was passed over when the images were listed, in sentences.
    """

    name: str
    location: str
    names: tuple[str, ...] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    contents: Contents = field(repr=False)
    decode: Decode
    notes: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for texts in ("names", "classes", "notes"):
            object.__setattr__(self, texts, in_utf8(getattr(self, texts)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of every image."""
        return self.decode.shape

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: ArrayLike) -> np.ndarray:
        """Return the images at `indices`: uint8 (k, C, H, W).

        Raises
        ------
        DataError
            If any image is unreadable: the first few by name and reason, and the number of all.
        """
        return self.read_with_digests(indices)[0]

    def read_with_digests(self, indices: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return the images at `indices` like `read`, and a hash of the bytes of each: (k,) uint64."""
        indices = np.asarray(indices, dtype=np.int64)
        images = np.empty((len(indices), *self.shape), dtype=np.uint8)
        digests = np.empty(len(indices), dtype=np.uint64)
        reasons: dict[int, str] = {}
        for position, (digest, image) in enumerate(self._digested(indices)):
            digests[position] = digest
            if isinstance(image, Unreadable):
                reasons[int(indices[position])] = image.reason
            else:
                images[position] = image
        if reasons:
            raise DataError(self.describe_unreadable(reasons, total=len(indices)))
        return images, digests

    def inspect(self, on_image: Callable[[int], None] = lambda _: None) -> Inspection:
        """Decode every image, and find the unreadable ones and those that are the same picture.

        Parameters
        ----------
        on_image
            Called after each image with the number of images decoded so far.
        """
        reasons = {}
        first_with: dict[bytes, int] = {}
        pictures, digests = np.arange(len(self)), np.zeros(len(self), dtype=np.uint64)
        for index, (digest, image) in enumerate(self._digested(np.arange(len(self)))):
            digests[index] = digest
            if isinstance(image, Unreadable):
                reasons[index] = image.reason
            else:
                pictures[index] = first_with.setdefault(picture_digest(image), index)
            on_image(index + 1)
        return Inspection(reasons, pictures, digests)

    def without(self, indices: Sequence[int]) -> "ListedImages":
        """Return the set without some images. All classes stay, because labels are indices into them."""
        kept = np.setdiff1d(np.arange(len(self)), np.asarray(indices, dtype=np.int64))
        names = tuple(self.names[index] for index in kept)
        return replace(self, names=names, labels=self.labels[kept], contents=self.contents.keep(kept))

    def describe_unreadable(self, reasons: Mapping[int, str], *, total: int) -> str:
        """Return an error message: the first few unreadable images by name, and their number out of `total`."""
        named = [f"{self.names[index]!r} ({reason})" for index, reason in sorted(reasons.items())[:_MAX_NAMED]]
        if total == 1:
            return f"cannot read the image {named[0]} of {self.location}"
        more = f" and {len(reasons) - _MAX_NAMED} more" if len(reasons) > _MAX_NAMED else ""
        return f"cannot read {len(reasons)} of {total} images of {self.location}: {', '.join(named)}{more}"

    def content_hash(self) -> str:
        """Return the hash of names, labels, sizes and shape, not of pixels: hashing 6 GB of ImageNet costs too much."""
        return hash_images(self.labels, self.shape, self.names, self.contents.stamp())

    def _decoded(self, indices: np.ndarray) -> Iterator[np.ndarray | Unreadable]:
        """Yield the decoded images at `indices`, in order."""
        for _, image in self._digested(indices):
            yield image

    def _digested(self, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray | Unreadable]]:
        """Yield the digests of the bytes of the images at `indices`, and what they decode to, in order."""

        def decode(data: bytes | Unreadable) -> tuple[int, np.ndarray | Unreadable]:
            return bytes_digest(data), self.decode(data)

        groups = split_into_groups(indices, self.contents.sizes)
        for images in map_groups(groups, self.contents.get, decode):
            yield from images


def bytes_digest(data: bytes | Unreadable) -> int:
    """Hash the bytes of an image to 64 bits; 0 if there are none. Pixels may depend on the version of the decoder."""
    return 0 if isinstance(data, Unreadable) else int.from_bytes(blake3(data).digest(length=8), "little")


def split_into_groups(indices: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Split indices into consecutive groups of at most 64 images and 32 MiB; a larger image is a group of its own."""
    groups, start, group_bytes = [], 0, 0
    for position, size in enumerate(sizes[indices].tolist()):
        if position > start and (position - start >= _GROUP_IMAGES or group_bytes + size > _GROUP_BYTES):
            groups.append(indices[start:position])
            start, group_bytes = position, 0
        group_bytes += size
    return [*groups, indices[start:]] if len(indices) else []


@dataclass(frozen=True)
class Extents:
    """Contents that are ranges of files.

    Attributes
    ----------
    files : Files
        The folder or URL of the files.
    paths : tuple of str
        Paths of the files.
    file : array (n,) of int64
        Index into `paths` for each image.
    starts, sizes : arrays (n,) of int64
        First byte and number of bytes of each image; the size of one without bytes is negative.
    absent : str
        Reason why images of negative size have no bytes.
    """

    files: Files
    paths: tuple[str, ...]
    file: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    absent: str = field(default="a link that leads nowhere", kw_only=True)

    def get(self, indices: np.ndarray) -> list[bytes | Unreadable]:
        """Return the bytes of images, in order, or the reason why an image has none."""
        sizes = self.sizes[indices]
        ranges = zip(self.file[indices], self.starts[indices], sizes, strict=True)
        contents = self.files.get_ranges(
            [(self.paths[file], int(start), int(start + size)) for file, start, size in ranges]
        )
        return [
            Unreadable(self.absent) if size < 0 else Unreadable("missing") if data is None else data
            for data, size in zip(contents, sizes.tolist(), strict=True)
        ]

    def keep(self, indices: np.ndarray) -> "Extents":
        """Return the contents of these images only, in this order."""
        return replace(self, file=self.file[indices], starts=self.starts[indices], sizes=self.sizes[indices])

    def stamp(self) -> bytes:
        """Return the sizes of all images as text."""
        return ",".join(map(str, self.sizes.tolist())).encode()


def whole_files(files: Files, paths: Sequence[str], sizes: Sequence[int]) -> Extents:
    """Return contents in which each image is a whole file."""
    n = len(paths)
    return Extents(files, tuple(paths), np.arange(n), np.zeros(n, np.int64), np.array(sizes, dtype=np.int64))


def in_utf8(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of files with escapes for bytes that are not UTF-8, which no record, page or log could hold."""
    try:
        "".join(names).encode()
        return names
    except UnicodeEncodeError:
        return tuple(name.encode(errors="backslashreplace").decode() for name in names)


def image_files(location: str) -> Files:
    """Return the files below a folder or URL of images; their errors name the setting `images.source`."""
    return Files(location, setting="images.source")


def image_file(location: str) -> tuple[Files, str]:
    """Return the folder of a file of images, and the name of the file in it."""
    folder, name = parse_place(location, setting="images.source").split()
    return image_files(folder), name


def set_name(files: Files) -> str:
    """Return the name of an image set: the last part of its path or URL."""
    return files.url.rpartition("/")[2]
