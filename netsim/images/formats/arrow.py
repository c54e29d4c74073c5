"""Where the values of columns lie in an Arrow stream, so that a few of them can be read out of a large file.

pyarrow reads whole record batches, and one of Hugging Face's has a thousand images. This reads their headers instead.
Source: https://arrow.apache.org/docs/format/Columnar.html (messages, buffers) and https://flatbuffers.dev/internals.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

import numpy as np
import pyarrow as pa

from netsim.errors import DataError
from netsim.storage.files import Files

CONTINUATION = b"\xff\xff\xff\xff"
FILE_MAGIC = b"ARROW1\x00\x00"  # the file format: the same messages, with a magic number before and an index behind
RECORD_BATCH = 3  # of the union MessageHeader


class NotArrowError(ValueError):
    """The bytes of a file are not as the format says, or use what netsim does not read."""


@dataclass(frozen=True)
class Batch:
    """A record batch: its rows, and (offset in the file, bytes) of each buffer, in the order of the format."""

    rows: int
    nulls: tuple[int, ...]  # of each field, nested ones too
    buffers: tuple[tuple[int, int], ...]


class Layout:
    """Which fields and buffers of a batch belong to which column, and to which child of a struct."""

    def __init__(self, schema: pa.Schema) -> None:
        self._at: dict[tuple[str, ...], tuple[int, int]] = {}
        self._fields = self._buffers = 0
        for field in schema:
            self._add((field.name,), field.type)

    def field(self, *path: str) -> int:
        return self._at[path][0]

    def buffers(self, *path: str) -> int:
        """The first of its own."""
        return self._at[path][1]

    def _add(self, path: tuple[str, ...], kind: pa.DataType) -> None:
        if isinstance(kind, pa.ExtensionType):
            kind = kind.storage_type
        self._at[path] = (self._fields, self._buffers)
        self._fields += 1
        self._buffers += _own_buffers(kind)
        if not pa.types.is_dictionary(kind):
            for child in range(kind.num_fields):
                self._add((*path, kind.field(child).name), kind.field(child).type)


def _own_buffers(kind: pa.DataType) -> int:
    types = pa.types
    if types.is_null(kind):
        return 0
    if types.is_struct(kind) or types.is_fixed_size_list(kind):
        return 1  # which rows are valid
    if types.is_binary(kind) or types.is_string(kind) or types.is_large_binary(kind) or types.is_large_string(kind):
        return 3  # and where they begin, and their bytes
    if types.is_union(kind) or "view" in str(kind) or "run_end" in str(kind):
        raise NotArrowError(f"a column is {kind}, which netsim does not read")
    return 2


def batches(files: Files, path: str) -> tuple[pa.Schema, list[Batch]]:
    """The schema of an Arrow stream or file, and where its record batches lie. Raises NotArrowError."""
    found: list[Batch] = []
    schema = None
    with files.open(path, jumping=True) as file:
        if file.read(len(FILE_MAGIC)) != FILE_MAGIC:
            file.seek(0)
        for message, start, body in _messages(file):
            if schema is None:
                schema = pa.ipc.read_schema(pa.py_buffer(message))
            elif _Table.root(message[8:]).number(1, "B") == RECORD_BATCH:
                found.append(_batch(_Table.root(message[8:]).table(2), start))
            file.seek(start + body)
    if schema is None:
        raise NotArrowError("it is empty")
    return schema, found


def _messages(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """(the message with its prefix, where its body begins, bytes of the body), until the end mark."""
    while True:
        prefix = file.read(8)
        if len(prefix) < 8 or prefix[:4] != CONTINUATION:
            raise NotArrowError("a message ends early, or is none of Arrow's since 0.15")
        (length,) = struct.unpack("<i", prefix[4:])
        if length == 0:
            return
        metadata = file.read(length)
        if length < 0 or len(metadata) < length:
            raise NotArrowError("a message ends early")
        yield prefix + metadata, file.tell(), _Table.root(metadata).number(3, "q")


def _batch(header: "_Table", body: int) -> Batch:
    if header.has(3):
        raise NotArrowError("its record batches are compressed; write them without compression")
    nulls = tuple(nulls for _, nulls in header.structs(1, "qq"))
    return Batch(header.number(0, "q"), nulls, tuple((body + offset, size) for offset, size in header.structs(2, "qq")))


class _Table:
    """A table of FlatBuffers: fields by number, found through the table of their places."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        try:
            return cls(data, struct.unpack_from("<I", data)[0])
        except struct.error:
            raise NotArrowError("a message ends early") from None

    def has(self, field: int) -> bool:
        return self._place(field) is not None

    def number(self, field: int, kind: str) -> int:
        place = self._place(field)
        return 0 if place is None else self._unpack(kind, place)[0]

    def table(self, field: int) -> "_Table":
        place = self._place(field)
        if place is None:
            raise NotArrowError("a message lacks its header")
        return _Table(self._data, place + self._unpack("I", place)[0])

    def structs(self, field: int, kind: str) -> list[tuple[int, ...]]:
        place = self._place(field)
        if place is None:
            return []
        vector = place + self._unpack("I", place)[0]
        (count,), size = self._unpack("I", vector), struct.calcsize(f"<{kind}")
        return [self._unpack(kind, vector + 4 + size * k) for k in range(count)]

    def _place(self, field: int) -> int | None:
        places = self._at - self._unpack("i", self._at)[0]
        entry = 4 + 2 * field
        if entry >= self._unpack("H", places)[0]:
            return None
        offset = self._unpack("H", places + entry)[0]
        return self._at + offset if offset else None

    def _unpack(self, kind: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(f"<{kind}", self._data, at)
        except struct.error:
            raise NotArrowError("a message points outside of itself") from None


def read_numbers(files: Files, path: str, batch: Batch, layout: Layout, kind: pa.DataType, *column: str) -> np.ndarray:
    """A column of whole numbers. Raises NotArrowError if some are missing."""
    missing = batch.nulls[layout.field(*column)]
    if missing:
        raise NotArrowError(f"{missing} values of {'.'.join(column)} are missing")
    data = _buffer(files, path, batch.buffers[layout.buffers(*column) + 1])
    return np.frombuffer(data, kind.to_pandas_dtype(), count=batch.rows)


def read_offsets(
    files: Files, path: str, batch: Batch, layout: Layout, kind: pa.DataType, *column: str
) -> tuple[np.ndarray, tuple[int, int]]:
    """Of bytes or text: where values begin in their buffer (rows + 1,), and where that is. A missing one is empty."""
    first = layout.buffers(*column)
    large = pa.types.is_large_binary(kind) or pa.types.is_large_string(kind)
    data = _buffer(files, path, batch.buffers[first + 1])
    if not data:  # of no rows
        return np.zeros(batch.rows + 1, np.int64), batch.buffers[first + 2]
    return np.frombuffer(data, np.int64 if large else np.int32, count=batch.rows + 1), batch.buffers[first + 2]


def read_text(files: Files, path: str, batch: Batch, layout: Layout, kind: pa.DataType, *column: str) -> Sequence[str]:
    offsets, buffer = read_offsets(files, path, batch, layout, kind, *column)
    data = _buffer(files, path, buffer)
    return [data[start:stop].decode(errors="replace") for start, stop in pairwise(offsets)]


def _buffer(files: Files, path: str, place: tuple[int, int]) -> bytes:
    start, size = place
    (data,) = files.get_ranges([(path, start, start + size)])
    if data is None or len(data) < size:
        raise DataError(f"{files.place(path)} is gone or cut off")
    return data
