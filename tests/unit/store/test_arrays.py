"""Chunks are as Zarr writes them, and no damage to one goes unseen."""

from itertools import zip_longest

import fsspec
import numpy as np
import pytest

from netsim.errors import StoreError
from netsim.store.documents import create_arrays
from netsim.store.run import Run
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
    run = Run.create(str(tmp_path), SETTINGS)
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
    run = Run.create(str(tmp_path), SETTINGS)
    create_arrays(run, [LOSS, IMAGE])
    commit(run, 0, 1.0)
    commit(run, 1, 2.0)
    run.files.put(f"{LOSS.path}/c/1", run.files.get(f"{LOSS.path}/c/0"))
    with pytest.raises(StoreError, match=r"shard 1, .* is damaged \(its checksum differs\)"):
        run.read(run.record("invert", "vgg", 1), LOSS.path)


POLYNOMIAL = 0x11EDC6F41
"""Generator polynomial of crc32c: values that differ by it, bit-reflected, have the same checksum."""


def test_the_hash_in_the_record_detects_what_crc32c_cannot(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    create_arrays(run, [LOSS, IMAGE])
    record = commit(run, 0, 1.0)
    path = f"{LOSS.path}/c/0"
    undetected = int(f"{POLYNOMIAL:033b}"[::-1], 2).to_bytes(5, "little")
    data = bytes(a ^ b for a, b in zip_longest(run.files.get(path), undetected, fillvalue=0))
    run.files.put(path, data)
    assert not np.array_equal(run.array(LOSS.path)[:4], arrays(1.0)[LOSS.path])  # Zarr detects no damage
    with pytest.raises(StoreError, match="its checksum differs"):
        run.read(record, LOSS.path)
