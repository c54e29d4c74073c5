"""Specifications of arrays, their chunks and checksums, and the Zarr documents that describe them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
import zarr
from blake3 import blake3
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

CODECS = (Crc32cCodec(),)
"""No compression: what the fastest saves, an eighth of inverted images, costs more time than writing it."""


@dataclass(frozen=True)
class ArraySpec:
    """An array to create: `dims[0] == "pair"` makes it per-pair, cut into shards; any other array is written whole.

    `coordinates` label its dimensions, and are kept beside it under the dimension's name; pairs are numbered by
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
        return self.dims[0] == "pair"


CHECKSUM = 4
"""Bytes of crc32c behind the values of a chunk."""


PIECE = 2**20
"""Bytes of a chunk that are hashed and written at a time: they are still in the processor's cache then."""


def chunk_of(values: memoryview, digest: blake3) -> Iterator[bytes]:
    """The bytes of values, then their crc32c. `digest` has seen the values when all were taken."""
    checksum = 0
    for start in range(0, len(values), PIECE):
        piece = values[start : start + PIECE].tobytes()
        checksum = google_crc32c.extend(checksum, piece)
        digest.update(piece)
        yield piece
    yield checksum.to_bytes(CHECKSUM, "little")


def crc32c(content: np.ndarray) -> bytes:
    return google_crc32c.value(content).to_bytes(CHECKSUM, "little")


def fill_value(dtype: np.dtype) -> Any:
    """What Zarr gives where nothing is stored: as unlike a value as it can be."""
    if dtype.kind == "f":
        return float("nan")
    return True if dtype.kind == "b" else -1 if dtype.kind == "i" else np.iinfo(dtype).max


def differences(expected: dict[str, bytes], found: dict[str, bytes]) -> dict[str, str]:
    """Path -> what is wrong with it. What documents mean is compared: another Zarr may write them otherwise."""
    wrong = {path: "it is gone" for path in expected if path not in found}
    for path in sorted(expected.keys() & found.keys()):
        if expected[path] != found[path]:
            node = re.sub(r"/(zarr\.json|c/.*)$", "", path)
            try:
                same = _meaning(node, path, expected) == _meaning(node, path, expected | {path: found[path]})
                fault = "" if same else "it differs from what the settings say"
            except Exception as error:  # Zarr and its codecs have their own kinds
                fault = f"{type(error).__name__}: {error}"
            wrong |= {path: fault} if fault else {}
    return wrong


def _meaning(node: str, path: str, files: dict[str, bytes]) -> Any:
    """Of a file of an array or a group: its metadata, or, where it is a chunk, the values of a coordinate.

    No values are read by a document that may be wrong: it could say that there are more than fit into memory.
    """
    from_bytes = default_buffer_prototype().buffer.from_bytes
    store = MemoryStore({key: from_bytes(data) for key, data in files.items() if key.startswith(f"{node}/")})
    opened = zarr.open(store, path=node, mode="r", zarr_format=3)
    if path != f"{node}/zarr.json":
        return np.asarray(opened[...]).tolist()  # type: ignore[index]
    return json.loads(files[path]) if isinstance(opened, zarr.Group) else opened.metadata.to_dict()
