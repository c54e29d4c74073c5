"""Doubles: images of one set that are the same picture, because all their pixels are equal after scaling and cropping.

Two targets of the same picture would look like similarity of networks (`netsim.images.pairs`). Networks see pixels, so
pixels decide: a copy under another name, in another class, in another file format, or a crop that differs only outside
the square. Photographs that were compressed again differ, and are not found.
"""

from collections.abc import Sequence

import numpy as np
from blake3 import blake3

from netsim.images.base import ImageSet

# Images that are read together to be compared.
_GROUP = 256

# Doubles that a note names before it only counts the rest.
_MAX_NAMED = 3


def picture_digest(pixels: np.ndarray) -> bytes:
    """Return 16 bytes of BLAKE3 of the pixels of one image (C, H, W), which are equal for the same picture."""
    return blake3(np.ascontiguousarray(pixels).tobytes()).digest(length=16)


def same_pictures(images: ImageSet) -> np.ndarray:
    """Return for each image the index of the first one with the same pixels: (n,) int64. Reads all images."""
    first_with: dict[bytes, int] = {}
    groups = (np.arange(start, min(start + _GROUP, len(images))) for start in range(0, len(images), _GROUP))
    digests = (picture_digest(image) for group in groups for image in images.read(group))
    return np.array([first_with.setdefault(digest, k) for k, digest in enumerate(digests)], dtype=np.int64)


def describe_doubles(pictures: np.ndarray, labels: np.ndarray, names: Sequence[str] | None) -> list[str]:
    """Describe doubles in sentences, those with several labels in one of their own; empty if there are none.

    Parameters
    ----------
    pictures
        (n,) numbers, equal for images that are the same picture.
    labels
        (n,) labels of the images.
    names
        Names of the images; None names them by their positions.
    """
    _, first, picture = np.unique(pictures, return_index=True, return_inverse=True)
    originals = first[picture]  # of each image, the first that is the same picture
    doubles = np.flatnonzero(originals != np.arange(len(pictures)))
    mislabelled = doubles[labels[doubles] != labels[originals[doubles]]]
    sentences = []
    if len(doubles):
        sentences.append(
            f"Doubles among the test images: {len(doubles):,} of {len(pictures):,} "
            f"({_named(doubles, originals, names)}). Only the first image of each picture takes part in pairs."
        )
    if len(mislabelled):
        sentences.append(
            f"Pictures with several labels: {len(mislabelled):,} of the doubles "
            f"({_named(mislabelled, originals, names)}). At least one label of each is wrong."
        )
    return sentences


def _named(doubles: np.ndarray, originals: np.ndarray, names: Sequence[str] | None) -> str:
    """Name the first few doubles with their originals."""

    def name(index: int) -> str:
        return f"image {index}" if names is None else names[index]

    pairs = [f"{name(int(double))} = {name(int(originals[double]))}" for double in doubles[:_MAX_NAMED]]
    more = f" and {len(doubles) - _MAX_NAMED:,} more" if len(doubles) > _MAX_NAMED else ""
    return ", ".join(pairs) + more
