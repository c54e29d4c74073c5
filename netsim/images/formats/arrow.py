"""Locate images in an Arrow stream or file, so that single images are read from a large file.

pyarrow reads record batches as a whole, and one of Hugging Face's has a thousand images. So pyarrow is given a sparse
copy of the file: an anonymous memory map of its size, in which only the headers and the small columns are filled in.
Pages that are not filled take no memory, and the address of a buffer in the copy is its offset in the file.

Measured on a file of 8000 images and 761 MiB on a local S3 server: to list its images, this requests 0.7 MiB and takes
0.1 to 0.3 s and 4 MiB of memory; pyarrow's stream reader requests all 761 MiB, takes 3 s and 400 MiB, and does so again
for every read of single images. On a disk both this and pyarrow's own memory map take 2 ms.

Source: https://arrow.apache.org/docs/format/Columnar.html (serialisation, buffers).
"""

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from netsim.storage.files import Files

_CONTINUATION = b"\xff\xff\xff\xff"

# Beginning of the file format: the same messages follow, and an index behind them.
_FILE_MAGIC = b"ARROW1\x00\x00"

# Errors of pyarrow for damaged bytes.
_PYARROW_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


class NotArrowError(ValueError):
    """Bytes that are not valid Arrow, or a feature of Arrow that netsim does not read."""


@dataclass(frozen=True)
class Images:
    """Images of one file.

    Attributes
    ----------
    names : list of str
        Path stored with each image; empty where there is none.
    labels : array (n,) of int64
        Label of each image.
    starts, sizes : arrays (n,) of int64
        First byte in the file and number of bytes of each image; -1 bytes where the column is null.
    """

    names: list[str]
    labels: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray


class SparseCopy:
    """Copy of an Arrow file in memory that has its headers, and those buffers that were filled in.

    Raises
    ------
    NotArrowError
        If the file is truncated, damaged, or not Arrow since version 0.15.
    FileNotFoundError
        If the file does not exist.
    """

    def __init__(self, files: Files, path: str) -> None:
        self._files, self._path = files, path
        self._memory = mmap.mmap(-1, max(1, files.size(path) or 0))
        self._buffer = pa.py_buffer(self._memory)
        start = self._copy_headers()
        try:
            self._stream = self._buffer.slice(start)
            self.schema: pa.Schema = pa.ipc.open_stream(self._stream).schema
        except _PYARROW_ERRORS as error:
            raise NotArrowError(str(error)) from None

    def batches(self, columns: Sequence[str]) -> list[pa.RecordBatch]:
        """Return all record batches with these columns only. Their values are zeros until they are filled in."""
        fields = [self.schema.get_field_index(name) for name in columns]
        if -1 in fields:
            raise NotArrowError(f"columns must include {' and '.join(columns)}, got {', '.join(self.schema.names)}")
        try:
            batches = list(pa.ipc.open_stream(self._stream, options=pa.ipc.IpcReadOptions(included_fields=fields)))
            for batch in batches:
                batch.validate()  # pyarrow would abort on damaged lengths
            return batches
        except _PYARROW_ERRORS as error:
            raise NotArrowError(f"cannot read its record batches, which must not be compressed ({error})") from None

    def offset(self, buffer: pa.Buffer | None) -> int:
        """Return the offset of a buffer in the file."""
        if not buffer:  # of no bytes: it may be anywhere
            return 0
        offset = buffer.address - self._buffer.address
        if not 0 <= offset <= self._buffer.size - buffer.size:
            raise NotArrowError("its record batches are compressed; write them without compression")
        return offset

    def fill(self, buffers: Sequence[pa.Buffer | None]) -> None:
        """Read buffers from the file."""
        ranges = [(self.offset(buffer), buffer.size) for buffer in buffers if buffer]
        contents = self._files.get_ranges([(self._path, start, start + size) for start, size in ranges])
        for (start, size), data in zip(ranges, contents, strict=True):
            if data is None or len(data) < size:
                raise NotArrowError("it was truncated while it was read")
            self._memory[start : start + size] = data

    def _copy_headers(self) -> int:
        """Fill in the metadata of all messages; return the offset of the first."""
        with self._files.open(self._path, jumping=True) as file:
            first = position = len(_FILE_MAGIC) if file.read(len(_FILE_MAGIC)) == _FILE_MAGIC else 0
            while True:
                file.seek(position)
                prefix = file.read(8)
                if len(prefix) < 8 or prefix[:4] != _CONTINUATION:
                    raise NotArrowError("a message ends early, or is older than Arrow 0.15")
                (length,) = struct.unpack("<i", prefix[4:])
                header = prefix + file.read(max(0, length))
                if length < 0 or len(header) < 8 + length:
                    raise NotArrowError("a message ends early")
                self._memory[position : position + len(header)] = header
                if length == 0:  # the end mark
                    return first
                position += len(header) + self._body_size(position)

    def _body_size(self, position: int) -> int:
        """Return the size of the body of the message at an offset."""
        try:
            return pa.ipc.read_message(self._buffer.slice(position)).body.size
        except _PYARROW_ERRORS as error:
            raise NotArrowError(str(error)) from None


