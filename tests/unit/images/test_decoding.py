"""Decoding: every kind of file becomes RGB of one size, in order, or a reason why it does not."""

import io
import struct
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


@pytest.mark.parametrize("kind", decoding.FORMATS)
def test_every_format_is_read(kind):
    image = COLOURS.resize((40, 30))
    expected = by_torchvision(np.asarray(image), 16).astype(int)
    options = {"quality": 100} if kind in ("JPEG", "MPO", "WEBP", "AVIF") else {}
    assert np.abs(Photograph(16)(saved(image, kind, **options)) - expected).mean() < 20


def test_of_several_images_in_a_file_the_first_is_read():
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        several = saved(GREY.convert("RGB"), kind, save_all=True, append_images=[COLOURS, COLOURS], lossless=True)
        assert np.abs(Photograph(16)(several).astype(int) - np.asarray(GREY)).max() <= 8  # GIF has a palette


def tiff(pixels: np.ndarray, bits: int, *, photometric: int = 1, sample: int = 1) -> bytes:
    """Write a TIFF file of one strip of greyscale by hand: Pillow writes neither 12 bits nor negatives."""
    height, width = pixels.shape
    data = pixels.astype("<u2").tobytes() if bits == 16 else packed12(pixels)
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    fields[339] = sample
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    header = b"II*\0" + struct.pack("<I", 8 + len(data))
    return header + data + struct.pack("<H", len(fields)) + entries + bytes(4)


def packed12(pixels: np.ndarray) -> bytes:
    """Pack two pixels of 12 bits into three bytes."""
    first, second = pixels.reshape(-1, 2).T.astype(int)
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).tobytes()


DEEP = np.asarray(GREY, dtype=np.uint16)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(Image.fromarray(DEEP * 257), "TIFF"), DEEP),
        (saved(Image.fromarray(DEEP * 257), "JPEG2000"), DEEP),
        (saved(Image.fromarray(DEEP.astype(np.int32) * 257), "PPM"), DEEP),
        (b"P5 16 16 4095\n" + (DEEP.astype(int) * 4095 // 255).astype(">u2").tobytes(), DEEP),
        (tiff(DEEP * 257, 16), DEEP),
        (tiff(DEEP.astype(int) * 4095 // 255, 12), DEEP),
        (tiff(DEEP * 257, 16, photometric=0), 255 - DEEP),
    ],
    ids=["tiff", "jpeg2000", "pgm", "pgm12", "by hand", "tiff12", "negative"],
)
def test_up_to_16_bits_of_grey_become_8(data, expected):
    pixels = Photograph(16)(data).astype(int)
    assert np.abs(pixels - expected).max() <= 1 and (pixels == pixels[0]).all()


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(DEEP.astype(np.float32)), "TIFF"),
        saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
        tiff(DEEP, 16, sample=2),
    ],
    ids=["float", "32 bits", "signed"],
)
def test_greyscale_of_unknown_range_is_unreadable(data):
    assert "at most 16 bits, got floats, signed or 32-bit ones" in Photograph(16)(data).reason


def test_a_file_that_claims_a_gigantic_size_is_unreadable():
    assert "exceeds limit" in Photograph(16)(b"P6 100000 100000 255\n").reason


# ---- memory


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (30_000, 1), (2, 16_000)])
def test_of_a_long_photograph_only_the_centre_is_resized(rng, monkeypatch, shape):
    """All of 1 x 30,000 would be 6 GB."""
    made, resize = [], Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda *args, **kwargs: made.append(resize(*args, **kwargs)) or made[-1])
    pixels = Photograph(224)(png(rng.integers(256, size=(*shape, 3), dtype=np.uint8)))
    assert pixels.shape == (3, 224, 224) and [image.size for image in made] == [(224, 224)]


@pytest.mark.parametrize("size", [1, 7, 33])
def test_a_centre_is_that_of_the_whole_up_to_rounding(rng, monkeypatch, size):
    monkeypatch.setattr(decoding, "_MAX_RESIZED", -1)
    for width, height in [*SIDES, (3, 901), (700, 1)]:
        image = Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8))
        expected = np.asarray(resize_and_crop_by_hand(image, size)).astype(int)
        assert np.abs(np.asarray(resize_and_crop(image, size)) - expected).max() <= 1


def test_ordinary_photographs_are_resized_as_a_whole():
    """So their pixels are those of torchvision to the bit: up to 1 x 330 at 224 pixels, and 1 x 4 at any size."""
    for size, ratio in ((224, 330), (1024, 16), (8192, 4)):
        resized = decoding._resized((10, 10 * ratio), size)
        assert resized[0] * resized[1] <= max(decoding._MAX_RESIZED, 4 * size**2)


def test_pixels_that_are_decoded_at_a_time_are_limited():
    """A second large one waits for the first; one above the limit waits until it is alone."""
    budget, order, first, inside = decoding._Budget(10), [], threading.Event(), threading.Event()

    def decode(name: str, amount: int) -> None:
        with budget.of(amount):
            order.append(name)

    def decode_first() -> None:
        with budget.of(6):
            inside.set()
            assert first.wait(10)
            order.append("first")

    threads = [threading.Thread(target=decode_first)]
    threads[0].start()
    assert inside.wait(10)
    threads += [threading.Thread(target=decode, args=("large", amount)) for amount in (5, 50)]
    for thread in threads[1:]:
        thread.start()
    decode("small", 4)  # fits beside the first
    assert order == ["small"]
    first.set()
    for thread in threads:
        thread.join(10)
    assert order == ["small", "first", "large", "large"]


def test_photographs_wait_for_pixels_to_be_free(monkeypatch):
    taken = []
    monkeypatch.setattr(decoding, "_decoding", budget := decoding._Budget(100))
    monkeypatch.setattr(budget, "of", lambda pixels, of=budget.of: taken.append(pixels) or of(pixels))
    assert Photograph(8)(png(np.asarray(COLOURS))).shape == (3, 8, 8)
    assert taken == [256]


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


@pytest.mark.parametrize(
    ("data", "reason"), [(Unreadable("gone"), "gone"), (b"", "truncated"), (bytes(23), "truncated")]
)
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
