"""Make the embedded Fashion-MNIST subset: `python -m netsim.images.data.prepare SOURCE_DIR [DESTINATION_DIR]`.

SOURCE_DIR holds the four original files of https://github.com/zalandoresearch/fashion-mnist (MIT, see
LICENSE-fashion-mnist beside the sheets): {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz.

Each split becomes one PNG contact sheet: row = label, columns = the first images of that label in the original order.
So the label needs no file, the choice needs no random numbers, and a person can look at it. One class a row packs
better than one class a column (386 against 400 bytes an image), and zlib's run-length strategy better than its default.

The pixels are the same with any Pillow. The files are byte for byte the committed ones with Pillow 13.0, whose wheel
carries the zlib-ng they were packed with; another zlib may pack the same pixels differently.
"""

import gzip
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from netsim.errors import DataError
from netsim.images.formats.fashion_mnist import CLASSES, DATA, TILE

SPLITS = {"train": ("train", 500), "test": ("t10k", 200)}  # ours: the original prefix, images per class


def prepare(source: Path, destination: Path = DATA) -> list[Path]:
    """Write `fashion-mnist-{train,test}.png` from the original files; returns their paths."""
    written = []
    for split, (prefix, per_class) in SPLITS.items():
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        path = destination / f"fashion-mnist-{split}.png"
        Image.fromarray(contact_sheet(images, labels, per_class)).save(path, compress_level=9, compress_type=zlib.Z_RLE)
        written.append(path)
    return written


def contact_sheet(images: np.ndarray, labels: np.ndarray, per_class: int) -> np.ndarray:
    """(10 * 28, per_class * 28) uint8: row = label, column = position among the images of that label."""
    rows = np.stack([images[labels == label][:per_class] for label in range(len(CLASSES))])  # label, position, H, W
    return np.ascontiguousarray(rows.transpose(0, 2, 1, 3)).reshape(len(CLASSES) * TILE, per_class * TILE)


def read_idx(path: Path) -> np.ndarray:
    """An array in LeCun's IDX format: two zero bytes, type 8 (uint8), number of axes, big-endian lengths, values."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        raise DataError(f"{path.name} is no IDX file of bytes: it starts with {data[:4].hex()}, not 000008")
    axes = data[3]
    shape = np.frombuffer(data, dtype=">i4", count=axes, offset=4)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m netsim.images.data.prepare SOURCE_DIR [DESTINATION_DIR]")
    for sheet in prepare(*(Path(argument) for argument in sys.argv[1:3])):
        print(f"{sheet.name}: {sheet.stat().st_size} bytes")
