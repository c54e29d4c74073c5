"""Specifications of arrays, and the bytes of their chunks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import google_crc32c
import numpy as np
from blake3 import blake3
from zarr.codecs import Crc32cCodec

CODECS = (Crc32cCodec(),)
"""No compression: what the fastest codec saves, an eighth of inverted images, costs more time than writing it."""

CHECKSUM = 4
"""Bytes of crc32c behind the values of a chunk."""

PIECE = 2**20
"""Bytes of a chunk that are hashed and written at a time: they are still in the processor's cache then."""


@dataclass(frozen=True)
class ArraySpec:
    """An array to create. `dims[0] == "pair"` makes it per-pair, cut into shards; any other array is written whole.

    `coordinates` label its dimensions and are kept beside it under the dimension's name; pairs are numbered by
    themselves. Arrays of one group agree in them.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    coordinates: Mapping[str, Sequence[Any] | np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def per_pair(self) -> bool:
        """True if the array is cut into shards of pairs."""
        return self.dims[0] == "pair"

    def with_pairs(self, pairs: int) -> Self:
        """Return the array with at least so many pairs, if it is per-pair; else as it is."""
        return replace(self, shape=(max(pairs, self.shape[0]), *self.shape[1:])) if self.per_pair else self


def chunk_of(values: memoryview, digest: blake3) -> Iterator[bytes]:
    """Yield the bytes of values, then their crc32c. `digest` is updated with the values on the way."""
    checksum = 0
    for start in range(0, len(values), PIECE):
        piece = values[start : start + PIECE].tobytes()
        checksum = google_crc32c.extend(checksum, piece)
        digest.update(piece)
        yield piece
    yield checksum.to_bytes(CHECKSUM, "little")


def crc32c(content: np.ndarray) -> bytes:
    """Compute the checksum that stands behind the values of a chunk."""
    return google_crc32c.value(content).to_bytes(CHECKSUM, "little")


def fill_value(dtype: np.dtype) -> Any:
    """Return what Zarr gives where nothing is stored: a value as unlike a real one as possible."""
    if dtype.kind == "f":
        return float("nan")
    return True if dtype.kind == "b" else -1 if dtype.kind == "i" else np.iinfo(dtype).max
