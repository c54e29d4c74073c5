"""Image sets in memory, labels, and hashes."""

import numpy as np
import pytest
import torch

from netsim.errors import DataError
from netsim.images import ArrayImages, to_unit
from netsim.images.base import hash_images, numbered_classes, validate_labels
from netsim.images.decoding import scale


def test_only_bytes_become_pixels_and_255_is_one():
    pixels = to_unit(np.arange(256, dtype=np.uint8))
    assert pixels.dtype == torch.float32 and pixels[0] == 0 and pixels[255] == 1
    assert (pixels.double() * 255).round().tolist() == list(range(256))
    with pytest.raises(DataError, match="images must be uint8, got float64"):
        to_unit(np.array([np.nan]))


@pytest.fixture
def images(rng) -> ArrayImages:
    return ArrayImages("made", rng.integers(256, size=(6, 3, 12, 9), dtype=np.uint8), np.arange(6) % 2, ("ant", "bee"))


def test_images_in_memory_are_read_in_any_order(images):
    assert len(images) == 6 and images.shape == (3, 12, 9)
    assert np.array_equal(images.read([4, 0, 4]), images.pixels[[4, 0, 4]])
    assert images.read([]).shape == (0, 3, 12, 9)


def test_images_in_memory_are_scaled_one_by_one_as_they_are_read(images):
    scaled = ArrayImages(images.name, images.pixels, images.labels, images.classes, size=5)
    assert scaled.shape == (3, 5, 5)
    expected = np.stack([scale(images.pixels[k], 5) for k in (5, 1)])
    assert np.array_equal(scaled.read([5, 1]), expected)


def test_the_hash_of_images_in_memory_covers_pixels_labels_classes_and_size_but_not_the_name(images):
    pixels, labels, classes = images.pixels, images.labels, images.classes
    changed = pixels.copy()
    changed[5, 2, 11, 8] ^= 1
    others = [
        ArrayImages("made", changed, labels, classes),
        ArrayImages("made", pixels, 1 - labels, classes),
        ArrayImages("made", pixels, labels, ("ant", "cat")),
        ArrayImages("made", pixels, labels, classes, size=5),
    ]
    assert len({images.content_hash(), *(other.content_hash() for other in others)}) == 5
    assert ArrayImages("renamed", pixels, labels, classes).content_hash() == images.content_hash()


def test_the_hash_does_not_depend_on_the_byte_order_of_labels():
    hashes = {hash_images(np.arange(5, dtype=dtype), (1, 2, 2), ("a",), b"x") for dtype in ("<i8", ">i8", "u1")}
    assert len(hashes) == 1


def test_classes_without_names_are_numbers_up_to_the_largest_label():
    assert numbered_classes(np.array([2, 0]), "x") == ("0", "1", "2")
    assert numbered_classes(np.array([], dtype=int), "x") == ()
    assert len(numbered_classes(np.array([99_999]), "x")) == 100_000
    with pytest.raises(DataError, match="must be below 100,000, got 100000 in x"):
        numbered_classes(np.array([100_000]), "x")


def test_valid_labels_become_int64():
    labels = validate_labels(np.array([0, 2, 1], dtype=np.uint8), 3, "x")
    assert labels.dtype == np.int64 and labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 1.0]), r"whole numbers of shape \(images,\), got float64 of shape \(2,\) in x"),
        (np.array([[0, 1]]), r"whole numbers of shape \(images,\), got int64 of shape \(1, 2\) in x"),
        (
            np.array([0, 3, 1, -1]),
            "indices into the 3 classes, got others for 2 of 4 images in x; the first is 3, of image 1",
        ),
    ],
)
def test_invalid_labels_are_refused_with_the_first_of_them(labels, message):
    with pytest.raises(DataError, match=message):
        validate_labels(labels, 3, "x")
