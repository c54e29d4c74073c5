"""Read images in tar files: WebDataset shards, and what ImageNet's archives need as well.

A tar file is walked once, header by header, for the locations of its members; images are then read by range. In a
shard, files with the same name up to the first dot are one sample: `000017.jpg` and `000017.cls`, which has the label.
Source of the format: https://github.com/webdataset/webdataset.
"""

import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

import numpy as np
from braceexpand import braceexpand

from netsim.errors import DataError, SettingsError, on_one_line
from netsim.images.base import Split, numbered_classes, validate_labels
from netsim.images.decoding import DEFAULT_SIZE, SUFFIXES, Photograph
from netsim.images.formats.folder import split_folder
from netsim.images.listed import Extents, ListedImages, image_file, image_files, set_name
from netsim.images.names import choose_split, is_clutter, spell_split, split_in
from netsim.storage.files import Files

# Tar files that are walked concurrently.
_WALKERS = 8

# Longest run of zeros, in bytes, with which a tar file may end: they fill its last record. More is a hole: data is
# missing.
_MAX_END = 2**16


@dataclass(frozen=True)
class Member:
    """File in a tar file.

    Attributes
    ----------
    name : str
        Path in the tar file.
    start, size : int
        First byte and number of bytes of its data.
    content : bytes or None
        The data, if it was read during the walk.
    """

    name: str
    start: int
    size: int
    content: bytes | None = None


def load(path: str, *, split: Split, size: int | None) -> ListedImages:
    """List the samples of shards, in order.

    Parameters
    ----------
    path
        A tar file or a pattern with braces, which serves both splits, or a folder with train/*.tar and test/ or val/.

    Raises
    ------
    SettingsError
        For a pattern that cannot be expanded.
    DataError
        For missing or damaged tar files, and samples without exactly one image and one label.
    """
    files, paths = _shards(path, split)
    with ThreadPoolExecutor(_WALKERS) as pool:
        shards = list(pool.map(lambda shard: _samples(files, shard), paths))
    samples = [(shard, *sample) for shard, its_samples in enumerate(shards) for sample in its_samples]
    if not samples:
        raise DataError(f"no images in {path!r}; shards must contain samples of {', '.join(SUFFIXES)} and .cls")
    numbers = [_label(cls, f"{files.place(paths[shard])}: {on_one_line(cls.name)}") for shard, _, cls in samples]
    classes = numbered_classes(np.array(numbers), path)
    members = [image for _, image, _ in samples]
    return ListedImages(
        name=set_name(files),
        location=files.url,
        names=tuple(f"{paths[shard]}/{image.name}" for shard, image, _ in samples),
        labels=validate_labels(np.array(numbers), len(classes), path),
        classes=classes,
        contents=extents(files, paths, np.array([shard for shard, _, _ in samples]), members),
        decode=Photograph(size or DEFAULT_SIZE),
    )


def extents(files: Files, paths: Sequence[str], file: np.ndarray, members: Sequence[Member]) -> Extents:
    """Return contents in which image i is the member `members[i]` of the tar file `paths[file[i]]`."""
    starts, sizes = (np.array([getattr(m, key) for m in members], dtype=np.int64) for key in ("start", "size"))
    return Extents(files, tuple(paths), file, starts, sizes)


