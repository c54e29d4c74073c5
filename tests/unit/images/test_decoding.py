"""Decoding: every kind of file becomes RGB of one size, in order, or a reason why it does not."""

import io
import threading

import numpy as np
import pytest
import torchvision
from PIL import Image

from netsim.errors import SettingsError
from netsim.images import decoding
from netsim.images.decoding import (
    THREADS,
    Photograph,
    Raw,
    Unreadable,
    map_groups,
    map_in_threads,
    processors,
    resize_and_crop,
    scale,
    threads,
)
from support.image_formats import by_torchvision, open_made, png

SIZE = 16


# ---- scale


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


# ---- kinds of files


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY = Image.fromarray(np.arange(0, 256, dtype=np.uint8).reshape(16, 16))
COLOURS = Image.fromarray(np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8))
TURNED = Image.Exif()
TURNED[0x0112] = 6  # orientation: turn by 90 degrees
SEE_THROUGH = COLOURS.copy()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(GREY, "PNG"), GREY.convert("RGB")),
        (saved(GREY, "PNG", bits=8), GREY.convert("RGB")),
        (saved(Image.fromarray(np.asarray(GREY, dtype=np.uint16) * 257), "PNG"), GREY.convert("RGB")),  # 16 bits
        (saved(GREY.convert("1"), "PNG"), GREY.convert("1").convert("RGB")),
        (saved(COLOURS.quantize(8), "PNG"), COLOURS.quantize(8).convert("RGB")),
        (saved(COLOURS.quantize(8), "PNG", transparency=3), COLOURS.quantize(8).convert("RGB")),
        (saved(SEE_THROUGH, "PNG"), COLOURS),  # as in torchvision: what is behind is not known
        (saved(COLOURS, "WEBP", lossless=True), COLOURS),
        (saved(COLOURS, "PNG", exif=TURNED), COLOURS),  # as in torchvision: networks were trained so
    ],
    ids=["grey", "grey8", "grey16", "bits", "palette", "transparent palette", "alpha", "webp", "exif"],
)
def test_images_of_every_mode_become_rgb(data, expected):
    assert np.array_equal(Photograph(16)(data), np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_of_every_mode_become_what_torchvision_makes_of_them(mode, tmp_path):
    (tmp_path / "x.jpg").write_bytes(saved(COLOURS.resize((40, 30)).convert(mode), "JPEG"))
    expected = by_torchvision(np.asarray(torchvision.datasets.folder.pil_loader(tmp_path / "x.jpg")), 16)
    assert np.array_equal(Photograph(16)((tmp_path / "x.jpg").read_bytes()), expected)


JPEG = saved(COLOURS.resize((200, 200)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (Unreadable("missing"), "missing"),
        (b"", "empty"),
        (b"no image", "not an image in a format that is read (JPEG, "),
        (saved(COLOURS, "PDF"), "not an image in a format"),
        (saved(COLOURS, "TGA"), "not an image in a format"),
        (bytes(2000), "not an image: 2,000 bytes, all zero"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS; run git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (png(np.asarray(COLOURS))[:400], ""),
        (JPEG[:2] + b"\0" * 1000, "not an image in a format"),
    ],
)
def test_an_unreadable_file_gives_a_reason_instead_of_pixels(data, reason):
    result = Photograph(16)(data)
    assert isinstance(result, Unreadable) and reason in result.reason and " at 0x" not in result.reason


@pytest.mark.parametrize(("axes", "order"), [("HWC", (1, 2, 0)), ("CHW", (0, 1, 2))])
def test_raw_pixels_are_read_in_any_order_of_axes(rng, axes, order):
    pixels = rng.integers(256, size=(3, 4, 6), dtype=np.uint8)
    stored = np.ascontiguousarray(pixels.transpose(order))
    raw = Raw(stored.shape, axes)
    assert raw.shape == (3, 4, 6) and np.array_equal(raw(stored.tobytes()), pixels)
    small = Raw(stored.shape, axes, 2)
    assert small.shape == (3, 2, 2) and np.array_equal(small(stored.tobytes()), scale(pixels, 2))


def test_raw_greyscale_pixels_have_one_channel(rng):
    pixels = rng.integers(256, size=(4, 6), dtype=np.uint8)
    assert Raw((4, 6), "HW").shape == (1, 4, 6)
    assert np.array_equal(Raw((4, 6), "HW")(pixels.tobytes()), pixels[None])


@pytest.mark.parametrize(("data", "reason"), [(Unreadable("missing"), "missing"), (b"", "truncated"), (bytes(23), "truncated")])
def test_raw_pixels_that_are_not_all_there_are_unreadable(data, reason):
    assert Raw((4, 6), "HW")(data) == Unreadable(reason)


# ---- threads


def test_images_come_in_order_whatever_the_number_of_threads(local, monkeypatch):
    images = open_made(*local["folder"], size=SIZE)
    order = np.tile(np.arange(12), 30)  # several groups
    results = []
    for number in ("1", "7"):
        monkeypatch.setenv(THREADS, number)
        results.append(images.read(order))
    assert np.array_equal(*results) and np.array_equal(results[0][:12], results[0][-12:])


@pytest.mark.parametrize("value", ["0", "many", ""])
def test_a_number_of_threads_that_is_none_is_refused(local, monkeypatch, value):
    monkeypatch.setenv(THREADS, value)
    message = f"NETSIM_DECODING_THREADS must be a whole number from 1 on, got {value!r}; correct or unset it"
    with pytest.raises(SettingsError, match=message):
        open_made(*local["folder"]).read([0])


def test_by_default_there_are_as_many_threads_as_processors_and_at_most_eight(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    for available, expected in ((1, 1), (5, 5), (64, 8)):
        monkeypatch.setattr(decoding, "processors", lambda available=available: available)
        assert threads() == expected
    monkeypatch.setenv(THREADS, "12")
    assert threads() == 12 and processors() >= 1


def test_results_of_threads_are_in_the_order_of_items(monkeypatch):
    """The first item is finished last."""
    monkeypatch.setenv(THREADS, "2")
    second = threading.Event()

    def work(item: int) -> int:
        assert second.wait(10) if item == 0 else not second.set()
        return 10 * item

    assert map_in_threads(work, [0, 1]) == [0, 10]


def test_the_next_group_is_fetched_while_one_is_worked_on_and_no_further_one():
    fetched, second = [], threading.Event()

    def fetch(group: list[int]) -> list[int]:
        fetched.append(group)
        if len(fetched) == 2:
            second.set()
        return group

    results = map_groups([[1, 2], [3], [4]], fetch, lambda item: item * item)
    assert fetched == []
    assert next(results) == [1, 4]
    assert second.wait(10) and fetched == [[1, 2], [3]]
    assert list(results) == [[9], [16]] and fetched == [[1, 2], [3], [4]]
    assert list(map_groups([], fetch, abs)) == []
