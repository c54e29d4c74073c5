"""Trees of class folders."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from netsim.errors import DataError
from netsim.images import load_images
from support.image_formats import by_torchvision, png

SIZE = 16
COLOURS = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)


def photograph(path: Path, rng, *, size=(40, 30), mode="RGB") -> np.ndarray:
    """Save a random (width, height) image; returns its pixels."""
    pixels = rng.integers(256, size=(size[1], size[0], 3)[: 3 if mode == "RGB" else 2], dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


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
    pixels = photograph(tmp_path / "a" / "x.png", rng, size=size)
    assert np.array_equal(load_images(f"folder:{tmp_path}", size=16).read([0])[0], by_torchvision(pixels, 16))


def test_grey_photographs_become_rgb(tmp_path, rng):
    photograph(tmp_path / "a" / "x.png", rng, mode="L")
    image = load_images(f"folder:{tmp_path}", size=8).read([0])[0]
    assert np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2])


def test_splits_are_folders_where_there_are_any(tmp_path, rng):
    photograph(tmp_path / "train/a/1.png", rng)
    with pytest.raises(DataError, match="must have a folder test or val or eval for the split test, got train"):
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


def test_a_class_has_the_same_label_in_every_split(tmp_path):
    for path in ("train/ant", "train/bee", "test/bee"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "x.png").write_bytes(png(COLOURS))
    for split, labels in {"train": [0, 1], "test": [1]}.items():
        images = load_images(f"folder:{tmp_path}", split)
        assert images.classes == ("ant", "bee") and images.labels.tolist() == labels


def test_a_tree_is_listed_as_torchvision_lists_it_and_what_is_not_there_is_counted(tmp_path):
    """Folders in class folders, one that leads back to itself, hidden ones, and a link to what is not there."""
    for path in ("ant/2.png", "ant/1.d/x.png", "ant/1.d/e/0.png", "ant/1/z.png", "bee/x.PNG", "bee/words.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(png(COLOURS))
    theirs = torchvision.datasets.ImageFolder(str(tmp_path)).samples
    (tmp_path / "ant/.thumbnails").mkdir()
    (tmp_path / "ant/.thumbnails/2.png").write_bytes(b"")
    (tmp_path / "ant/again").symlink_to(tmp_path / "ant")
    images = load_images(f"folder:{tmp_path}", size=SIZE)
    assert [(str(tmp_path / name), label) for name, label in zip(images.names, images.labels, strict=True)] == theirs
    assert images.inspect().unreadable == {}
    (tmp_path / "bee/y.png").symlink_to("/nowhere/y.png")
    images = load_images(f"folder:{tmp_path}", size=SIZE)
    assert images.names[-1] == "bee/y.png" and images.inspect().unreadable == {5: "a link that leads nowhere"}