def walk(file: IO[bytes], location: str, read: Callable[[str], bool] = lambda _: False) -> Iterator[Member]:
    """Yield the files in a tar file, in order, with the contents of those for whose name `read` returns True.

    Raises
    ------
    DataError
        If the file is truncated, damaged, compressed or not a tar file; tarfile itself takes damage for the end.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would accumulate all members
                if member.isreg():
                    reader = tar.extractfile(member) if read(member.name) else None
                    content = reader.read() if reader else None
                    yield Member(member.name, member.offset_data, member.size, content)
            file.seek(tar.offset)
            end = file.read(_MAX_END + 1)
    except tarfile.TarError as error:
        raise DataError(f"{location} is damaged, compressed, or not a tar file ({error})") from None
    if len(end) < tarfile.BLOCKSIZE or len(end) > _MAX_END or any(end):
        raise DataError(f"{location} is damaged at byte {tar.offset}: neither a header of a tar file nor its end")


def open_tar(files: Files, path: str) -> IO[bytes]:
    """Open a tar file for reading; raise DataError if it does not exist."""
    try:
        return files.open(path)
    except FileNotFoundError:
        raise DataError(f"no tar file {files.place(path)!r}; images.source must name existing files") from None


# ---- samples of a shard


def _samples(files: Files, path: str) -> list[tuple[Member, Member]]:
    """Return (image, label) of each sample. Raise DataError for samples without exactly one of each."""
    location = files.place(path)
    samples: dict[str, dict[str, Member]] = {}
    with open_tar(files, path) as file:
        for member in walk(file, location, read=lambda name: name.lower().endswith(".cls")):
            if is_clutter(member.name):
                continue
            key, extension = _key(member.name)
            sample = samples.setdefault(key, {})
            if extension in sample:
                raise DataError(f"names in a shard must be unique, got {on_one_line(member.name)} twice in {location}")
            sample[extension] = member
    complete = []
    for key, by_extension in samples.items():
        images = [member for extension, member in by_extension.items() if f".{extension}" in SUFFIXES]
        if len(images) != 1 or "cls" not in by_extension:
            present = ", ".join(on_one_line(f".{extension}") for extension in by_extension)
            raise DataError(
                f"sample {key!r} in {location} must have one image ({', '.join(SUFFIXES)}) and .cls, got {present}"
            )
        complete.append((images[0], by_extension["cls"]))
    return complete


def _key(name: str) -> tuple[str, str]:
    """Split a name into key and extension as WebDataset does: a/b.seg.png is the file seg.png of the sample a/b."""
    folder, _, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}/{stem}", extension.lower()


def _label(cls: Member, location: str) -> int:
    """Return the label in a .cls file. Raise DataError unless it is a whole number."""
    text = (cls.content or b"").strip()
    if not re.fullmatch(rb"\d{1,9}", text):
        raise DataError(f"{location} must hold a class as a whole number from 0 on, got {text[:20]!r}")
    return int(text)


# ---- shards of a pattern


def _shards(path: str, split: Split) -> tuple[Files, list[str]]:
    """Return the folder of the shards, and their paths in it, in order."""
    if "{" not in path and not path.endswith(".tar"):
        files = image_files(path)
        folder = split_folder(files, split)
        location = files.place(folder) if folder else files.url
        shards = [name for name in files.names(folder) if name.endswith(".tar") and not is_clutter(name)]
        if not shards:
            raise DataError(f"no tar files in {location!r}")
        if not folder:
            shards = _of_split(shards, split, location)
        return files, [f"{folder}/{name}".lstrip("/") for name in shards]
    before, brace, rest = path.partition("{")
    files, name = image_file(f"{before}{brace}")  # split at the last slash before the first brace
    return files, braces(f"{name}{rest}")


def _of_split(shards: list[str], split: Split, location: str) -> list[str]:
    """Return the shards of a split, if their names tell several splits apart, as in train-000.tar and val-000.tar."""
    words = {name: split_in(name) for name in shards}
    if len(set(words.values())) == 1:
        return shards
    if unnamed := [name for name, word in words.items() if word is None]:
        raise DataError(
            f"names of tar files in {location!r} must all have a split or none, got {on_one_line(unnamed[0])} without "
            "one; give a pattern, as in train-{000..099}.tar"
        )
    chosen = choose_split(split, sorted({word for word in words.values() if word}), repr(location))
    if chosen is None:
        got = ", ".join(map(on_one_line, shards[:3]))
        raise DataError(f"tar files in {location!r} must include {spell_split(split)}, got {got}")
    return [name for name, word in words.items() if word == chosen]


def braces(pattern: str) -> list[str]:
    """Expand braces as a shell and WebDataset do: {000..099} counts, {a,b} lists.

    Raises
    ------
    SettingsError
        For unbalanced braces, braces that neither count nor list, ranges that count down, and repeated paths.

    Examples
    --------
    >>> braces("{train,extra}-{08..10}.tar")[:4]
    ['train-08.tar', 'train-09.tar', 'train-10.tar', 'extra-08.tar']
    """
    for first, last in re.findall(r"\{(\d+)\.\.(\d+)", pattern):
        if int(first) > int(last):
            raise SettingsError(
                f"ranges must count up, got {first}..{last} in {pattern!r}; write the smaller number first"
            )
    try:
        paths = list(braceexpand(pattern, escape=False))
    except ValueError:
        raise SettingsError(f"braces must be balanced, got {pattern!r}; write shard-{{000000..000099}}.tar") from None
    if any(brace in path for path in paths for brace in "{}"):
        raise SettingsError(f"braces must be {{000..099}} or {{a,b}}, got {pattern!r}")
    if repeated := [path for path, count in Counter(paths).items() if count > 1]:
        raise SettingsError(f"paths must be unique, got {repeated[0]} twice from {pattern!r}")
    return paths
