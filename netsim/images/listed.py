"""Image sets that are lists: each image has a name, a label, and a place where its bytes are. n, k = images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from netsim.errors import DataError
from netsim.images.base import hash_of
from netsim.images.decoding import Unreadable, in_groups
from netsim.storage.files import Files

IN_GROUP = 64
"""Images that are fetched at a time,"""

BYTES_IN_GROUP = 2**25
"""unless so many bytes are reached before."""

NAMED = 3
"""Unreadable images that an error names; it counts all."""


class Contents(Protocol):
    """The bytes of n images."""

    @property
    def sizes(self) -> np.ndarray:
        """(n,) bytes of each; about, where only the whole is known."""

    def get(self, indices: np.ndarray) -> Sequence[bytes | None]:
        """In this order; None for an image that is gone."""

    def keep(self, indices: np.ndarray) -> "Contents":
        """Of these images only, in this order."""

    def stamp(self) -> bytes:
        """Changes when an image does, as far as that can be told without reading them."""


class Decode(Protocol):
    """Makes the bytes of an image the pixels `shape`."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def __call__(self, data: bytes | None) -> np.ndarray | Unreadable: ...


@dataclass(frozen=True)
class ListedImages:
    """Images that are fetched and decoded when they are read."""

    name: str
    place: str  # where they are, for errors
    names: tuple[str, ...] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    contents: Contents = field(repr=False)
    decode: Decode

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.decode.shape

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: ArrayLike) -> np.ndarray:
        """uint8 (k, C, H, W). Raises DataError that names the images that can't be read, and counts them."""
        chosen = np.asarray(indices, dtype=np.int64)
        images = np.empty((len(chosen), *self.shape), dtype=np.uint8)
        faults: dict[int, str] = {}
        for at, found in enumerate(self._decoded(chosen)):
            if isinstance(found, Unreadable):
                faults[int(chosen[at])] = found.why
            else:
                images[at] = found
        if faults:
            raise DataError(self.complain(faults, of=len(chosen)))
        return images

    def unreadable(self, on_image: Callable[[int], None] = lambda _: None) -> dict[int, str]:
        """Index -> why, of all images that can't be read. Decodes every one; `on_image` is told how many were."""
        faults = {}
        for index, found in enumerate(self._decoded(np.arange(len(self)))):
            if isinstance(found, Unreadable):
                faults[index] = found.why
            on_image(index + 1)
        return faults

    def without(self, indices: Sequence[int]) -> "ListedImages":
        """The other images, in their order. Classes stay, as labels are places among them."""
        kept = np.setdiff1d(np.arange(len(self)), np.asarray(indices, dtype=np.int64))
        names = tuple(self.names[index] for index in kept)
        return replace(self, names=names, labels=self.labels[kept], contents=self.contents.keep(kept))

    def complain(self, faults: Mapping[int, str], *, of: int) -> str:
        """Why images can't be read: the first few by name, and how many there are."""
        named = [f"{self.names[index]!r} ({why})" for index, why in sorted(faults.items())[:NAMED]]
        if of == 1:
            return f"cannot read the image {named[0]} of {self.place}"
        more = f" and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        return f"cannot read {len(faults)} of {of} images of {self.place}: {', '.join(named)}{more}"

    def content_hash(self) -> str:
        """From names, labels and sizes, not pixels: hashing 6 GB of ImageNet would cost more than it saves."""
        return hash_of(self.labels, self.shape, self.names, self.contents.stamp())

    def _decoded(self, indices: np.ndarray) -> Iterator[np.ndarray | Unreadable]:
        groups = groups_of(indices, self.contents.sizes)
        for found in in_groups(groups, self.contents.get, self.decode):
            yield from found


def groups_of(indices: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Cut so that neither images nor bytes of a group are many; an image alone may be larger."""
    groups, start, held = [], 0, 0
    for at, size in enumerate(sizes[indices].tolist()):
        if at > start and (at - start >= IN_GROUP or held + size > BYTES_IN_GROUP):
            groups.append(indices[start:at])
            start, held = at, 0
        held += size
    return [*groups, indices[start:]] if len(indices) else []


@dataclass(frozen=True)
class Extents:
    """Bytes that lie in files: image i is `sizes[i]` bytes from `starts[i]` on in the file `paths[which[i]]`."""

    files: Files
    paths: tuple[str, ...]
    which: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    def get(self, indices: np.ndarray) -> list[bytes | None]:
        places = zip(self.which[indices], self.starts[indices], self.sizes[indices], strict=True)
        return self.files.get_ranges(
            [(self.paths[which], int(start), int(start + size)) for which, start, size in places]
        )

    def keep(self, indices: np.ndarray) -> "Extents":
        return replace(self, which=self.which[indices], starts=self.starts[indices], sizes=self.sizes[indices])

    def stamp(self) -> bytes:
        return ",".join(map(str, self.sizes.tolist())).encode()


def whole_files(files: Files, paths: Sequence[str], sizes: Sequence[int]) -> Extents:
    """Each image is a file."""
    n = len(paths)
    return Extents(files, tuple(paths), np.arange(n), np.zeros(n, np.int64), np.array(sizes, dtype=np.int64))


def image_files(place: str) -> Files:
    """Where images are. Errors name the setting."""
    return Files(place, setting="images.source")


def last_name(files: Files) -> str:
    """What an image set is called."""
    return files.url.rpartition("/")[2]
