"""Image sets: the embedded one, folders of photographs, and the script that made the embedded one."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from netsim.errors import DataError, SettingsError
from netsim.images import load_images, to_unit
from netsim.images.data import prepare
from netsim.images.formats.fashion_mnist import CLASSES, DATA, fashion_mnist


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def photograph(path: Path, rng, *, size=(40, 30), mode="RGB") -> np.ndarray:
    """Save a random (width, height) image; returns its pixels."""
    pixels = rng.integers(256, size=(size[1], size[0], 3)[: 3 if mode == "RGB" else 2], dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


# ---- embedded


@pytest.mark.parametrize(("split", "count"), [("train", 5000), ("test", 2000)])
def test_embedded_images_are_balanced_in_every_beginning(split, count):
    images = load_images("fashion-mnist", split)
    assert (len(images), images.shape, images.classes) == (count, (1, 28, 28), CLASSES)
    assert images.labels.dtype == np.int64
    assert np.bincount(images.labels[:320]).tolist() == [32] * 10
    assert np.bincount(images.labels).tolist() == [count // 10] * 10


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("train", "e65d0311fed6e8dacf96e77e20fc588456e1899c2ceab3f70fa4418d1a4296b0"),
        ("test", "8bd98ec7ce40c9de733b36fc5f4d6bd7ab68b8d5a1192814bfc5f15eb73d5751"),
    ],
)
def test_embedded_images_never_change(split, digest):
    assert load_images("fashion-mnist", split).content_hash() == digest


def test_embedded_images_fit_in_a_small_download_and_come_with_their_licence():
    assert sum(file.stat().st_size for file in DATA.iterdir() if file.is_file()) < 2.9e6
    assert "Zalando SE" in (DATA / "LICENSE-fashion-mnist").read_text()


def test_no_test_image_is_also_a_training_image():
    train, test = (load_images("fashion-mnist", split) for split in ("train", "test"))
    seen = {image.tobytes() for image in train.read(range(len(train)))}
    assert not any(image.tobytes() in seen for image in test.read(range(len(test))))


def test_images_are_read_in_the_order_asked_for():
    images = load_images("fashion-mnist")
    some = images.read([7, 3, 7])
    assert some.dtype == np.uint8 and some.shape == (3, 1, 28, 28)
    assert np.array_equal(some[0], some[2]) and np.array_equal(some[1], images.read([3])[0])


def test_one_caller_cannot_change_the_images_of_another():
    with pytest.raises(ValueError, match="read-only"):
        fashion_mnist("test").pixels[0] = 0


def test_sheets_are_the_first_images_of_each_label_of_the_original_files(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(prepare, "SPLITS", {"train": ("train", 3), "test": ("t10k", 2)})
    originals = {prefix: write_originals(tmp_path, prefix, rng) for prefix in ("train", "t10k")}
    sheets = prepare.prepare(tmp_path, tmp_path)
    assert [sheet.name for sheet in sheets] == ["fashion-mnist-train.png", "fashion-mnist-test.png"]
    for sheet, (prefix, count) in zip(sheets, [("train", 3), ("t10k", 2)], strict=True):
        images, labels = originals[prefix]
        pixels = np.asarray(Image.open(sheet))
        for label in range(10):
            for position, image in enumerate(images[labels == label][:count]):
                tile = pixels[28 * label : 28 * label + 28, 28 * position : 28 * position + 28]
                assert np.array_equal(tile, image)


def write_originals(folder: Path, prefix: str, rng) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), 4))
    images = rng.integers(256, size=(40, 28, 28), dtype=np.uint8)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
        (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return images, labels


def test_a_file_of_another_kind_is_not_taken_for_an_original(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"hello world"))
    with pytest.raises(DataError, match=r"x\.gz must be an IDX file of bytes: it must start with 000008, got 68656c6c"):
        prepare.read_idx(tmp_path / "x.gz")


# ---- folders


def test_folder_labels_are_the_sorted_names_of_its_folders(tmp_path, rng):
    for name in ("zebra/b.png", "zebra/a.JPG", "ant/only.jpeg", "zebra/notes.txt", ".cache/x.png"):
        photograph(tmp_path / name, rng) if not name.endswith("txt") else (tmp_path / name).write_text("no image")
    images = load_images(f"folder:{tmp_path}", size=16)
    assert images.classes == ("ant", "zebra")
    assert images.labels.tolist() == [0, 1, 1]
    assert images.shape == (3, 16, 16) and images.read([0, 1, 2]).shape == (3, 3, 16, 16)
    assert images.name == tmp_path.name


@pytest.mark.parametrize("size", [(40, 30), (30, 41), (16, 16), (10, 500), (19, 16), (16, 23)])
def test_folder_images_are_scaled_and_cropped_as_torchvision_does(tmp_path, rng, size):
    photograph(tmp_path / "a" / "x.png", rng, size=size)
    twin = v2.Compose([v2.Resize(16), v2.CenterCrop(16), v2.PILToTensor()])
    assert np.array_equal(
        load_images(f"folder:{tmp_path}", size=16).read([0])[0], twin(Image.open(tmp_path / "a/x.png")).numpy()
    )


def test_grey_photographs_become_rgb(tmp_path, rng):
    photograph(tmp_path / "a" / "x.png", rng, mode="L")
    image = load_images(f"folder:{tmp_path}", size=8).read([0])[0]
    assert np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2])


def test_splits_are_folders_where_there_are_any(tmp_path, rng):
    photograph(tmp_path / "train/a/1.png", rng)
    with pytest.raises(DataError, match="must have a folder test or val for the split test, got train"):
        load_images(f"folder:{tmp_path}", "test")
    photograph(tmp_path / "val/a/2.png", rng)
    assert load_images(f"folder:{tmp_path}", "test").names == ("a/2.png",)
    photograph(tmp_path / "test/a/3.png", rng)
    assert load_images(f"folder:{tmp_path}", "test").names == ("a/3.png",)
    assert load_images(f"folder:{tmp_path}", "train").names == ("a/1.png",)


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_an_unreadable_image_is_named(tmp_path, rng, content):
    photograph(tmp_path / "a" / "x.png", rng, size=(200, 200))
    broken = (tmp_path / "a/x.png").read_bytes()[:5000] if content is None else content  # None: cut off in the middle
    (tmp_path / "a/broken.png").write_bytes(broken)
    images = load_images(f"folder:{tmp_path}", size=8)
    images.read([1])
    with pytest.raises(DataError, match=r"cannot read the image '.*broken\.png'"):
        images.read([0])


def test_hash_of_a_folder_changes_with_a_name_a_label_a_size_and_a_file(tmp_path, rng):
    photograph(tmp_path / "a/1.png", rng)
    photograph(tmp_path / "b/2.png", rng)
    hashes = [load_images(f"folder:{tmp_path}", size=8).content_hash()]
    assert load_images(f"folder:{tmp_path}", size=8).content_hash() == hashes[0]
    hashes.append(load_images(f"folder:{tmp_path}", size=9).content_hash())
    (tmp_path / "a/1.png").rename(tmp_path / "a/0.png")
    hashes.append(load_images(f"folder:{tmp_path}", size=8).content_hash())
    (tmp_path / "b/2.png").rename(tmp_path / "a/2.png")
    hashes.append(load_images(f"folder:{tmp_path}", size=8).content_hash())
    photograph(tmp_path / "a/2.png", rng, size=(50, 50))
    hashes.append(load_images(f"folder:{tmp_path}", size=8).content_hash())
    assert len(set(hashes)) == 5


# ---- errors


@pytest.mark.parametrize(
    ("reference", "options", "error", "message"),
    [
        ("fashion-mnits", {}, SettingsError, "did you mean 'fashion-mnist'"),
        (
            "fashion-mnist",
            {"size": 32},
            SettingsError,
            "size of fashion-mnist images must be 28, got 32; remove images.size",
        ),
        ("fashion-mnist", {"split": "tset"}, SettingsError, "split must be 'train' or 'test', got 'tset'"),
        ("folder:", {}, SettingsError, "folder:PATH"),
        ("folder:{empty}", {}, DataError, "no images in .*; write <class>/<image>, ending in .jpg, .jpeg, .png, .webp"),
        ("folder:{empty}", {"size": 0}, SettingsError, "size of images must be at least 1 pixel, got 0"),
        ("folder:{empty}/nowhere", {}, DataError, "no folder .*; images.source must be an existing folder"),
    ],
)
def test_image_sets_that_do_not_exist_are_told_apart(tmp_path, reference, options, error, message):
    with pytest.raises(error, match=message):
        load_images(reference.format(empty=tmp_path), **options)


def test_only_bytes_become_pixels_and_255_is_one():
    pixels = to_unit(np.arange(256, dtype=np.uint8))
    assert pixels.dtype == torch.float32 and pixels[0] == 0 and pixels[255] == 1
    assert (pixels.double() * 255).round().tolist() == list(range(256))
    with pytest.raises(DataError, match="images must be uint8, got float64"):
        to_unit(np.array([np.nan]))
