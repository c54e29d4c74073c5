"""Decode images in threads, from bytes to pixels. Pillow releases the GIL while it decodes and resizes."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from netsim.errors import SettingsError

# Format of Pillow -> endings of its files. Those of which Pillow recognises a file by its first bytes, so that a
# damaged file is not taken for another format, and which hold pixels: no documents, drawings, films or arrays.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "AVIF": (".avif", ".avifs"),
}

# Endings of the files that are taken for images.
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

Image.init()
_DECODERS = tuple(name for name in FORMATS if name in Image.OPEN)

# Limit of the pixels of a resized photograph, for sizes up to 2048: of one that would have more, only what remains
# after cropping is computed. It is 1 x 75,000 pixels at a size of 224.
_MAX_RESIZED = 2**24

# Limit of the pixels of all photographs that are decoded at a time, by the 4 bytes that Pillow takes for each 512 MB;
# a larger photograph is decoded alone.
_MAX_PIXELS = 2**27

# Tags of TIFF, and the value of photographs that are stored as negatives.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0

# Default side of photographs in pixels.
DEFAULT_SIZE = 224

# Environment variable: images that a process decodes concurrently. It changes no number, so it is not a setting.
THREADS = "NETSIM_DECODING_THREADS"

# Default limit of concurrently decoded images; the number of processors is the other.
_MAX_THREADS = 8

T = TypeVar("T")
R = TypeVar("R")
Group = TypeVar("Group")


@dataclass(frozen=True)
class Unreadable:
    """Result of decoding an image that cannot be decoded.

    Attributes
    ----------
    reason : str
        Cause, for error messages.
    """

    reason: str


@dataclass(frozen=True)
class Photograph:
    """Decoder of image files to RGB, scaled and cropped to a square; the first image of those with several.

    Attributes
    ----------
    size : int
        Side of the square in pixels.
    """

    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (3, size, size) of a decoded image."""
        return 3, self.size, self.size

    def __call__(self, data: bytes | Unreadable) -> np.ndarray | Unreadable:
        """Return uint8 pixels (3, size, size), or the reason why the file is unreadable."""
        if isinstance(data, Unreadable):
            return data
        if not data:
            return Unreadable("empty")
        try:
            with Image.open(BytesIO(data), formats=_DECODERS) as image, _decoding.of(image.width * image.height):
                return _channels_first(resize_and_crop(_rgb(image), self.size))
        except MemoryError:
            raise
        except UnidentifiedImageError:  # its text contains a memory address
            return Unreadable(_describe(data))
        except Exception as error:  # Pillow's decoders raise many kinds of exceptions for damaged files
            return Unreadable(str(error) or type(error).__name__)


