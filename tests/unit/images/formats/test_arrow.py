"""Arrow files: images are located by pyarrow in a copy of which only headers and small columns are read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from netsim.errors import DataError
from netsim.images import load_images
from netsim.images.formats.arrow import NotArrowError, SparseCopy, read_images
from netsim.storage.files import Files

# Images with and without bytes, path, and both; and what must be read.
ROWS = [
    {"bytes": b"abc", "path": "x"},
    {"bytes": None, "path": "y"},
    None,
    {"bytes": b"", "path": None},
    {"bytes": b"defg", "path": "z\u00e9"},
]
BYTES = [b"abc", b"", b"", b"", b"defg"]
NAMES = ["x", "y", "", "", "z\u00e9"]
LABELS = [0, 1, 2, 1, 0]


def images_of(rows: Sequence[object], data: pa.DataType | None = None, path: pa.DataType | None = None) -> pa.Array:
    return pa.array(rows, type=pa.struct([("bytes", data or pa.binary()), ("path", path or pa.string())]))


def write(folder: Path, batches: Sequence[pa.RecordBatch], *, file_format: bool = False, **options: object) -> Files:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}')
    new = pa.ipc.new_file if file_format else pa.ipc.new_stream
    with (
        pa.OSFile(str(folder / "x.arrow"), "wb") as file,
        new(file, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as out,
    ):
        for batch in batches:
            out.write_batch(batch)
    return Files(folder)


def check(files: Files, copies: int = 1) -> None:
    """Compare all that is read with what was written `copies` times."""
    images = read_images(SparseCopy(files, "x.arrow"), "image", "label")
    assert images.names == NAMES * copies and images.labels.tolist() == LABELS * copies
    ranges = [("x.arrow", start, start + size) for start, size in zip(images.starts, images.sizes, strict=True)]
    assert files.get_ranges(ranges) == BYTES * copies


@pytest.mark.parametrize("file_format", [False, True], ids=["stream", "file"])
def test_images_are_located_in_streams_and_files_of_several_batches(tmp_path, file_format):
    batch = pa.record_batch({"image": images_of(ROWS), "label": pa.array(LABELS)})
    check(write(tmp_path, [batch, batch.slice(0, 0), batch], file_format=file_format), copies=2)


def test_large_types_and_small_labels_are_read(tmp_path):
    images = images_of(ROWS, pa.large_binary(), pa.large_string())
    check(write(tmp_path, [pa.record_batch({"image": images, "label": pa.array(LABELS, pa.uint8())})]))


def test_other_columns_may_be_of_any_type(tmp_path):
    columns = {
        "dictionary": pa.array(list("uvuuv")).dictionary_encode(),
        "nested": pa.array([{"a": [1, 2]}, None, {"a": []}, {"a": None}, {"a": [3]}]),
        "image": images_of(ROWS),
        "null": pa.array([None] * 5),
        "label": pa.array(LABELS),
        "view": pa.array(list("abcde"), pa.string_view()),
    }
    check(write(tmp_path, [pa.record_batch(columns)] * 2), copies=2)


def test_only_headers_and_small_columns_are_read(tmp_path, monkeypatch):
    """Headers are read in blocks of 32 KiB, and images are larger."""
    rows = [{"bytes": bytes(200_000), "path": f"{k}.jpg"} for k in range(20)]
    batch = pa.record_batch({"image": images_of(rows), "label": pa.array(range(20))})
    files = write(tmp_path, [batch] * 3)
    plain, read = Files.get_ranges, []
    monkeypatch.setattr(Files, "get_ranges", lambda self, ranges: read.extend(ranges) or plain(self, ranges))
    images = read_images(SparseCopy(files, "x.arrow"), "image", "label")
    assert images.sizes.tolist() == [200_000] * 60
    assert sum(stop - start for _, start, stop in read) < 300_000 < 12_000_000 < files.size("x.arrow")


def test_a_name_that_is_not_utf_8_is_read_all_the_same(tmp_path):
    paths = pa.array([b"\xff\xfe", b"ok"]).view(pa.string())
    images = pa.StructArray.from_arrays([pa.array([b"a", b"b"]), paths], names=["bytes", "path"])
    files = write(tmp_path, [pa.record_batch({"image": images, "label": pa.array([0, 1])})])
    assert read_images(SparseCopy(files, "x.arrow"), "image", "label").names == ["\ufffd\ufffd", "ok"]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"label": pa.array([0, None, 2, 1, 0])}, {}, "1 values of label are missing"),
        ({}, {"compression": "lz4"}, "must not be compressed"),
        ({}, {"compression": "zstd"}, "must not be compressed"),
        ({}, {"use_legacy_format": True}, "older than Arrow 0.15"),
        ({"image": images_of(ROWS, pa.binary_view())}, {}, "bytes and path of type binary and string, got binary_view"),
    ],
)
def test_what_netsim_does_not_read_is_refused(tmp_path, columns, options, message):
    batch = pa.record_batch({"image": images_of(ROWS), "label": pa.array(LABELS)} | columns)
    files = write(tmp_path, [batch], **options)
    with pytest.raises(NotArrowError, match=message):
        read_images(SparseCopy(files, "x.arrow"), "image", "label")


def test_a_file_without_the_columns_of_the_first_is_refused(tmp_path):
    files = write(tmp_path, [pa.record_batch({"image": images_of(ROWS), "other": pa.array(LABELS)})])
    with pytest.raises(NotArrowError, match="columns must include image and label, got image, other"):
        read_images(SparseCopy(files, "x.arrow"), "image", "label")


def test_damage_is_refused_or_changes_values_but_never_ends_the_process(tmp_path, rng):
    """pyarrow aborts on some lengths if they are not validated first."""
    batch = pa.record_batch({"image": images_of(ROWS), "label": pa.array(LABELS)})
    write(tmp_path, [batch] * 3)
    path = tmp_path / "x.arrow"
    whole = path.read_bytes()
    refused = 0
    for trial in range(400):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if trial % 10 == 0 else data)
        try:
            images = load_images(f"hf:{tmp_path}")
            images.contents.get(np.arange(len(images)))
        except DataError:
            refused += 1
    assert refused > 100
