"""Decode images in threads, from bytes to pixels. Pillow releases the GIL while it decodes and resizes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, WebPImagePlugin

from netsim.errors import SettingsError

# File formats that Pillow may decode.
FORMATS = tuple(
    plugin.format
    for plugin in (JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile)
)

# Endings of the files that are taken for images.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

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
    """Decoder of JPEG, PNG and WebP files to RGB, scaled and cropped to a square.

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

    def __call__(self, data: bytes | None) -> np.ndarray | Unreadable:
        """Return uint8 pixels (3, size, size), or the reason why the file is unreadable; None is a missing file."""
        if not data:
            return Unreadable("missing" if data is None else "empty")
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                return _channels_first(resize_and_crop(_rgb(image), self.size))
        except MemoryError:
            raise
        except UnidentifiedImageError:  # its text contains a memory address
            return Unreadable("not a JPEG, PNG or WebP file")
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

    def __call__(self, data: bytes | None) -> np.ndarray | Unreadable:
        """Return uint8 pixels (C, H, W), or the reason why there are none."""
        if data is None or len(data) != np.prod(self.stored):
            return Unreadable("missing" if data is None else "truncated")
        pixels = np.frombuffer(data, np.uint8).reshape(self.stored)
        channels_first = {"HW": lambda: pixels[None], "HWC": lambda: pixels.transpose(2, 0, 1), "CHW": lambda: pixels}
        return scale(channels_first[self.axes](), self.size)


def _rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB as torchvision's datasets do, except 16-bit greyscale, which Pillow would clip at 255."""
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((grey / 257).round().clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` (bilinear, antialiased) and crop the centre to a square, with torchvision.

    torchvision takes half as long to import as torch, so it is imported here.
    """
    from torchvision.transforms.v2 import functional

    return functional.center_crop(functional.resize(image, [size]), [size])


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
