"""Make the included Fashion-MNIST subset: `python -m netsim.images.data.prepare SOURCE_DIR [DESTINATION_DIR]`.

SOURCE_DIR contains the four original files of https://github.com/zalandoresearch/fashion-mnist (MIT, see
LICENSE-fashion-mnist in this folder): {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz.

Each split becomes one PNG contact sheet: row = label, columns = the first images of that label in the original order.
So labels need no file, the selection needs no random numbers, and the sheet can be inspected by eye. One class per row
compresses better than one class per column (386 against 400 bytes per image), and zlib's run-length strategy better
than its default.

The pixels are the same with any Pillow. The files are byte for byte the committed ones with Pillow 13.0, whose wheel
includes the zlib-ng that compressed them; another zlib may compress the same pixels differently.
"""

import gzip
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from netsim.errors import DataError
from netsim.images.formats.fashion_mnist import CLASSES, DATA, TILE

# Split -> prefix of the original files, images per class.
SPLITS = {"train": ("train", 500), "test": ("t10k", 200)}


def prepare(source: Path, destination: Path = DATA) -> list[Path]:
    """Write `fashion-mnist-{train,test}.png` from the original files; return their paths."""
    written = []
    for split, (prefix, per_class) in SPLITS.items():
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        path = destination / f"fashion-mnist-{split}.png"
        Image.fromarray(contact_sheet(images, labels, per_class)).save(path, compress_level=9, compress_type=zlib.Z_RLE)
        written.append(path)
    return written


def contact_sheet(images: np.ndarray, labels: np.ndarray, per_class: int) -> np.ndarray:
    """Return (10 * 28, per_class * 28) uint8: row = label, column = position among the images of that label."""
    rows = np.stack([images[labels == label][:per_class] for label in range(len(CLASSES))])  # label, position, H, W
    return np.ascontiguousarray(rows.transpose(0, 2, 1, 3)).reshape(len(CLASSES) * TILE, per_class * TILE)


def read_idx(path: Path) -> np.ndarray:
    """Read an array of bytes in LeCun's IDX format.

    The file has two zero bytes, type 8 (uint8), the number of axes, big-endian lengths, and the values.

    Raises
    ------
    DataError
        If the file begins otherwise.
    """
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        raise DataError(f"{path.name} must be an IDX file of bytes: it must start with 000008, got {data[:4].hex()}")
    axes = data[3]
    shape = np.frombuffer(data, dtype=">i4", count=axes, offset=4)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m netsim.images.data.prepare SOURCE_DIR [DESTINATION_DIR]")
    for sheet in prepare(*(Path(argument) for argument in sys.argv[1:3])):
        print(f"{sheet.name}: {sheet.stat().st_size} bytes")
