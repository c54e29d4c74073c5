"""Images in tar files: WebDataset shards, and what ImageNet's archives need too.

A tar file is walked once, from header to header, for where its members lie; images are then read by range. In a shard,
files that are called alike up to the first dot are one sample: `000017.jpg` and `000017.cls`, which holds the label.
Source of the format: https://github.com/webdataset/webdataset.
"""

import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

import numpy as np

from netsim.errors import DataError, SettingsError
from netsim.files import Files
from netsim.images.decoding import DEFAULT_SIZE, SUFFIXES, Photograph
from netsim.images.folder import split_folder
from netsim.images.listed import Extents, ListedImages, image_files, last_name
from netsim.images.sets import Split, checked_labels

WALKERS = 8
"""Tar files that are walked at a time."""


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
    members = [image for _, image, _ in samples]
    return ListedImages(
        name=last_name(files),
        place=files.url,
        names=tuple(f"{paths[which]}/{image.name}" for which, image, _ in samples),
        labels=checked_labels(np.array(numbers), max(numbers) + 1, place),
        classes=tuple(map(str, range(max(numbers) + 1))),
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
            end = file.read(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        raise DataError(f"{where} is damaged, or no tar file without compression ({error})") from None
    if len(end) < tarfile.BLOCKSIZE or any(end):
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
            samples.setdefault(key, {})[extension] = member
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
    """As a shell expands them: {000..099} counts, {a,b} lists. Raises SettingsError for braces that do neither."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise SettingsError(f"braces in {pattern!r} do not match; as in shard-{{000000..000099}}.tar fits")
        return [pattern]
    inside, counted = match[1], re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if counted:
        first, last = counted.groups()
        if int(first) > int(last):
            raise SettingsError(f"{{{inside}}} in {pattern!r} counts nothing; write the smaller number first")
        parts = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    elif "," in inside:
        parts = inside.split(",")
    else:
        raise SettingsError(f"{{{inside}}} in {pattern!r} is neither {{000..099}} nor {{a,b}}")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [path for part in parts for path in braces(f"{before}{part}{after}")]
