"""Chunks are as Zarr writes them, and no damage to one goes unseen."""

from itertools import zip_longest

import fsspec
import numpy as np
import pytest
import zarr
from blake3 import blake3

from netsim.errors import StoreError
from netsim.store.arrays import CODECS, PIECE, ArraySpec, chunk_of, crc32c, fill_value
from netsim.store.documents import create_arrays
from netsim.store.run import Run
from support.sweeps import new_run
from unit.store.definitions import IMAGE, LOSS, SETTINGS, arrays, commit, flipped


def objects(run: Run, array: str) -> list[str]:
    fs, root = fsspec.core.url_to_fs(run.url)
    return [path for path in fs.find(f"{root}/{array}") if "/c/" in path]


@pytest.mark.parametrize("harm", ["flip", "empty", "truncate", "delete"])
@pytest.mark.parametrize("array", [LOSS.path, IMAGE.path])
def test_damage_to_a_stored_object_is_detected(run, harm, array):
    commit(run, 0, 1.0)
    (path,) = objects(run, array)
    fs = fsspec.core.url_to_fs(run.url)[0]
    data = bytearray(fs.cat_file(path))
    data[len(data) // 3] ^= 1
    if harm == "delete":
        fs.rm_file(path)
    else:
        fs.pipe_file(path, {"flip": bytes(data), "empty": b"", "truncate": bytes(data[:-5])}[harm])
    with pytest.raises(
        StoreError, match=rf"{array}, shard 0, .* is damaged .*; `netsim verify --repair .*`, and run again"
    ):
        run.read(run.record("invert", "vgg", 0), array)


def test_zarr_reads_what_was_written_and_every_flipped_bit_is_detected(tmp_path):
    run = new_run(str(tmp_path), SETTINGS)
    create_arrays(run, [IMAGE])
    values = np.arange(144, dtype="uint16").reshape(4, 1, 6, 6) * 455
    record = run.commit("invert", "vgg", 1, arrays={IMAGE.path: values}, seconds=0)
    np.testing.assert_array_equal(run.read(record, IMAGE.path), values)
    np.testing.assert_array_equal(run.array(IMAGE.path)[4:], values)
    path = f"{IMAGE.path}/c/1/0/0/0"
    data = run.files.get(path)
    for bit in range(0, 8 * len(data), 7):
        (tmp_path / path).write_bytes(flipped(data, bit))
        with pytest.raises(StoreError, match="its checksum differs"):
            run.read(record, IMAGE.path)


def test_an_intact_chunk_at_the_path_of_another_is_refused(tmp_path):
    """A failed copy may leave one: its crc32c is right, but its values are not those of the record."""
    run = new_run(str(tmp_path), SETTINGS)
    create_arrays(run, [LOSS, IMAGE])
    commit(run, 0, 1.0)
    commit(run, 1, 2.0)
    run.files.put(f"{LOSS.path}/c/1", run.files.get(f"{LOSS.path}/c/0"))
    with pytest.raises(StoreError, match=r"shard 1, .* is damaged \(its checksum differs\)"):
        run.read(run.record("invert", "vgg", 1), LOSS.path)


POLYNOMIAL = 0x11EDC6F41
"""Generator polynomial of crc32c: values that differ by it, bit-reflected, have the same checksum."""


def test_the_hash_in_the_record_detects_what_crc32c_cannot(tmp_path):
    run = new_run(str(tmp_path), SETTINGS)
    create_arrays(run, [LOSS, IMAGE])
    record = commit(run, 0, 1.0)
    path = f"{LOSS.path}/c/0"
    undetected = int(f"{POLYNOMIAL:033b}"[::-1], 2).to_bytes(5, "little")
    data = bytes(a ^ b for a, b in zip_longest(run.files.get(path), undetected, fillvalue=0))
    run.files.put(path, data)
    assert not np.array_equal(run.array(LOSS.path)[:4], arrays(1.0)[LOSS.path])  # Zarr detects no damage
    with pytest.raises(StoreError, match="its checksum differs"):
        run.read(record, LOSS.path)


@pytest.mark.parametrize("values", [12, PIECE // 4, PIECE // 4 + 3])
def test_a_chunk_is_what_zarr_writes(tmp_path, values):
    """Chunks of less than a piece, of one piece, and of more than one."""
    content, digest = np.random.default_rng(0).random(values).astype("<f4"), blake3()
    chunk = b"".join(chunk_of(content.view(np.uint8).data, digest))
    array = zarr.create_array(tmp_path / "a", shape=(values,), chunks=(values,), dtype="float32", compressors=CODECS)
    array[:] = content
    assert chunk == (tmp_path / "a" / "c" / "0").read_bytes()
    assert chunk[-4:] == crc32c(content.view(np.uint8)) and digest.digest() == blake3(content.tobytes()).digest()


def test_crc32c_is_that_of_the_specification():
    """RFC 3720, B.4: the checksum of the digits is 0xE3069283."""
    assert crc32c(np.frombuffer(b"123456789", np.uint8)) == (0xE3069283).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", "nan"), ("float64", "nan"), ("int64", "-1"), ("uint8", "255"), ("uint16", "65535")],
)
def test_what_is_not_stored_is_read_as_a_value_unlike_a_real_one(dtype, expected):
    assert str(fill_value(np.dtype(dtype))) == expected


def test_an_array_is_per_pair_if_its_first_dimension_is():
    assert LOSS.per_pair and IMAGE.per_pair
    assert not ArraySpec("a", (2, 8), "float32", ("model", "pair")).per_pair
