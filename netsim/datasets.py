"""Image sets: labelled images that are decoded only when they are read. n, k = images; C, H, W = shape of one.

A set is named by a reference. `fashion-mnist` is the subset that ships in `netsim/data` (Xiao et al. 2017,
https://arxiv.org/abs/1708.07747, MIT); `folder:PATH` is a tree of photographs, one folder a class.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from netsim.errors import DataError, SettingsError, nearest

Split = Literal["train", "test"]

DATA = Path(__file__).parent / "data"
TILE = 28  # pixels a side of a Fashion-MNIST image
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SUFFIXES = (".jpg", ".jpeg", ".png")
DEFAULT_SIZE = 224


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
        """sha256 hex that changes when an image, a label or the preprocessing does."""


def load_images(reference: str, split: Split = "test", size: int | None = None) -> ImageSet:
    """The image set that `reference` names.

    "fashion-mnist": 28x28 grey, ten classes, 5000 train and 2000 test images; `size` must be 28 or None.
    "folder:PATH": RGB from <PATH>[/train|/test|/val]/<class>/*.jpg|jpeg|png, the shorter side resized to `size`
    (default 224) and the centre cropped to a square. "test" is test/ or else val/; without such folders both splits
    are the same images.

    Raises SettingsError for a reference or a split that does not exist, DataError for a folder without images.
    """
    source, _, path = reference.partition(":")
    if split not in ("train", "test"):
        raise SettingsError(f"no split {split!r}{nearest(split, ('train', 'test'))}")
    if source == "folder":
        if not path:
            raise SettingsError(f"image set {reference!r} names no folder: write 'folder:PATH'")
        return FolderImages.of(Path(path), split=split, size=DEFAULT_SIZE if size is None else size)
    if reference != "fashion-mnist":
        raise SettingsError(f"no image set {reference!r}{nearest(reference, ('fashion-mnist', 'folder:PATH'))}")
    if size not in (None, TILE):
        raise SettingsError(f"fashion-mnist images are {TILE} pixels a side, not {size}: leave the size out")
    return fashion_mnist(split)


def to_unit(images: np.ndarray) -> Tensor:
    """uint8 pixels as float32 in [0, 1]. Floats are refused: whether they mean 0..1 or 0..255 would be a guess."""
    if images.dtype != np.uint8:
        raise DataError(f"images are {images.dtype}, not uint8: netsim stores and reads 8-bit images")
    return torch.from_numpy(images.astype(np.float32)).div_(255)


@dataclass(frozen=True)
class ArrayImages:
    """Images that fit in memory: `pixels` (n, C, H, W) uint8, `labels` (n,) int64."""

    name: str
    pixels: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: ArrayLike) -> np.ndarray:
        return self.pixels[np.asarray(indices, dtype=np.int64)]

    def content_hash(self) -> str:
        return _hash(self.labels, self.shape, self.classes, self.pixels.tobytes())


@cache
def fashion_mnist(split: Split) -> ArrayImages:
    """The embedded subset: the first images of each class, interleaved, so image i has label i % 10.

    Each split is one contact sheet (see `netsim.data.prepare`): row = label, column = position among that label.
    """
    sheet = _decode(DATA / f"fashion-mnist-{split}.png", mode="L")
    rows, columns = sheet.shape[0] // TILE, sheet.shape[1] // TILE
    tiles = sheet.reshape(rows, TILE, columns, TILE).transpose(2, 0, 1, 3)  # position, label, H, W
    pixels = np.ascontiguousarray(tiles).reshape(-1, 1, TILE, TILE)
    labels = np.tile(np.arange(rows, dtype=np.int64), columns)
    pixels.flags.writeable = labels.flags.writeable = False  # one copy serves every caller
    return ArrayImages(name="fashion-mnist", pixels=pixels, labels=labels, classes=CLASSES)


@dataclass(frozen=True)
class FolderImages:
    """Photographs in a tree of class folders, in the order of their names; decoded on read."""

    name: str
    root: Path
    files: tuple[str, ...] = field(repr=False)  # relative to root, with forward slashes
    labels: np.ndarray = field(repr=False)
    classes: tuple[str, ...]
    size: int = DEFAULT_SIZE

    @classmethod
    def of(cls, path: Path, *, split: Split, size: int) -> "FolderImages":
        if size < 1:
            raise SettingsError(f"images of {size} pixels a side: the size must be at least 1")
        if not path.is_dir():
            raise DataError(f"no folder {str(path)!r}")
        root = _split_folder(path, split)
        classes = sorted(
            folder.name for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith(".")
        )
        found = [(name, label) for label, name in enumerate(classes) for name in _image_files(root, name)]
        if not found:
            raise DataError(f"no images in {str(root)!r}: expected <class>/<image>{', '.join(SUFFIXES)}")
        files, labels = zip(*found, strict=True)
        return cls(
            name=path.name,
            root=root,
            files=files,
            labels=np.array(labels, dtype=np.int64),
            classes=tuple(classes),
            size=size,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: ArrayLike) -> np.ndarray:
        """uint8 (k, 3, size, size). Raises DataError naming the file that cannot be read."""
        prepare = _resize_and_crop(self.size)
        chosen = np.asarray(indices, dtype=np.int64)
        images = np.empty((len(chosen), *self.shape), dtype=np.uint8)
        for place, index in enumerate(chosen):
            images[place] = _decode(self.root / self.files[index], mode="RGB", prepare=prepare).transpose(2, 0, 1)
        return images

    def content_hash(self) -> str:
        """From names and file sizes, not pixels: hashing 6 GB of ImageNet would cost more than it saves."""
        sizes = ",".join(str((self.root / file).stat().st_size) for file in self.files)
        return _hash(self.labels, self.shape, self.files, sizes.encode())


def _split_folder(path: Path, split: Split) -> Path:
    """Where the class folders of a split are. ImageNet has train and val; without either, `path` holds them."""
    names = {"train": ("train",), "test": ("test", "val")}
    there = [name for name in ("train", "test", "val") if (path / name).is_dir()]
    wanted = [name for name in names[split] if name in there]
    if there and not wanted:
        raise DataError(f"{str(path)!r} has {', '.join(there)}, and no folder {' or '.join(names[split])}")
    return path / wanted[0] if wanted else path


def _image_files(root: Path, folder: str) -> list[str]:
    return sorted(
        f"{folder}/{file.name}"
        for file in (root / folder).iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def _decode(path: Path, *, mode: str, prepare: Callable[[Image.Image], Image.Image] | None = None) -> np.ndarray:
    try:
        with Image.open(path) as image:
            converted = image.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # PIL raises all of these
        raise DataError(f"cannot read the image {str(path)!r}: {error}") from error
    return np.asarray(prepare(converted) if prepare else converted)


def _resize_and_crop(size: int) -> Callable[[Image.Image], Image.Image]:
    """Shorter side to `size`, bilinear and antialiased, then the centre: as torchvision's Resize and CenterCrop."""

    def apply(image: Image.Image) -> Image.Image:
        width, height = image.size
        if width <= height:
            width, height = size, max(size, int(size * height / width))
        else:
            width, height = max(size, int(size * width / height)), size
        left, top = round((width - size) / 2), round((height - size) / 2)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        return resized.crop((left, top, left + size, top + size))

    return apply


def _hash(labels: np.ndarray, shape: tuple[int, int, int], names: tuple[str, ...], content: bytes) -> str:
    digest = hashlib.sha256(repr((shape, names)).encode())
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    digest.update(content)
    return digest.hexdigest()
