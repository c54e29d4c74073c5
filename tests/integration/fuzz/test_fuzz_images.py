"""Image files of every kind, whole and damaged: each is what Pillow decodes, or unreadable by name."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image, ImageFile

from netsim.errors import DataError, NetsimError
from netsim.images import ListedImages, load_images
from netsim.images.decoding import FORMATS, SUFFIXES
from support.fuzz import inputs, new_folder, outcome
from support.image_formats import by_torchvision

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about damage

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I;16B", "I", "F")

SIDES = (1, 2, 3, 7, 8, 9, 24, 61, 256, 1999)


def encode(mode: str, size: tuple[int, int], kind: str, *, rng_seed: int = 0, **options: object) -> bytes:
    """Write an image of random bytes with Pillow."""
    width, height = size
    empty = Image.new(mode, size)
    content = np.random.default_rng(rng_seed).integers(256, size=len(empty.tobytes()), dtype=np.uint8)
    if mode == "F":
        content = np.random.default_rng(rng_seed).normal(0.5, 1, size=(height, width)).astype(np.float32)
    image = Image.frombytes(mode, size, content.tobytes())
    if mode in ("P", "PA"):
        image.putpalette(np.random.default_rng(rng_seed + 1).integers(256, size=768, dtype=np.uint8).tobytes())
    if options.pop("animated", False):
        options |= {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _can_write(mode: str, kind: str) -> bool:
    try:
        return bool(encode(mode, (2, 3), kind))
    except Exception:
        return False


# What Pillow can write, of formats that netsim reads and of some that it does not.
WRITTEN = [
    (mode, kind)
    for kind in (*FORMATS, "DIB", "PCX", "SGI", "TGA", "XBM", "PDF", "QOI", "DDS")
    for mode in MODES
    if _can_write(mode, kind)
]


@dataclass(frozen=True)
class Written:
    """An image file, with damage: bytes flipped by masks at fractions of its length, a cut, and bytes at its end."""

    mode: str
    kind: str
    size: tuple[int, int]
    rng_seed: int
    orientation: int | None = None
    animated: bool = False
    transparent: bool = False
    flips: tuple[tuple[float, int], ...] = ()
    cut: float = 1.0
    tail: bytes = b""

    def data(self) -> bytes:
        """Return the bytes of the file."""
        options: dict[str, object] = {"animated": self.animated and self.kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO")}
        if self.orientation and self.kind in ("JPEG", "PNG", "WEBP", "TIFF", "MPO"):
            exif = Image.Exif()
            exif[0x0112] = self.orientation
            options["exif"] = exif
        if self.transparent and self.mode == "P" and self.kind in ("PNG", "GIF"):
            options["transparency"] = 3
        data = bytearray(encode(self.mode, self.size, self.kind, rng_seed=self.rng_seed, **options))
        for place, mask in self.flips:
            data[int(place * (len(data) - 1))] ^= mask
        return bytes(data[: int(self.cut * len(data))]) + self.tail


@st.composite
def _pictures(draw: st.DrawFn, *, damaged: bool) -> Written:
    mode, kind = draw(st.sampled_from(WRITTEN))
    fractions = st.sampled_from(range(1001)).map(lambda thousandths: thousandths / 1000)
    # half of all flips are in the first bytes, where headers are
    places = st.one_of(fractions, fractions.map(lambda place: place**4))
    flips = st.lists(st.tuples(places, st.sampled_from([1 << bit for bit in range(8)] + [255])), min_size=1, max_size=3)
    return Written(
        mode,
        kind,
        size=(draw(st.sampled_from(SIDES[:7] if damaged else SIDES)), draw(st.sampled_from(SIDES[:7]))),
        rng_seed=draw(st.sampled_from(range(100))),
        orientation=draw(st.sampled_from([None, *range(1, 10)])),
        animated=draw(st.booleans()),
        transparent=draw(st.booleans()),
        flips=tuple(draw(flips)) if damaged and draw(st.booleans()) else (),
        cut=draw(fractions) if damaged and draw(st.booleans()) else 1.0,
        tail=draw(st.sampled_from([b"", bytes(7), b"tail", b"\xff\xd9"])) if damaged else b"",
    )


def by_pillow(data: bytes, size: int) -> np.ndarray | None:
    """Decode with Pillow and numpy, as docs/howto/images.md describes; None for what is not to be read."""
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            tags = getattr(image, "tag_v2", {})
            if image.format not in FORMATS or image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
                return None
            if image.mode.startswith("I"):
                white = 2 ** tags.get(258, (16,))[0] - 1
                levels = np.clip(np.round(np.asarray(image, np.float64) * 255 / white), 0, 255).astype(np.uint8)
                return by_torchvision(np.stack([255 - levels if tags.get(262) == 0 else levels] * 3, axis=-1), size)
            return by_torchvision(np.asarray(image.convert("RGB")), size)
    except Exception:
        return None


def open_folder(folder: Path, size: int) -> ListedImages:
    images = load_images(f"folder:{folder}", size=size)
    assert isinstance(images, ListedImages)
    return images


def check(data: bytes, name: str, size: int) -> None:
    """Read a file in the folder of a class, and compare it with Pillow."""
    with new_folder() as folder:
        (folder / "ant").mkdir()
        (folder / "ant" / name).write_bytes(data)
        images = outcome(lambda: open_folder(folder, size), str(folder))
        if not name.lower().endswith(SUFFIXES):
            assert isinstance(images, DataError)
            return
        assert isinstance(images, ListedImages) and images.names == (f"ant/{name}",)
        pixels, expected = outcome(lambda: images.read([0]), f"ant/{name}", may_warn="/PIL/"), by_pillow(data, size)
        unreadable = images.inspect().unreadable
        if isinstance(pixels, NetsimError):
            assert isinstance(pixels, DataError) and expected is None
            assert list(unreadable) == [0] and unreadable[0] in str(pixels)
        else:
            assert expected is not None, pixels
            assert unreadable == {} and pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels[0], expected)


NAMES = st.sampled_from(
    ["a.png", "a.jpg", "a.JPEG", "a b.TIF", "[a].webp", "é.gif", "a.png.bmp", "a.txt", "png", "a.npy"]
)


@inputs(120, picture=_pictures(damaged=False), name=NAMES, size=st.sampled_from([1, 8, 33]))
def test_a_whole_file_is_what_pillow_decodes(picture: Written, name: str, size: int) -> None:
    check(picture.data(), name, size)


@inputs(160, picture=_pictures(damaged=True), size=st.sampled_from([1, 8]))
def test_a_damaged_file_is_what_pillow_decodes_or_unreadable(picture: Written, size: int) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    check(picture.data(), "a.png", size)


SIGNATURES = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP")
OTHERS = (
    b"P5 2 2 255\n",
    b"P7\n",
    b"Pf\n",
    b"\0\0\0\x0cjP  ",
    b"<html>",
    b"<svg>",
    b"version https://git-lfs",
    b"\0" * 9,
)


@inputs(80, start=st.sampled_from([*SIGNATURES, *OTHERS]), rest=st.binary(max_size=40))
def test_bytes_that_are_no_image_are_unreadable(start: bytes, rest: bytes) -> None:
    check(start + rest, "a.jpg", 8)