@dataclass(frozen=True)
class Raw:
    """Decoder of uncompressed uint8 pixels.

    Attributes
    ----------
    stored : tuple of int
        Shape of one image as it is stored.
    axes : str
        Order of the stored axes: HW, HWC or CHW.
    size : int or None
        Side in pixels to which images are scaled and cropped; None leaves them as they are.
    """

    stored: tuple[int, ...]
    axes: str
    size: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of a decoded image."""
        by_axis = {"C": 1} | dict(zip(self.axes, self.stored, strict=True))
        height, width = (by_axis["H"], by_axis["W"]) if self.size is None else (self.size, self.size)
        return by_axis["C"], height, width

    def __call__(self, data: bytes | Unreadable) -> np.ndarray | Unreadable:
        """Return uint8 pixels (C, H, W), or the reason why there are none."""
        if isinstance(data, Unreadable):
            return data
        if len(data) != np.prod(self.stored):
            return Unreadable("truncated")
        pixels = np.frombuffer(data, np.uint8).reshape(self.stored)
        channels_first = {"HW": lambda: pixels[None], "HWC": lambda: pixels.transpose(2, 0, 1), "CHW": lambda: pixels}
        return scale(channels_first[self.axes](), self.size)


class _Budget:
    """Limit of what threads do at a time. One that exceeds it alone waits until nothing else is done."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._changed = limit, 0, threading.Condition()

    @contextmanager
    def of(self, amount: int) -> Iterator[None]:
        """Wait until `amount` is left, and take it for the duration of the context."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + amount <= self._limit)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


_decoding = _Budget(_MAX_PIXELS)


def _rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB as torchvision's datasets do, except more than 8 bits of grey, which Pillow would clip at 255."""
    image.load()
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(image))
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Scale greyscale of up to 16 bits to 8: (H, W) uint8. Raise ValueError for floats, signed and 32-bit pixels.

    Pillow scales PNG, PGM and JPEG 2000 to 16 bits; for TIFF it returns what is stored.
    """
    tags: Any = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    if image.mode == "F" or (tags and image.mode == "I"):
        raise ValueError("pixels must be whole numbers of at most 16 bits, got floats, signed or 32-bit ones")
    grey = np.asarray(image, dtype=np.float64) / ((2**bits - 1) / 255)
    scaled = grey.round().clip(0, 255).astype(np.uint8)
    return 255 - scaled if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else scaled


def _describe(data: bytes) -> str:
    """Say what a file is that is no image."""
    start = data[:256].lstrip().lower()
    if not data.strip(b"\0"):
        return f"not an image: {len(data):,} bytes, all zero"
    if start.startswith(b"version https://git-lfs"):
        return "not an image but a pointer of Git LFS; run git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return "not an image but a web page"
    return f"not an image in a format that is read ({', '.join(FORMATS)})"


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` (bilinear, antialiased) and crop the centre to a square, with torchvision.

    torchvision takes half as long to import as torch, so it is imported here.
    """
    from torchvision.transforms.v2 import functional

    resized = _resized(image.size, size)
    if resized[0] * resized[1] > max(_MAX_RESIZED, 4 * size**2):
        return _resize_centre(image, size, resized)
    return functional.center_crop(functional.resize(image, [size]), [size])


def _resized(image: tuple[int, int], size: int) -> tuple[int, int]:
    """Return width and height of a resized image, as torchvision rounds them."""
    width, height = image
    return (size, int(size * height / width)) if width <= height else (int(size * width / height), size)


def _resize_centre(image: Image.Image, size: int, resized: tuple[int, int]) -> Image.Image:
    """Resize only what remains after cropping: as all of it up to rounding, by a level at most."""
    (left, right), (top, bottom) = (
        ((first := round((after - size) / 2)) * before / after, (first + size) * before / after)
        for before, after in zip(image.size, resized, strict=True)
    )
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def scale(pixels: np.ndarray, size: int | None) -> np.ndarray:
    """Resize and crop pixels (C, H, W), C 1 or 3, as photographs; return them unchanged if `size` is None or theirs."""
    if size is None or pixels.shape[1:] == (size, size):
        return pixels
    channels_last = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    return _channels_first(resize_and_crop(Image.fromarray(np.ascontiguousarray(channels_last)), size))


def _channels_first(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image as (C, H, W)."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


# ---- threads


def threads() -> int:
    """Return the number of images that are decoded concurrently.

    Raises
    ------
    SettingsError
        If the environment variable NETSIM_DECODING_THREADS is not a number from 1 on.
    """
    value = os.environ.get(THREADS)
    if value is None:
        return min(processors(), _MAX_THREADS)
    if not value.isdecimal() or int(value) < 1:
        raise SettingsError(f"{THREADS} must be a whole number from 1 on, got {value!r}; correct or unset it")
    return int(value)


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply a function to every item in threads; return the results in order."""
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(function, items))


def map_groups(
    groups: Sequence[Group], fetch: Callable[[Group], Sequence[T]], function: Callable[[T], R]
) -> Iterator[list[R]]:
    """Fetch groups and apply a function to every item in threads; yield the results group by group, in order.

    The next group is fetched meanwhile, so at most two groups are in memory.
    """
    with ThreadPoolExecutor(1) as fetcher, ThreadPoolExecutor(threads()) as pool:
        pending = [fetcher.submit(fetch, group) for group in groups[:1]]
        for following in range(1, len(groups) + 1):
            items = pending.pop().result()
            pending += [fetcher.submit(fetch, group) for group in groups[following : following + 1]]
            yield list(pool.map(function, items))
