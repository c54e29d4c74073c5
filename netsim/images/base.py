"""What every image set is, and the one that lies in memory."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import ArrayLike
from torch import Tensor

from netsim.errors import DataError
from netsim.images.decoding import in_threads, scaled

Split = Literal["train", "test"]


class ImageSet(Protocol):
    """Labelled images. `read` takes any integer indices, in any order, and returns uint8 (k, C, H, W)."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, indices into `classes`."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""

    def __len__(self) -> int: ...

    def read(self, indices: ArrayLike) -> np.ndarray: ...

    def content_hash(self) -> str:
        """BLAKE3 hex that changes when an image, a label or the preprocessing does; not with where the images lie.

        Of a list of files, an image has changed when its name or its size has.
        """


def to_unit(images: np.ndarray) -> Tensor:
    """uint8 pixels as float32 in [0, 1]. Floats are refused: whether they mean 0..1 or 0..255 would be a guess."""
    if images.dtype != np.uint8:
        raise DataError(f"images are {images.dtype}, not uint8: netsim stores and reads 8-bit images")
    return torch.from_numpy(images.astype(np.float32)).div_(255)


@dataclass(frozen=True)
class ArrayImages:
    """Images that fit in memory: `pixels` (n, C, H, W) uint8, `labels` (n,) int64; scaled on read if `size` says so."""

    name: str
    pixels: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    classes: tuple[str, ...]
    size: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.pixels.shape[1:]
        return (channels, height, width) if self.size is None else (channels, self.size, self.size)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: ArrayLike) -> np.ndarray:
        chosen = self.pixels[np.asarray(indices, dtype=np.int64)]
        if chosen.shape[1:] == self.shape:
            return chosen
        images = np.empty((len(chosen), *self.shape), dtype=np.uint8)
        for at, image in enumerate(in_threads(lambda pixels: scaled(pixels, self.size), list(chosen))):
            images[at] = image
        return images

    def content_hash(self) -> str:
        return hash_of(self.labels, self.shape, self.classes, self.pixels.tobytes())


def hash_of(labels: np.ndarray, shape: tuple[int, int, int], names: tuple[str, ...], content: bytes) -> str:
    digest = blake3(repr((shape, names)).encode())
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    digest.update(content)
    return digest.hexdigest()


MOST_CLASSES = 100_000
"""Of labels without names. More come from a label that is none, and each would get an output of a network."""


def numbered(labels: np.ndarray, where: str) -> tuple[str, ...]:
    """What classes are called that have no names: their numbers, up to the largest label. Raises DataError for many."""
    largest = int(labels.max()) if labels.size and labels.dtype.kind in "iu" else -1
    if largest >= MOST_CLASSES:
        raise DataError(f"a label in {where} is {largest}; without names of classes, labels below {MOST_CLASSES:,} fit")
    return tuple(map(str, range(largest + 1)))


def checked_labels(labels: np.ndarray, classes: int, where: str) -> np.ndarray:
    """Labels (n,) as int64. Raises DataError unless they are whole numbers from 0 up to the number of classes."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"labels in {where} are {labels.dtype} of shape {labels.shape}; whole numbers (images,) fit")
    off = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(off):
        raise DataError(
            f"{len(off)} of {len(labels)} images in {where} have no label of these {classes} classes; "
            f"the first is image {off[0]} with {labels[off[0]]}"
        )
    return labels.astype(np.int64)
