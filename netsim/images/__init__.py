"""Image sets: labelled images that are read only when they are asked for. n, k = images; C, H, W = shape of one.

A set is named by a reference (`netsim.references` lists the kinds). One file here reads one kind; all but those
that fit in memory give a `ListedImages`: what there is, in the order of names, and where its bytes are.
"""

from importlib import import_module

from netsim.errors import SettingsError, nearest
from netsim.images.base import ArrayImages, ImageSet, Split, to_unit
from netsim.images.listed import ListedImages
from netsim.references import parse_image_source

__all__ = ["ArrayImages", "ImageSet", "ListedImages", "Split", "load_images", "to_unit"]


def load_images(reference: str, split: Split = "test", size: int | None = None) -> ImageSet:
    """The image set that `reference` names: `netsim.references` has the kinds, docs/images.md what each may hold.

    Photographs are RGB: the shorter side is resized to `size` (default 224) and the centre cropped to a square. Sets
    whose images all have one size keep it, unless `size` is another; fashion-mnist has 28 only.

    Raises SettingsError for a reference or a split that does not exist, DataError for files that are not as they should
    be, StoreError for a place that does not let itself be read.
    """
    source, place = parse_image_source(reference)
    if split not in ("train", "test"):
        raise SettingsError(f"no split {split!r}{nearest(split, ('train', 'test'))}")
    if size is not None and size < 1:
        raise SettingsError(f"images of {size} pixels a side: the size must be at least 1")
    module, _, function = source.loader.partition(":")
    images: ImageSet = getattr(import_module(f"netsim.images.formats.{module}"), function)(
        place, split=split, size=size
    )
    return images
