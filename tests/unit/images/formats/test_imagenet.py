"""ImageNet, from its archives and extracted."""

import gzip
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torchvision
from torchvision.datasets import imagenet

from netsim.errors import DataError
from netsim.images import load_images
from support import image_formats
from support.image_formats import add, by_torchvision, open_made, png

SIZE = 16


def test_the_validation_archive_is_read_as_torchvision_reads_it(tmp_path, monkeypatch):
    """torchvision extracts the same archives; labels, images and the list are then the same, and so is the hash."""
    root = tmp_path / "imagenet"
    made = image_formats.make_imagenet(root, np.random.default_rng(5))
    images = open_made(made, str(root), size=SIZE)
    md5 = {path.name: torchvision.datasets.utils.calculate_md5(path) for path in root.iterdir()}
    for key, (archive, _) in imagenet.ARCHIVE_META.items():
        monkeypatch.setitem(imagenet.ARCHIVE_META, key, (archive, md5.get(archive)))
    pixels = images.read(range(12))
    theirs = torchvision.datasets.ImageNet(str(root), split="val")
    assert [label for _, label in theirs.samples] == images.labels.tolist()
    assert [Path(path).name for path, _ in theirs.samples] == [name.partition("/")[2] for name in images.names]
    (root / "ILSVRC2012_img_val.tar").unlink()
    extracted = open_made(made, str(root), size=SIZE)
    assert extracted.names == images.names and extracted.classes == images.classes
    assert extracted.content_hash() == images.content_hash()
    assert np.array_equal(extracted.read(range(12)), pixels)


def test_the_training_archive_is_read_without_unpacking_its_archives(tmp_path):
    rng = np.random.default_rng(0)
    pictures = image_formats.photographs(rng, 6)
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as outer:
        for label, wnid in enumerate(("n00000002", "n00000001")):
            with tarfile.open(tmp_path / "inner.tar", "w") as inner:
                for k in range(3):
                    add(inner, f"{wnid}_{k}.JPEG", png(pictures[3 * label + k]))
            add(outer, f"{wnid}.tar", (tmp_path / "inner.tar").read_bytes())
    images = load_images(f"imagenet:{tmp_path}", "train", size=SIZE)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1] and images.classes == ("n00000001", "n00000002")
    expected = [by_torchvision(pictures[k], SIZE) for k in (3, 4, 5, 0, 1, 2)]
    assert np.array_equal(images.read(range(6)), np.stack(expected))


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("Train", "Validation"), ("training", "valid")])
def test_folders_of_splits_may_have_any_usual_name(tmp_path, train, val):
    """The folder `test` of ILSVRC has no labels: it is never used."""
    for path in (f"{train}/n00000001/1.JPEG", f"{val}/n00000001/2.JPEG", "test/n00000001/3.JPEG", "__MACOSX/x"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(png(image_formats.photographs(np.random.default_rng(0), 1)[0]))
    assert load_images(f"imagenet:{tmp_path}", "train").names == ("n00000001/1.JPEG",)
    assert load_images(f"imagenet:{tmp_path}", "test").names == ("n00000001/2.JPEG",)


def test_what_systems_leave_in_the_archives_is_passed_over(tmp_path):
    made = image_formats.make_imagenet(tmp_path / "x", np.random.default_rng(5))
    with tarfile.open(tmp_path / "x/ILSVRC2012_img_val.tar", "a") as tar:
        add(tar, "._ILSVRC2012_val_00000001.JPEG", b"x")
    assert len(open_made(made, str(tmp_path / "x"))) == 12
    with tarfile.open(tmp_path / "inner.tar", "w") as inner:
        add(inner, "n00000001_1.JPEG", png(made.pixels[0]))
        add(inner, "._n00000001_1.JPEG", b"x")
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as outer:
        add(outer, "n00000001.tar", (tmp_path / "inner.tar").read_bytes())
        add(outer, "__MACOSX/n00000001.tar", b"x")
    assert load_images(f"imagenet:{tmp_path}", "train").names == ("n00000001/n00000001_1.JPEG",)


def without(name):
    return lambda root: (root / name).unlink()


def damaged_devkit(root):
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(b"no tar"))


def flipped_devkit(place):
    """Flip a bit at a place from 0 to 1, or the next that changes the contents: some bits of deflate mean nothing."""

    def flip(root):
        path = root / "ILSVRC2012_devkit_t12.tar.gz"
        data = path.read_bytes()
        for position in range(int(place * (len(data) - 1)), len(data)):
            flipped = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
            try:
                gzip.decompress(flipped)
            except (OSError, EOFError, zlib.error):
                path.write_bytes(flipped)
                return
        raise AssertionError("no bit of the checksum was covered")

    return flip


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            without("ILSVRC2012_devkit_t12.tar.gz"),
            "ILSVRC2012_img_val.tar requires ILSVRC2012_devkit_t12.tar.gz, which has its labels",
        ),
        (without("ILSVRC2012_img_val.tar"), "must contain ILSVRC2012_img_val.tar or val/<wnid>/"),
        (damaged_devkit, "is not ImageNet's devkit, or damaged"),
        *((flipped_devkit(place / 8), "is not ImageNet's devkit, or damaged") for place in range(1, 9)),
        (
            lambda root: image_formats.write_devkit(root / "ILSVRC2012_devkit_t12.tar.gz", np.ones(11, dtype=int)),
            "must have the 11 images that the devkit labels, got 12",
        ),
    ],
)
def test_an_imagenet_that_lacks_something_is_refused(tmp_path, harm, message):
    root = tmp_path / "imagenet"
    made = image_formats.make_imagenet(root, np.random.default_rng(5))
    harm(root)
    with pytest.raises(DataError, match=message):
        open_made(made, str(root))