def read_images(copy: SparseCopy, image: str, label: str) -> Images:
    """Read names, labels and locations of all images.

    Parameters
    ----------
    copy
        The file.
    image
        Column of images, a struct of bytes and path.
    label
        Column of labels, of integers.

    Raises
    ------
    NotArrowError
        If labels are missing, record batches are compressed or damaged, or images are not bytes and path.
    """
    batches = [batch for batch in copy.batches((image, label)) if batch.num_rows]
    encoded = [_as_binary(batch.column(image).field("bytes")) for batch in batches]
    paths = [_as_binary(batch.column(image).field("path")) for batch in batches]
    labels = [batch.column(label) for batch in batches]
    missing = sum(column.null_count for column in labels)
    if missing:
        raise NotArrowError(f"{missing} values of {label} are missing")
    # all but the bytes of images
    copy.fill([buffer for column in (*labels, *paths) for buffer in column.buffers()])
    copy.fill([buffer for column in encoded for buffer in column.buffers()[:2]])
    for column in (*labels, *paths, *encoded):
        _validate(column)
    offsets = [_value_offsets(column) for column in encoded]
    data = [copy.offset(column.buffers()[2]) for column in encoded]
    return Images(
        names=[(name or b"").decode(errors="replace") for column in paths for name in column.to_pylist()],
        labels=_joined([np.from_dlpack(column) for column in labels]),
        starts=_joined([start + inside[:-1] for start, inside in zip(data, offsets, strict=True)]),
        sizes=_joined([_sizes(inside, column) for inside, column in zip(offsets, encoded, strict=True)]),
    )


def _validate(column: pa.Array) -> None:
    """Raise NotArrowError for offsets or missing values that contradict each other."""
    try:
        column.validate(full=True)
    except _PYARROW_ERRORS as error:
        raise NotArrowError(str(error)) from None


def _as_binary(column: pa.Array) -> pa.Array:
    """Return a column of text or bytes as bytes, without reading it."""
    types = pa.types
    if types.is_binary(column.type) or types.is_string(column.type):
        return column.view(pa.binary())
    if types.is_large_binary(column.type) or types.is_large_string(column.type):
        return column.view(pa.large_binary())
    raise NotArrowError(f"images must have bytes and path of type binary and string, got {column.type}")


def _value_offsets(column: pa.Array) -> np.ndarray:
    """Return the offsets of the values of a binary column in its data, (rows + 1,) int64."""
    dtype = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    return np.frombuffer(column.buffers()[1], dtype, count=len(column) + 1).astype(np.int64)


def _sizes(offsets: np.ndarray, column: pa.Array) -> np.ndarray:
    """Return the number of bytes of each value of a binary column, -1 where it is null."""
    return np.where(column.is_null().to_numpy(zero_copy_only=False), -1, np.diff(offsets))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return parts as one int64 array."""
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)
