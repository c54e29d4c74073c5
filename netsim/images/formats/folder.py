"""Read photographs from a tree of class folders, [<split>/]<class>/<image>, in the order of torchvision's ImageFolder.

A layout is never guessed: folders that could be splits or classes are refused, and what is passed over is counted.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from netsim.errors import DataError, on_one_line
from netsim.images.base import Split
from netsim.images.decoding import DEFAULT_SIZE, SUFFIXES, Photograph
from netsim.images.listed import ListedImages, image_files, set_name, whole_files
from netsim.images.names import (
    choose_split,
    count_endings,
    is_clutter,
    is_image,
    resembles_split,
    spell_split,
    split_of,
)
from netsim.storage.files import Files

# Levels of folders in which images are found; the first is the class.
_MAX_DEPTH = 20

# Folders or files that a message names before it only counts the rest.
_MAX_NAMED = 3


def load(path: str, *, split: Split, size: int | None) -> ListedImages:
    """List the images of a split. Without folders for splits, each split is all images of `path`.

    Raises
    ------
    DataError
        If the folder does not exist, lacks the split, or has no images; if its folders are neither all splits nor all
        classes; if splits are below classes; if a class has files but no images.
    """
    files = image_files(path)
    _require_folder(files)
    folders = _visible(files)
    splits = [name for name in folders if split_of(name)]
    notes = _notes_on_others(files, splits, [name for name in folders if name not in splits])
    folder = split_folder(files, split)
    classes = sorted({name for parent in splits or [""] for name in _visible(files, parent)})
    if not splits:
        _require_classes(files, classes)
    return list_tree(files, folder, {name: name for name in classes}, size, notes=notes)


def list_tree(
    files: Files, folder: str, classes: Mapping[str, str], size: int | None, *, notes: Iterable[str] = ()
) -> ListedImages:
    """List the images in `<folder>/<class>/` and the folders below.

    Parameters
    ----------
    classes
        Folder of each class -> name of the class. Labels are positions in the sorted folders. A class without files
        in this split keeps its label, because other splits may have some.
    notes
        What was passed over so far.

    Raises
    ------
    DataError
        If there are no images, if a class has other files only, or if all images of a class are in folders of splits.
    """
    label = {name: position for position, name in enumerate(sorted(classes))}
    location = files.place(folder) if folder else files.url
    sizes = {path: size for path, size in files.sizes(folder, depth=_MAX_DEPTH).items() if not is_clutter(path)}
    below = [path for path in sizes if "/" in path and path.partition("/")[0] in label]
    names = sorted(filter(is_image, below), key=_sort_key)
    others = [path for path in below if not is_image(path)]
    outside = [path for path in sizes if "/" not in path and is_image(path)]
    if not names:
        got = f"{len(outside):,} outside of folders" if outside else count_endings(others) or "no files"
        raise DataError(f"no images in {location!r}, got {got}; write <class>/<image>, ending in {_endings()}")
    _require_images_of_classes(names, others, location)
    if not folder:
        _require_splits_above_classes(names, location)
    return ListedImages(
        name=set_name(files),
        location=location,
        names=tuple(names),
        labels=np.array([label[_class_of(name)] for name in names], dtype=np.int64),
        classes=tuple(classes[name] for name in label),
        contents=whole_files(files, [f"{folder}/{name}".lstrip("/") for name in names], [sizes[n] for n in names]),
        decode=Photograph(size or DEFAULT_SIZE),
        notes=(*notes, *_notes(others, outside, location)),
    )


def split_folder(files: Files, split: Split) -> str:
    """Return the name of the folder of a split; empty if there are no folders for splits.

    Raises
    ------
    DataError
        If the folder does not exist, has folders for other splits only, or several for this one.
    """
    _require_folder(files)
    folders = _visible(files)
    chosen = choose_split(split, folders, repr(files.url))
    present = [name for name in folders if split_of(name)]
    if present and chosen is None:
        raise DataError(
            f"{files.url!r} must have a folder {spell_split(split)} for the split {split}, got {', '.join(present)}"
        )
    return chosen or ""


def _require_folder(files: Files) -> None:
    if not files.is_folder():
        raise DataError(f"no folder {files.url!r}; images.source must be an existing folder")


def _visible(files: Files, folder: str = "") -> list[str]:
    """Return the names of the folders in a folder that a person made."""
    return [name for name in files.folders(folder) if not is_clutter(name)]


# ---- layouts


def _notes_on_others(files: Files, splits: Sequence[str], others: Sequence[str]) -> list[str]:
    """Note folders with images that lie beside both splits. Beside one, they may be classes: raise DataError."""
    beside = [name for name in others if splits and any(map(is_image, files.sizes(name, depth=_MAX_DEPTH)))]
    if not beside:
        return []
    if len({split_of(name) for name in splits}) == 1:
        raise DataError(
            f"folders in {files.url!r} must be all splits or all classes, got {', '.join(splits)} beside "
            f"{_first_few(beside)}; move the classes into a folder test, or the others elsewhere"
        )
    return [f"passed over {_first_few(beside)}, beside the splits {', '.join(splits)} of {files.url}"]


def _require_classes(files: Files, folders: Sequence[str]) -> None:
    """Raise DataError if all folders resemble splits, as in seg_train and seg_test."""
    if folders and all(map(resembles_split, folders)):
        raise DataError(
            f"folders in {files.url!r} must be classes, or splits called train and test, got {_first_few(folders)}; "
            "rename the splits, or move classes of such names into a folder test"
        )


def _require_splits_above_classes(names: Sequence[str], location: str) -> None:
    """Raise DataError for <class>/<split>/<image>: a class with images in several splits, or in nothing else."""
    below: dict[str, set[Split | None]] = {}
    for name in names:
        folder, rest = name.split("/", 1)
        below.setdefault(folder, set()).add(split_of(rest.partition("/")[0]) if "/" in rest else None)
    nested = [folder for folder, splits in below.items() if None not in splits or len(splits - {None}) > 1]
    if nested:
        first = next(name for name in names if name.startswith(f"{nested[0]}/") and split_of(name.split("/")[1]))
        raise DataError(
            f"splits must be above classes, got {first!r} in {location!r}; write <split>/<class>/<image>, or give the "
            "folder that has the splits"
        )


def _require_images_of_classes(names: Sequence[str], others: Sequence[str], location: str) -> None:
    """Raise DataError for classes that have files but no images."""
    empty = sorted({_class_of(path) for path in others} - {_class_of(name) for name in names})
    if empty:
        got = count_endings(path for path in others if _class_of(path) in empty)
        raise DataError(
            f"classes must have images, got only {got} in {_first_few(empty)} of {location!r}; images end in "
            f"{_endings()}: convert the files, or move folders that are no classes"
        )


def _notes(others: Sequence[str], outside: Sequence[str], location: str) -> list[str]:
    """Describe the files that are passed over: those that are no images, and images that have no class."""
    notes = []
    if others:
        notes.append(f"passed over files that are not images in {location}: {count_endings(others)}")
    if outside:
        notes.append(
            f"passed over images outside of class folders in {location}: {len(outside):,}, as {on_one_line(outside[0])}"
        )
    return notes


def _first_few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(map(on_one_line, names[:_MAX_NAMED])) + more


def _endings() -> str:
    return ", ".join(SUFFIXES)


def _class_of(path: str) -> str:
    return path.partition("/")[0]


def _sort_key(path: str) -> tuple[str, str, str]:
    """Return class, folder and name, by which ImageFolder sorts images."""
    folder, _, name = path.rpartition("/")
    return folder.partition("/")[0], folder, name
