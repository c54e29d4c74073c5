"""Photographs in a tree of class folders, [train|test|val]/<class>/<image>, in the order of torchvision's."""

from collections.abc import Mapping

import numpy as np

from netsim.errors import DataError
from netsim.images.base import Split
from netsim.images.decoding import DEFAULT_SIZE, SUFFIXES, Photograph
from netsim.images.listed import ListedImages, image_files, last_name, whole_files
from netsim.storage.files import Files

SPLITS = {"train": ("train",), "test": ("test", "val")}
"""What the folder of a split may be called; ImageNet has train and val."""

DEEPEST = 20
"""Folders in each other, of which the first is the class."""


def load(place: str, *, split: Split, size: int | None) -> ListedImages:
    """The images of a split. Without folders for splits, both are all of `place`."""
    files = image_files(place)
    found = split_folder(files, split)
    beside = [name for names in SPLITS.values() for name in names if name in files.folders()] if found else [""]
    classes = sorted({name for folder in beside for name in files.folders(folder) if not name.startswith(".")})
    return listed_tree(files, found, {name: name for name in classes}, size)


def listed_tree(files: Files, folder: str, classes: Mapping[str, str], size: int | None) -> ListedImages:
    """Images in `<folder>/<class>/` and folders therein, `classes` being those folders and what they are called; labels
    are their order.

    Classes without an image in this split keep their label: other splits may have some.
    """
    label = {name: place for place, name in enumerate(sorted(classes))}
    sizes = {path: size for path, size in files.sizes(folder, depth=DEEPEST).items() if _is_image(path, label)}
    if not sizes:
        where = files.place(folder) if folder else files.url
        raise DataError(f"no images in {where!r}: expected <class>/<image>{', '.join(SUFFIXES)}")
    names = sorted(sizes, key=_place)
    return ListedImages(
        name=last_name(files),
        place=files.place(folder) if folder else files.url,
        names=tuple(names),
        labels=np.array([label[name.partition("/")[0]] for name in names], dtype=np.int64),
        classes=tuple(classes[name] for name in label),
        contents=whole_files(files, [f"{folder}/{name}".lstrip("/") for name in names], [sizes[n] for n in names]),
        decode=Photograph(size or DEFAULT_SIZE),
    )


def split_folder(files: Files, split: Split) -> str:
    """The name of a split's folder below `files`; empty if there are none for splits."""
    if not files.is_folder():
        raise DataError(f"no folder {files.url!r}")
    here = files.folders()
    there = [name for name in ("train", "test", "val") if name in here]
    wanted = [name for name in SPLITS[split] if name in there]
    if there and not wanted:
        raise DataError(f"{files.url!r} has {', '.join(there)}, and no folder {' or '.join(SPLITS[split])}")
    return wanted[0] if wanted else ""


def _is_image(path: str, classes: Mapping[str, int]) -> bool:
    folder, *rest = path.split("/")
    hidden = any(part.startswith(".") for part in rest)
    return bool(rest) and folder in classes and not hidden and path.lower().endswith(SUFFIXES)


def _place(path: str) -> tuple[str, str, str]:
    """Class, folder and name, which order images as ImageFolder does."""
    folder, _, name = path.rpartition("/")
    return folder.partition("/")[0], folder, name
