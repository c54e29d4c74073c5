"""WebDataset shards: patterns, samples, and damaged tar files."""

import gzip
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from netsim.errors import DataError, SettingsError
from netsim.images import load_images
from netsim.images.formats.tar import braces
from support.image_formats import add, flip_bit, png, truncate

COLOURS = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{x,y}-{0..1}.tar", ["x-0.tar", "x-1.tar", "y-0.tar", "y-1.tar"]),
        ("{x-{0..1},{y,z}-{8..9}}.tar", ["x-0.tar", "x-1.tar", "y-8.tar", "y-9.tar", "z-8.tar", "z-9.tar"]),
        ("a-{08..012..2}.tar", ["a-008.tar", "a-010.tar", "a-012.tar"]),
        (r"a\{0,1}.tar", [r"a\0.tar", r"a\1.tar"]),
    ],
)
def test_braces_mean_what_they_mean_in_a_shell(pattern, paths):
    """Except that a backslash is a character of a path."""
    assert braces(pattern) == paths


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a-{0..}.tar", "braces must be {000..099} or {a,b}, got 'a-{0..}.tar'"),
        ("a-{9..0}.tar", "ranges must count up, got 9..0 in 'a-{9..0}.tar'"),
        ("a-{0..3.tar", "braces must be balanced, got 'a-{0..3.tar'"),
        ("a-{5}.tar", "braces must be {000..099} or {a,b}, got 'a-{5}.tar'"),
        ("a}{.tar", "braces must be {000..099} or {a,b}, got 'a}{.tar'"),
        ("{a,{0..3}.tar", "braces must be balanced, got '{a,{0..3}.tar'"),
        ("{a,{a,b}}.tar", "paths must be unique, got a.tar twice from '{a,{a,b}}.tar'"),
    ],
)
def test_a_pattern_that_cannot_be_expanded_or_repeats_a_path_is_refused(pattern, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        braces(pattern)


def test_shards_in_folders_are_splits(tmp_path):
    for split, label in (("train", b"1"), ("val", b"0")):
        (tmp_path / split).mkdir()
        with tarfile.open(tmp_path / split / "0.tar", "w") as tar:
            add(tar, "a.cls", label)
            add(tar, "a.png", png(COLOURS))
    assert load_images(f"tar:{tmp_path}", "train").labels.tolist() == [1]
    assert load_images(f"tar:{tmp_path}", "test").labels.tolist() == [0]


@pytest.mark.parametrize(("train", "test"), [("Training", "Validation"), ("train", "dev"), ("TRAIN", "Test")])
def test_folders_of_shards_may_have_any_usual_name(tmp_path, train, test):
    for name, label in ((train, b"1"), (test, b"0")):
        (tmp_path / name).mkdir()
        one_shard(tmp_path / name / "0.tar", cls=label, png=png(COLOURS))
        (tmp_path / name / "._0.tar").write_bytes(b"x")
    assert load_images(f"tar:{tmp_path}", "train").labels.tolist() == [1]
    assert load_images(f"tar:{tmp_path}", "test").labels.tolist() == [0]


def test_shards_of_several_splits_in_one_folder_are_told_apart_by_their_names(tmp_path):
    for name, label in {"x-train-000": b"1", "x-train-001": b"1", "x-val-000": b"0"}.items():
        one_shard(tmp_path / f"{name}.tar", cls=label, png=png(COLOURS))
    assert load_images(f"tar:{tmp_path}", "train").labels.tolist() == [1, 1]
    assert load_images(f"tar:{tmp_path}", "test").labels.tolist() == [0]
    assert load_images(f"tar:{tmp_path}/x-{{train-000,val-000}}.tar").labels.tolist() == [1, 0]  # as it says
    one_shard(tmp_path / "other.tar", cls=b"0", png=png(COLOURS))
    with pytest.raises(DataError, match=r"must all have a split or none, got other.tar without one; give a pattern"):
        load_images(f"tar:{tmp_path}")


def test_shards_without_splits_in_their_names_serve_both(tmp_path):
    for name in ("a-train-0", "a-train-1"):
        one_shard(tmp_path / f"{name}.tar", cls=b"1", png=png(COLOURS))
    for split in ("train", "test"):
        assert len(load_images(f"tar:{tmp_path}", split)) == 2
    one_shard(tmp_path / "a-training-2.tar", cls=b"1", png=png(COLOURS))
    with pytest.raises(DataError, match=r"must include test or val or eval, got a-train-0.tar"):
        load_images(f"tar:{tmp_path}")
    with pytest.raises(DataError, match="must have one train split, got train and training"):
        load_images(f"tar:{tmp_path}", "train")


def test_what_systems_leave_in_a_shard_is_passed_over(tmp_path):
    """As by tar on macOS, which also begins paths with a dot and a slash."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("./._000.jpg", "./.DS_Store", "__MACOSX/._000.jpg", "./Thumbs.db", "./._000.cls"):
            add(tar, name, b"x")
        add(tar, "./000.jpg", png(COLOURS))
        add(tar, "./000.cls", b"3")
    images = load_images(f"tar:{tmp_path / 'a.tar'}")
    assert images.labels.tolist() == [3] and images.names == ("a.tar/./000.jpg",)


@pytest.mark.parametrize("ending", ["tif", "bmp", "ppm", "jfif", "gif"])
def test_images_of_a_shard_may_have_any_ending_of_images(tmp_path, ending):
    one_shard(tmp_path / "a.tar", cls=b"1", **{ending: png(COLOURS)})
    assert load_images(f"tar:{tmp_path / 'a.tar'}", size=16).read([0]).shape == (1, 3, 16, 16)


def one_shard(path: Path, **members: bytes) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            add(tar, f"0.{name}", data)


def holed(path: Path) -> None:
    """As a download leaves it that was begun with its full size: a hole, behind which members may be whole."""
    one_shard(path, cls=b"1", png=b"x" * 600, txt=b"x" * 200_000)
    data = bytearray(path.read_bytes())
    data[2560:100_000] = bytes(100_000 - 2560)
    path.write_bytes(data)


def same_twice(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            add(tar, "0.cls", b"1")
            add(tar, "0.png", png(COLOURS))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: one_shard(path, png=b"x"), r"sample '/0' in .* must have one image .* and .cls, got .png"),
        (lambda path: one_shard(path, cls=b"3"), r"must have one image .* and .cls, got .cls"),
        (
            lambda path: one_shard(path, cls=b"dog", png=b"x"),
            r"0\.cls must hold a class as a whole number from 0 on, got b'dog'",
        ),
        (same_twice, r"names in a shard must be unique, got 0\.cls twice"),
        (
            lambda path: one_shard(path, **{"a\nb\udcff\x1b[2J.cls": b"1", "png": b"x"}),
            r"must have one image .* and \.cls, got \.a\\nb\\udcff\\x1b\[2j\.cls, \.png",
        ),
        (lambda path: one_shard(path, **{"a\nb.cls": b"1"}, **{"a\nb.CLS": b"1"}), r"got 0\.a\\nb\.CLS twice"),
        (holed, "damaged at byte 2560"),
        (lambda path: truncate(path, 1024), "damaged at byte 1024"),  # between two members
        (lambda path: truncate(path, 2000), "damaged"),
        (lambda path: flip_bit(path, 1024 + 100), "damaged at byte 1024"),
        (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "is damaged, compressed, or not a tar file"),
        (lambda path: path.unlink(), "no tar file"),
        (lambda path: path.write_bytes(b""), "is damaged, compressed, or not a tar file"),
    ],
)
def test_a_tar_file_that_is_harmed_is_never_taken_for_a_shorter_one(tmp_path, harm, message):
    path = tmp_path / "a.tar"
    one_shard(path, cls=b"1", png=b"x" * 600, txt=b"text")
    harm(path)
    with pytest.raises(DataError, match=message):
        load_images(f"tar:{path}")
