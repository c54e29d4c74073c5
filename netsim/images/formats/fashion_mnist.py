"""Read the subset of Fashion-MNIST in `netsim/images/data` (Xiao et al. 2017, arXiv:1708.07747, MIT)."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from netsim.errors import SettingsError
from netsim.images.base import ArrayImages, Split

# Folder of the contact sheets.
DATA = Path(__file__).parents[1] / "data"

# Side of an image in pixels.
TILE = 28

# Names of the classes; a label is an index.
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


def load(_path: str, *, split: Split, size: int | None) -> ArrayImages:
    """Return a split of the subset. Raise SettingsError for any size but 28."""
    if size not in (None, TILE):
        raise SettingsError(f"size of fashion-mnist images must be {TILE}, got {size}; remove images.size")
    return fashion_mnist(split)


@cache
def fashion_mnist(split: Split) -> ArrayImages:
    """Return the first images of each class, interleaved, so that image i has label i % 10.

    Each split is one contact sheet (see `netsim.images.data.prepare`): row = label, column = position among the images
    of that label. The arrays are shared by all callers and read-only.
    """
    with Image.open(DATA / f"fashion-mnist-{split}.png") as image:
        sheet = np.asarray(image.convert("L"))
    rows, columns = sheet.shape[0] // TILE, sheet.shape[1] // TILE
    tiles = sheet.reshape(rows, TILE, columns, TILE).transpose(2, 0, 1, 3)  # position, label, H, W
    pixels = np.ascontiguousarray(tiles).reshape(-1, 1, TILE, TILE)
    labels = np.tile(np.arange(rows, dtype=np.int64), columns)
    pixels.flags.writeable = labels.flags.writeable = False
    return ArrayImages(name="fashion-mnist", pixels=pixels, labels=labels, classes=CLASSES)
