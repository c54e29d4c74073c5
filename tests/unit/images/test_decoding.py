"""Decoding: every kind of file becomes RGB of one size, in order, or a reason why it does not."""

import numpy as np
import pytest
from PIL import Image

from netsim.images.decoding import resize_and_crop, scale


def resize_and_crop_by_hand(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size`, round the longer side down, and cut out the middle."""
    width, height = image.size
    if width <= height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


# Width and height: square, landscape, portrait, odd, smaller than the result, one pixel, and extreme aspect ratios.
SIDES = [(16, 16), (40, 30), (30, 41), (19, 16), (16, 23), (500, 375), (5, 3), (1, 1), (1, 700), (900, 2), (333, 334)]


@pytest.mark.parametrize("size", [1, 7, 16, 33])
@pytest.mark.parametrize("channels", [0, 2, 3, 4], ids=["L", "LA", "RGB", "RGBA"])
def test_images_are_scaled_and_cropped_by_the_stated_arithmetic(rng, channels, size):
    for width, height in SIDES:
        shape = (height, width, channels) if channels else (height, width)
        image = Image.fromarray(rng.integers(256, size=shape, dtype=np.uint8))
        cropped = resize_and_crop(image, size)
        assert cropped.mode == image.mode and cropped.size == (size, size)
        assert np.array_equal(cropped, resize_and_crop_by_hand(image, size)), (width, height)


def test_pixels_in_memory_are_scaled_as_photographs_are(rng):
    for channels in (1, 3):
        pixels = rng.integers(256, size=(channels, 12, 9), dtype=np.uint8)
        image = Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
        expected = np.atleast_3d(np.asarray(resize_and_crop_by_hand(image, 5))).transpose(2, 0, 1)
        assert np.array_equal(scale(pixels, 5), expected)
        assert scale(pixels, None) is pixels
    square = pixels[:, :9]
    assert scale(square, 9) is square
