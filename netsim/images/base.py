"""The interface of image sets, and the image set that is held in memory. n, k = images; C, H, W = shape of one."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from blake3 import blake3
from numpy.typing import ArrayLike

from netsim.errors import DataError
from netsim.images.decoding import map_in_threads, scale

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "test"]

# Limit for labels without class names: a larger number is not a label, and each class becomes an output of a network.
_MAX_UNNAMED_CLASSES = 100_000


class ImageSet(Protocol):
    """Labelled images that are read by index."""

    @property
    def name(self) -> str:
        """Name of the set, for results and reports."""

    @property
    def labels(self) -> np.ndarray:
        """Label of each image: (n,) int64, indices into `classes`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of every image."""

    def __len__(self) -> int: ...

    def read(self, indices: ArrayLike) -> np.ndarray:
        """Return the images at any indices, in their order: uint8 (k, C, H, W)."""

    def content_hash(self) -> str:
        """Return a BLAKE3 hash in hex that changes with any image, label or preprocessing, not with the location.

        In a list of files, an image counts as changed when its name or size has changed.
        """


def to_unit(images: np.ndarray) -> "Tensor":
    """Convert uint8 pixels to float32 in [0, 1].

    Raises
    ------
    DataError
        For any other dtype: whether floats mean 0 to 1 or 0 to 255 would be a guess.
    """
    import torch  # listing and hashing images needs none

    if images.dtype != np.uint8:
        raise DataError(f"images must be uint8, got {images.dtype}; netsim stores and reads 8-bit images")
    return torch.from_numpy(images.astype(np.float32)).div_(255)


@dataclass(frozen=True)
class ArrayImages:
    """Image set that is held in memory.

    Attributes
    ----------
    name : str
        Name of the set.
    pixels : array (n, C, H, W) of uint8
        The images.
    labels : array (n,) of int64
        Indices into `classes`.
    classes : tuple of str
        Names of the classes.
    size : int or None
        Side in pixels to which images are scaled and cropped when they are read; None leaves them as they are.
    """

    name: str
    pixels: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    classes: tuple[str, ...]
    size: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the images as they are read."""
        channels, height, width = self.pixels.shape[1:]
        return (channels, height, width) if self.size is None else (channels, self.size, self.size)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: ArrayLike) -> np.ndarray:
        """Return the images at `indices`, scaled to `size`: uint8 (k, C, H, W)."""
        selected = self.pixels[np.asarray(indices, dtype=np.int64)]
        if selected.shape[1:] == self.shape:
            return selected
        images = np.empty((len(selected), *self.shape), dtype=np.uint8)
        for position, image in enumerate(map_in_threads(lambda pixels: scale(pixels, self.size), list(selected))):
            images[position] = image
        return images

    def content_hash(self) -> str:
        """Return the hash of every pixel, every label, the class names and the shape."""
        return hash_images(self.labels, self.shape, self.classes, self.pixels.tobytes())


def hash_images(labels: np.ndarray, shape: tuple[int, int, int], names: tuple[str, ...], content: bytes) -> str:
    """Return the BLAKE3 hash in hex of an image set: labels, shape, names, and what identifies its content."""
    digest = blake3(repr((shape, names)).encode())
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    digest.update(content)
    return digest.hexdigest()


def numbered_classes(labels: np.ndarray, location: str) -> tuple[str, ...]:
    """Return the numbers 0 to the largest label as class names.

    Raises
    ------
    DataError
        For labels of 100,000 or more.
    """
    largest = int(labels.max()) if labels.size and labels.dtype.kind in "iu" else -1
    if largest >= _MAX_UNNAMED_CLASSES:
        raise DataError(
            f"labels without class names must be below {_MAX_UNNAMED_CLASSES:,}, got {largest} in {location}"
        )
    return tuple(map(str, range(largest + 1)))


def validate_labels(labels: np.ndarray, classes: int, location: str) -> np.ndarray:
    """Return labels (n,) as int64.

    Raises
    ------
    DataError
        Unless they are whole numbers from 0 to `classes` - 1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels must be whole numbers of shape (images,), got {labels.dtype} of shape {labels.shape} in {location}"
        )
    invalid = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(invalid):
        raise DataError(
            f"labels must be indices into the {classes} classes, got others for {len(invalid)} of {len(labels)} images "
            f"in {location}; the first is {labels[invalid[0]]}, of image {invalid[0]}"
        )
    return labels.astype(np.int64)
