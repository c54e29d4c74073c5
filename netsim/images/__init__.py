"""Image sets: labelled images that are read on demand.

A set is named by a reference; `netsim.references` lists the kinds. Each module of `netsim.images.formats` reads one
kind. All but those that fit in memory return `ListedImages`: names in order, labels, and where the bytes of each image
are.
"""

from importlib import import_module

from netsim.errors import SettingsError
from netsim.images.base import ArrayImages, ImageSet, Split, to_unit
from netsim.images.classes import ClassOrder, in_order
from netsim.images.listed import ListedImages
from netsim.references import parse_image_source

__all__ = ["ArrayImages", "ImageSet", "ListedImages", "Split", "load_images", "to_unit"]


def load_images(
    reference: str, split: Split = "test", size: int | None = None, class_order: ClassOrder = "listed"
) -> ImageSet:
    """Open the image set that a reference names. Pixels are read later, by index.

    Parameters
    ----------
    reference
        Kind and path, as in ``folder:photos``; docs/howto/images.md describes the kinds.
    split
        ``train`` or ``test``.
    size
        Side of the images in pixels. Photographs become RGB; the shorter side is resized to `size` (default 224) and
        the centre cropped to a square. Sets whose images all have one size keep it, unless `size` differs;
        fashion-mnist has 28 only.
    class_order
        ``listed``: as the source lists them, folders sorted as text. ``natural``: numbers in names compare as numbers,
        so that 2 comes before 10.

    Raises
    ------
    SettingsError
        For an unknown reference or split, or an invalid size.
    DataError
        For missing, damaged or invalid files.
    StoreError
        If the storage cannot be read.

    Examples
    --------
    >>> images = load_images("fashion-mnist", "test")
    >>> len(images), images.shape, images.classes[:2]
    (2000, (1, 28, 28), ('T-shirt/top', 'Trouser'))
    >>> images.read([0, 1, 2]).shape
    (3, 1, 28, 28)
    """
    source, path = parse_image_source(reference)
    if split not in ("train", "test"):
        raise SettingsError(f"split must be 'train' or 'test', got {split!r}")
    if size is not None and size < 1:
        raise SettingsError(f"size of images must be at least 1 pixel, got {size}")
    module, _, function = source.loader.partition(":")
    images: ImageSet = getattr(import_module(f"netsim.images.formats.{module}"), function)(path, split=split, size=size)
    return in_order(images, class_order)
