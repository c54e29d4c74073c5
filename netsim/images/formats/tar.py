"""Images in tar files: WebDataset shards, and what ImageNet's archives need too.

A tar file is walked once, from header to header, for where its members lie; images are then read by range. In a shard,
files that are called alike up to the first dot are one sample: `000017.jpg` and `000017.cls`, which holds the label.
Source of the format: https://github.com/webdataset/webdataset.
"""

import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

import numpy as np

from netsim.errors import DataError, SettingsError
from netsim.images.base import Split, checked_labels, numbered
from netsim.images.decoding import DEFAULT_SIZE, SUFFIXES, Photograph
from netsim.images.formats.folder import split_folder
from netsim.images.listed import Extents, ListedImages, image_files, last_name
from netsim.storage.files import Files

WALKERS = 8
"""Tar files that are walked at a time."""

LONGEST_END = 2**16
"""Bytes of zeros that a tar file may end with, which fill its last record. More are a hole: something is missing."""


@dataclass(frozen=True)
class Member:
    """A file in a tar file, `size` bytes from `start` on; `content` where it was read on the way."""

    name: str
    start: int
    size: int
    content: bytes | None = None


def load(place: str, *, split: Split, size: int | None) -> ListedImages:
    """The samples of shards, in order: by a pattern for both splits, or of a folder with train/ and test/ or val/."""
    files, paths = _shards(place, split)
    with ThreadPoolExecutor(WALKERS) as pool:
        shards = list(pool.map(lambda path: _samples(files, path), paths))
    samples = [(which, *sample) for which, found in enumerate(shards) for sample in found]
    if not samples:
        raise DataError(f"no images in {place!r}: expected samples of {', '.join(SUFFIXES)} and .cls")
    numbers = [_label(cls, f"{files.place(paths[which])}: {cls.name}") for which, _, cls in samples]
    classes = numbered(np.array(numbers), place)
    members = [image for _, image, _ in samples]
    return ListedImages(
        name=last_name(files),
        place=files.url,
        names=tuple(f"{paths[which]}/{image.name}" for which, image, _ in samples),
        labels=checked_labels(np.array(numbers), len(classes), place),
        classes=classes,
        contents=extents(files, paths, np.array([which for which, _, _ in samples]), members),
        decode=Photograph(size or DEFAULT_SIZE),
    )


def extents(files: Files, paths: Sequence[str], which: np.ndarray, members: Sequence[Member]) -> Extents:
    """Each image is a member of the tar file `paths[which]`."""
    starts, sizes = (np.array([getattr(m, key) for m in members], dtype=np.int64) for key in ("start", "size"))
    return Extents(files, tuple(paths), which, starts, sizes)


def walk(file: IO[bytes], where: str, read: Callable[[str], bool] = lambda _: False) -> Iterator[Member]:
    """The files in a tar file, in order; the contents of those that `read` says by name.

    Raises DataError for what is no tar file, is compressed, or was cut off: tarfile itself takes damage for the end.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would remember all, and nobody asks
                if member.isreg():
                    wanted = tar.extractfile(member) if read(member.name) else None
                    content = wanted.read() if wanted else None
                    yield Member(member.name, member.offset_data, member.size, content)
            file.seek(tar.offset)
            end = file.read(LONGEST_END + 1)
    except tarfile.TarError as error:
        raise DataError(f"{where} is damaged, or no tar file without compression ({error})") from None
    if len(end) < tarfile.BLOCKSIZE or len(end) > LONGEST_END or any(end):
        raise DataError(f"{where} is damaged at byte {tar.offset}: no header of a tar file, and not its end")


def open_tar(files: Files, path: str) -> IO[bytes]:
    try:
        return files.open(path)
    except FileNotFoundError:
        raise DataError(f"no tar file {files.place(path)!r}") from None


# ---- samples of a shard


def _samples(files: Files, path: str) -> list[tuple[Member, Member]]:
    """(image, label) of each sample. Raises DataError for samples that lack either."""
    where = files.place(path)
    samples: dict[str, dict[str, Member]] = {}
    with open_tar(files, path) as file:
        for member in walk(file, where, read=lambda name: name.lower().endswith(".cls")):
            key, extension = _key(member.name)
            sample = samples.setdefault(key, {})
            if extension in sample:
                raise DataError(f"{where} has {member.name} twice; samples of a shard are called differently")
            sample[extension] = member
    found = []
    for key, by_extension in samples.items():
        images = [member for extension, member in by_extension.items() if f".{extension}" in SUFFIXES]
        if len(images) != 1 or "cls" not in by_extension:
            has = ", ".join(f".{extension}" for extension in by_extension)
            raise DataError(f"sample {key!r} in {where} has {has}; one image ({', '.join(SUFFIXES)}) and .cls fit")
        found.append((images[0], by_extension["cls"]))
    return found


def _key(name: str) -> tuple[str, str]:
    """WebDataset's: a/b.seg.png is the file seg.png of the sample a/b."""
    folder, _, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}/{stem}", extension.lower()


