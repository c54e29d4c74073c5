"""Doubles: the same pixels under another name, in another class or format, wherever images come from."""

import io

import numpy as np
import pytest
from PIL import Image

from netsim.images import ArrayImages, load_images
from netsim.images.doubles import describe_doubles, picture_digest, same_pictures
from support.image_formats import photographs, png


def test_each_image_has_the_number_of_the_first_with_its_pixels(rng):
    pixels = rng.integers(256, size=(300, 1, 4, 4), dtype=np.uint8)
    pixels[299], pixels[17], pixels[280] = pixels[3], pixels[3], pixels[279]  # also in another group
    images = ArrayImages("x", pixels, np.arange(300) % 3, ("a", "b", "c"))
    expected = np.arange(300)
    expected[[299, 17, 280]] = 3, 3, 279
    assert np.array_equal(same_pictures(images), expected)
    assert same_pictures(ArrayImages("x", pixels[:0], np.arange(0), ())).tolist() == []


def test_a_picture_is_the_same_in_any_memory_order(rng):
    pixels = rng.integers(256, size=(4, 4, 3), dtype=np.uint8)
    assert picture_digest(pixels.transpose(2, 0, 1)) == picture_digest(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    assert picture_digest(pixels) != picture_digest(pixels[::-1]) and len(picture_digest(pixels)) == 16


def as_bmp(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def test_photographs_are_compared_when_they_are_decoded(tmp_path, rng):
    """A copy, a copy in another class, another file format, and pixels that are cropped away; a broken one is alone."""
    first, wide = photographs(rng, 2)[0][:20, :20], rng.integers(256, size=(8, 24, 3), dtype=np.uint8)
    other_edge = wide.copy()
    other_edge[:, 0] = 0
    files = {
        **{"a/1.png": png(first), "a/2.png": png(first), "a/broken.png": b"x", "a/broken2.png": b"x"},
        **{"b/1.png": png(first), "b/2.bmp": as_bmp(first), "c/1.png": png(wide), "c/2.png": png(other_edge)},
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    result = load_images(f"folder:{tmp_path}", size=8).inspect()
    assert result.pictures.tolist() == [0, 0, 2, 3, 0, 0, 6, 6]
    assert set(result.unreadable) == {2, 3}


def test_doubles_are_counted_and_those_with_several_labels_told_apart():
    pictures, labels = np.array([0, 1, 0, 1, 4, 0]), np.array([0, 1, 0, 2, 2, 0])
    doubles, labelled = describe_doubles(pictures, labels, list("abcdef"))
    assert doubles == (
        "Doubles among the test images: 3 of 6 (c = a, d = b, f = a). "
        "Only the first image of each picture takes part in pairs."
    )
    assert labelled == "Pictures with several labels: 1 of the doubles (d = b). At least one label of each is wrong."
    assert "image 2 = image 0" in describe_doubles(pictures, labels, None)[0]
    assert describe_doubles(np.arange(6), labels, None) == []


def test_many_doubles_are_only_counted():
    pictures = np.repeat(np.arange(2), 5)
    (note,) = describe_doubles(pictures, pictures, None)
    assert "8 of 10" in note and "image 3 = image 0 and 5 more" in note


@pytest.mark.parametrize("numbers", [[7, 7, 9], [9, 9, 7]])
def test_numbers_of_pictures_need_not_be_positions(numbers):
    """After unreadable images were dropped they are not."""
    (note,) = describe_doubles(np.array(numbers), np.zeros(3, int), None)
    assert "image 1 = image 0" in note
