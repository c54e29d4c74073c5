"""From the bytes of an image to its pixels, in threads: Pillow lets others run while it decodes and resizes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, WebPImagePlugin

from netsim.errors import SettingsError

FORMATS = tuple(
    plugin.format
    for plugin in (JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile)
)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
DEFAULT_SIZE = 224

THREADS = "NETSIM_DECODING_THREADS"
"""Environment variable: images decoded at a time by a process. It changes no number, so it is no setting of a run."""

MOST_THREADS = 8
"""By default at most so many, and no more than there are processors."""

T = TypeVar("T")
R = TypeVar("R")
Group = TypeVar("Group")


@dataclass(frozen=True)
class Unreadable:
    """Why an image has no pixels."""

    why: str


@dataclass(frozen=True)
class Photograph:
    """Decodes a file to RGB (3, size, size), scaled and cropped."""

    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def __call__(self, data: bytes | None) -> np.ndarray | Unreadable:
        if not data:
            return Unreadable("it is gone" if data is None else "it is empty")
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                return _planes(resize_and_crop(_rgb(image), self.size))
        except MemoryError:
            raise
        except UnidentifiedImageError:  # its text has an address of memory in it
            return Unreadable("it is no JPEG, PNG or WebP file")
        except Exception as error:  # of damaged files, Pillow's decoders raise whatever they come upon
            return Unreadable(str(error) or type(error).__name__)


@dataclass(frozen=True)
class Raw:
    """Takes pixels as they are, uint8 in the order `axes` (HW, HWC or CHW); scaled if `size` is given."""

    stored: tuple[int, ...]
    axes: str
    size: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        by_axis = {"C": 1} | dict(zip(self.axes, self.stored, strict=True))
        height, width = (by_axis["H"], by_axis["W"]) if self.size is None else (self.size, self.size)
        return by_axis["C"], height, width

    def __call__(self, data: bytes | None) -> np.ndarray | Unreadable:
        if data is None or len(data) != np.prod(self.stored):
            return Unreadable("it is gone" if data is None else "it is cut off")
        pixels = np.frombuffer(data, np.uint8).reshape(self.stored)
        planes = {"HW": lambda: pixels[None], "HWC": lambda: pixels.transpose(2, 0, 1), "CHW": lambda: pixels}
        return scaled(planes[self.axes](), self.size)


def _rgb(image: Image.Image) -> Image.Image:
    """As torchvision's datasets have it, `convert("RGB")`, but for 16 bits of grey, which that would cut at 255."""
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((grey / 257).round().clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size`, bilinear and antialiased, then the centre: as torchvision's Resize and CenterCrop."""
    width, height = image.size
    if width <= height:
        width, height = size, max(size, int(size * height / width))
    else:
        width, height = max(size, int(size * width / height)), size
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def scaled(planes: np.ndarray, size: int | None) -> np.ndarray:
    """Pixels (C, H, W), C 1 or 3, as photographs are scaled; the same pixels if `size` is None or already theirs."""
    if size is None or planes.shape[1:] == (size, size):
        return planes
    pixels = planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
    return _planes(resize_and_crop(Image.fromarray(np.ascontiguousarray(pixels)), size))


def _planes(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


# ---- in threads


def threads() -> int:
    """Images decoded at a time. Raises SettingsError for a variable that is no such number."""
    asked = os.environ.get(THREADS)
    if asked is None:
        return min(processors(), MOST_THREADS)
    if not asked.isdecimal() or int(asked) < 1:
        raise SettingsError(f"{THREADS} is {asked!r}; a number of threads from 1 on fits")
    return int(asked)


def processors() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """What `work` makes of each, in order."""
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(work, items))


def in_groups(
    groups: Sequence[Group], fetch: Callable[[Group], Sequence[T]], work: Callable[[T], R]
) -> Iterator[list[R]]:
    """What `work` makes of what `fetch` brings, group by group and in order; the next group is fetched meanwhile.

    At most two groups are in memory at a time.
    """
    with ThreadPoolExecutor(1) as fetcher, ThreadPoolExecutor(threads()) as pool:
        coming = [fetcher.submit(fetch, group) for group in groups[:1]]
        for following in range(1, len(groups) + 1):
            data = coming.pop().result()
            coming += [fetcher.submit(fetch, group) for group in groups[following : following + 1]]
            yield list(pool.map(work, data))
