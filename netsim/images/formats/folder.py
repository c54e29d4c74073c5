"""Read photographs from a tree of class folders, [train|test|val]/<class>/<image>, in the order of torchvision."""

from collections.abc import Mapping

import numpy as np

from netsim.errors import DataError
from netsim.images.base import Split
from netsim.images.decoding import DEFAULT_SIZE, SUFFIXES, Photograph
from netsim.images.listed import ListedImages, image_files, set_name, whole_files
from netsim.storage.files import Files

# Split -> possible names of its folder. ImageNet has train and val.
SPLITS = {"train": ("train",), "test": ("test", "val")}

# Levels of folders in which images are found; the first is the class.
_MAX_DEPTH = 20


def load(path: str, *, split: Split, size: int | None) -> ListedImages:
    """List the images of a split. Without folders for splits, each split is all images of `path`.

    Raises
    ------
    DataError
        If the folder does not exist, lacks the split, or has no images.
    """
    files = image_files(path)
    folder = split_folder(files, split)
    splits = [name for names in SPLITS.values() for name in names if name in files.folders()] if folder else [""]
    classes = sorted({name for parent in splits for name in files.folders(parent) if not name.startswith(".")})
    return list_tree(files, folder, {name: name for name in classes}, size)


def list_tree(files: Files, folder: str, classes: Mapping[str, str], size: int | None) -> ListedImages:
    """List the images in `<folder>/<class>/` and the folders below.

    Parameters
    ----------
    classes
        Folder of each class -> name of the class. Labels are positions in the sorted folders. A class without images
        in this split keeps its label, because other splits may have some.

    Raises
    ------
    DataError
        If there are no images.
    """
    label = {name: position for position, name in enumerate(sorted(classes))}
    sizes = {path: size for path, size in files.sizes(folder, depth=_MAX_DEPTH).items() if _is_image(path, label)}
    location = files.place(folder) if folder else files.url
    if not sizes:
        raise DataError(f"no images in {location!r}; write <class>/<image>, ending in {', '.join(SUFFIXES)}")
    names = sorted(sizes, key=_sort_key)
    return ListedImages(
        name=set_name(files),
        location=location,
        names=tuple(names),
        labels=np.array([label[name.partition("/")[0]] for name in names], dtype=np.int64),
        classes=tuple(classes[name] for name in label),
        contents=whole_files(files, [f"{folder}/{name}".lstrip("/") for name in names], [sizes[n] for n in names]),
        decode=Photograph(size or DEFAULT_SIZE),
    )


def split_folder(files: Files, split: Split) -> str:
    """Return the name of the folder of a split; empty if there are no folders for splits.

    Raises
    ------
    DataError
        If the folder does not exist, or has folders for other splits only.
    """
    if not files.is_folder():
        raise DataError(f"no folder {files.url!r}; images.source must be an existing folder")
    folders = files.folders()
    present = [name for name in ("train", "test", "val") if name in folders]
    matching = [name for name in SPLITS[split] if name in present]
    if present and not matching:
        raise DataError(
            f"{files.url!r} must have a folder {' or '.join(SPLITS[split])} for the split {split}, "
            f"got {', '.join(present)}"
        )
    return matching[0] if matching else ""


def _is_image(path: str, classes: Mapping[str, int]) -> bool:
    """Return True for a path below a class folder that ends as an image does and is not hidden."""
    folder, *rest = path.split("/")
    hidden = any(part.startswith(".") for part in rest)
    return bool(rest) and folder in classes and not hidden and path.lower().endswith(SUFFIXES)


def _sort_key(path: str) -> tuple[str, str, str]:
    """Return class, folder and name, by which ImageFolder sorts images."""
    folder, _, name = path.rpartition("/")
    return folder.partition("/")[0], folder, name
