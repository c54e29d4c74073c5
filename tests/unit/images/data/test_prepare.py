"""The script that makes the included images from the original files."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netsim.errors import DataError
from netsim.images.data import prepare


def test_sheets_are_the_first_images_of_each_label_of_the_original_files(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(prepare, "SPLITS", {"train": ("train", 3), "test": ("t10k", 2)})
    originals = {prefix: write_originals(tmp_path, prefix, rng) for prefix in ("train", "t10k")}
    sheets = prepare.prepare(tmp_path, tmp_path)
    assert [sheet.name for sheet in sheets] == ["fashion-mnist-train.png", "fashion-mnist-test.png"]
    for sheet, (prefix, count) in zip(sheets, [("train", 3), ("t10k", 2)], strict=True):
        images, labels = originals[prefix]
        pixels = np.asarray(Image.open(sheet))
        for label in range(10):
            for position, image in enumerate(images[labels == label][:count]):
                tile = pixels[28 * label : 28 * label + 28, 28 * position : 28 * position + 28]
                assert np.array_equal(tile, image)


def write_originals(folder: Path, prefix: str, rng) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), 4))
    images = rng.integers(256, size=(40, 28, 28), dtype=np.uint8)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
        (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return images, labels


def test_a_file_of_another_kind_is_not_taken_for_an_original(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"hello world"))
    with pytest.raises(DataError, match=r"x\.gz must be an IDX file of bytes: it must start with 000008, got 68656c6c"):
        prepare.read_idx(tmp_path / "x.gz")