def _label(cls: Member, where: str) -> int:
    text = (cls.content or b"").strip()
    if not re.fullmatch(rb"\d{1,9}", text):
        raise DataError(f"{where} holds {text[:20]!r}; a class as a whole number from 0 on fits")
    return int(text)


# ---- shards of a pattern


def _shards(place: str, split: Split) -> tuple[Files, list[str]]:
    """Where shards lie, and their paths there, in order."""
    if "{" not in place and not place.endswith(".tar"):
        files = image_files(place)
        folder = split_folder(files, split)
        paths = sorted(f"{folder}/{name}".lstrip("/") for name in files.names(folder) if name.endswith(".tar"))
        if not paths:
            raise DataError(f"no tar files in {files.place(folder) if folder else files.url!r}")
        return files, paths
    root, _, pattern = place.rpartition("/") if "{" not in place else _before_braces(place)
    return image_files(root or "."), braces(pattern)


def _before_braces(place: str) -> tuple[str, str, str]:
    """s3://b/x/a-{0..9}.tar -> s3://b/x, /, a-{0..9}.tar"""
    root, slash, rest = place[: place.index("{")].rpartition("/")
    return root, slash, rest + place[place.index("{") :]


def braces(pattern: str) -> list[str]:
    """As a shell expands them: {000..099} counts, {a,b} lists.

    Raises SettingsError for braces that do neither, and for a pattern that names a path twice.
    """
    paths = list(_expanded(pattern))
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise SettingsError(f"{pattern!r} names {twice[0]} twice")
    return paths


def _expanded(pattern: str) -> Iterator[str]:
    """The outermost braces first, from the left."""
    start, stop, parts = _outermost(pattern)
    if not parts:
        yield pattern
        return
    before, after = pattern[:start], pattern[stop:]
    for part in parts if len(parts) > 1 else _counted(parts[0], pattern):
        yield from _expanded(f"{before}{part}{after}")


def _outermost(pattern: str) -> tuple[int, int, list[str]]:
    """Where the first braces are, and what is between them, cut at the commas that are in no other braces."""
    depth, start, cuts = 0, 0, []
    for at, sign in enumerate(pattern):
        if sign == "{":
            depth += 1
            if depth == 1:
                start, cuts = at, [at]
        elif sign == "," and depth == 1:
            cuts.append(at)
        elif sign == "}":
            depth -= 1
            if depth == 0:
                return start, at + 1, [pattern[low + 1 : high] for low, high in pairwise([*cuts, at])]
            if depth < 0:
                break
    if depth:
        raise SettingsError(f"braces in {pattern!r} do not match; as in shard-{{000000..000099}}.tar fits")
    return 0, 0, []


def _counted(inside: str, pattern: str) -> list[str]:
    counted = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if counted is None:
        raise SettingsError(f"{{{inside}}} in {pattern!r} is neither {{000..099}} nor {{a,b}}")
    first, last = counted.groups()
    if int(first) > int(last):
        raise SettingsError(f"{{{inside}}} in {pattern!r} counts nothing; write the smaller number first")
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
