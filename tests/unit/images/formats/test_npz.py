"""NumPy archives."""

import re
import zipfile

import numpy as np
import pytest

from netsim.errors import DataError
from netsim.images import load_images
from netsim.images.formats import npz
from support.image_formats import flip_bit, open_made, truncate

BYTES = np.zeros((4, 5, 6, 3), dtype=np.uint8)
ONES = np.ones(4, dtype=int)


def test_a_large_npz_is_read_by_range_and_gives_the_same(local, remote, monkeypatch):
    expected = open_made(*local["npz"])
    monkeypatch.setattr(npz, "IN_MEMORY", 0)
    for images in (open_made(*local["npz"]), open_made(*remote["npz"])):
        assert isinstance(images.contents, npz.Stored)
        assert np.array_equal(images.read(range(12)), expected.read(range(12)))
        assert images.content_hash() == expected.content_hash()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": BYTES, "labels": np.array([0, None, 1, 2], dtype=object)}, "cannot read labels in .*: Object"),
        ({"images": BYTES.astype(object), "labels": ONES}, "must be uint8, got object"),
        ({"images": BYTES / 255, "labels": ONES}, "must be uint8, got float64"),
        (
            {"images": BYTES, "labels": ONES[:3]},
            "images and labels must have the same length, got 4 images and 3 labels",
        ),
        ({"images": BYTES, "labels": ONES * 0.5}, r"labels must be whole numbers of shape \(images,\), got float64"),
        ({"images": BYTES, "labels": -ONES}, "got others for 4 of 4 images in .*; the first is -1, of image 0"),
        (
            {"images": BYTES, "labels": ONES * 10_000_000},
            "labels without class names must be below 100,000, got 10000000 in",
        ),
        ({"images": BYTES[..., :2], "labels": ONES}, r"must be \(n, H, W\), .* got \(4, 5, 6, 2\)"),
        ({"images": BYTES[:, :3], "labels": ONES}, "which is ambiguous"),
        ({"images": np.asfortranarray(BYTES), "labels": ONES}, "must be in C order, got Fortran order"),
        (
            {"x_train": BYTES, "y_train": ONES},
            "must be test_images and test_labels, or .*x_test and y_test.*; got x_train, y_train",
        ),
        ({"images": BYTES[:, :0], "labels": ONES}, r"at least one pixel, got images in .* of shape \(4, 0, 6, 3\)"),
        ({}, "got none in"),
        ({"new\nline": BYTES}, r"got new\\nline in"),
        (
            {"images": BYTES, "labels": ONES, "classes": np.array(2)},
            r"classes must have shape \(classes,\), got \(\) in",
        ),
        (
            {"images": BYTES, "labels": ONES, "classes": np.array([["a"], ["b"]])},
            r"classes must have shape \(classes,\), got \(2, 1\) in .*; write one name each",
        ),
    ],
)
def test_an_npz_that_does_not_fit_is_refused_by_name(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_images(f"npz:{tmp_path / 'x.npz'}")


@pytest.mark.parametrize("name", ["test", "testing", "val", "validation", "valid", "dev"])
def test_arrays_of_a_split_have_any_usual_name(tmp_path, name):
    arrays = {f"x_{name}": BYTES, f"y_{name}": ONES, "x_training": BYTES[:2], "y_training": ONES[:2]}
    np.savez(tmp_path / "x.npz", **arrays)
    assert len(load_images(f"npz:{tmp_path / 'x.npz'}")) == 4
    assert len(load_images(f"npz:{tmp_path / 'x.npz'}", "train")) == 2


def test_what_systems_leave_in_an_npz_is_passed_over(tmp_path):
    np.savez(tmp_path / "x.npz", images=BYTES)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("__MACOSX/._images.npy", b"x")
    with pytest.raises(DataError, match="got images in"):
        load_images(f"npz:{tmp_path / 'x.npz'}")


def test_an_npz_that_is_cut_off_or_flipped_or_gone_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(DataError, match="no file"):
        load_images(f"npz:{path}")
    np.savez(path, images=BYTES, labels=ONES)
    whole = path.read_bytes()
    truncate(path, 200)
    with pytest.raises(DataError, match=r"damaged, encrypted, or not written by np\.savez"):
        load_images(f"npz:{path}")
    path.write_bytes(whole)
    flip_bit(path, 300)
    with pytest.raises(DataError, match="damaged"):
        load_images(f"npz:{path}")


@pytest.mark.parametrize(
    ("start", "offset", "value"),
    [
        (b"PK\x01\x02", 8, 1),  # encrypted
        (b"PK\x01\x02", 10, 12),  # by another compression
        (b"PK\x01\x02", 10, 14),
        (b"PK\x03\x04", 26, 255),  # with a longer name, which zipfile quotes
    ],
)
def test_an_npz_that_zipfile_cannot_decode_is_refused_in_a_short_message(tmp_path, start, offset, value):
    path = tmp_path / "x.npz"
    np.savez_compressed(
        path, images=np.random.default_rng(0).integers(256, size=(9, 20, 20), dtype="u1"), labels=[0] * 9
    )
    data = bytearray(path.read_bytes())
    for part in range(2):  # of both arrays
        place = [match.start() for match in re.finditer(re.escape(start), data)][part]
        data[place + offset] = value
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"is damaged, encrypted, or not written by np\.savez") as refused:
        load_images(f"npz:{path}")
    assert len(str(refused.value)) < 800


def test_classes_may_be_bytes(tmp_path):
    np.savez(tmp_path / "x.npz", images=BYTES, labels=ONES, classes=np.array(["ant", "bée"]))
    names = load_images(f"npz:{tmp_path / 'x.npz'}").classes
    np.savez(tmp_path / "y.npz", images=BYTES, labels=ONES, classes=np.array([name.encode() for name in names]))
    assert load_images(f"npz:{tmp_path / 'y.npz'}").classes == names == ("ant", "bée")
    np.savez(tmp_path / "z.npz", images=BYTES, labels=ONES, classes=np.array([b"ant", b"\xff"]))
    assert load_images(f"npz:{tmp_path / 'z.npz'}").classes == ("ant", "\\xff")
