"""Trees of class folders."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from netsim.errors import DataError
from netsim.images import load_images
from netsim.images.decoding import SUFFIXES
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


# ---- layouts


def tree(root: Path, *paths: str) -> str:
    """Write one photograph per path, or a file of text where it ends as none; return the reference."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(png(COLOURS) if Path(path).suffix.lower() in SUFFIXES else b"text")
    return f"folder:{root}"


def of_splits(root: Path, *splits: str) -> str:
    return tree(root, *(f"{split}/{name}/{split}.png" for split in splits for name in ("cat", "dog")))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *[("train", "test"), ("Train", "Test"), ("TRAIN", "TEST"), ("training", "testing"), ("training", "tests")],
        *[
            ("training", "validation"),
            ("train", "val"),
            ("train", "valid"),
            ("train", "dev"),
            ("Training", "Evaluation"),
        ],
    ],
)
def test_usual_names_of_splits_are_splits_and_never_classes(tmp_path, train, test):
    reference = of_splits(tmp_path, train, test)
    for split, name in (("train", train), ("test", test)):
        images = load_images(reference, split)
        assert images.classes == ("cat", "dog") and images.names == (f"cat/{name}.png", f"dog/{name}.png")
        assert images.notes == ()


def test_of_three_splits_test_is_preferred_to_validation(tmp_path):
    assert load_images(of_splits(tmp_path, "train", "val", "test")).names == ("cat/test.png", "dog/test.png")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["Test/a/1.png", "test/a/1.png", "train/a/1.png"], "must have one test split, got Test and test"),
        (["val/a/1.png", "validation/a/1.png"], "must have one test split, got val and validation"),
        (
            ["train/1.png", "bus/1.png", "car/1.png"],
            "all splits or all classes, got train beside bus, car; move",
        ),
        (["val/a/1.png", "cat/1.png"], "all splits or all classes, got val beside cat"),
        (
            ["seg_train/a/1.png", "seg_test/a/1.png"],
            "must be classes, or splits called train and test, got seg",
        ),
        (["train2017/a/1.png", "val2017/a/1.png"], "must be classes, or splits called train and test"),
        (["training_set/a/1.png", "test_set/a/1.png"], "must be classes, or splits called train and test"),
        (["train/1.png", "test/1.png"], "no images in .*test', got 1 outside of folders; write <class>/<image>"),
        (["cat/train/1.png", "cat/test/1.png", "dog/1.png"], "splits must be above classes, got 'cat/test/1.png'"),
        (["cat/Training/1.png", "dog/Training/1.png"], "splits must be above classes, got 'cat/Training/1.png'"),
        (
            ["images/train/cat/1.png", "images/val/cat/1.png"],
            "must be above classes, got 'images/train/cat/1.png'",
        ),
        (["train/a/1.png"], "must have a folder test or val or eval for the split test, got train"),
    ],
)
def test_a_layout_that_would_have_to_be_guessed_is_refused(tmp_path, paths, message):
    with pytest.raises(DataError, match=message):
        load_images(tree(tmp_path, *paths))


def test_folders_below_classes_belong_to_the_class_whatever_their_names(tmp_path):
    reference = tree(tmp_path, "cat/test/1.png", "cat/2.png", "cat/tabby/train.d/3.png", "test_tube/1.png")
    images = load_images(reference)
    assert images.classes == ("cat", "test_tube") and len(images) == 4 and images.notes == ()


def test_folders_beside_both_splits_are_passed_over_and_named(tmp_path):
    of_splits(tmp_path, "train", "test")
    reference = tree(tmp_path, "unlabelled/1.png", "annotations/1.xml", "README.md", "__MACOSX/test/cat/1.png")
    images = load_images(reference)
    assert images.classes == ("cat", "dog")
    assert images.notes == (f"passed over unlabelled, beside the splits test, train of {tmp_path}",)


# ---- files that are passed over


def test_files_that_are_not_images_are_counted_by_their_endings(tmp_path):
    reference = tree(
        tmp_path, "cat/1.png", "cat/1.txt", "cat/2.TXT", "dog/x/1.png", "dog/x/README", "5.png", "notes.txt"
    )
    images = load_images(reference)
    assert images.names == ("cat/1.png", "dog/x/1.png")
    assert images.notes == (
        f"passed over files that are not images in {tmp_path}: .txt (2), no ending (1)",
        f"passed over images outside of class folders in {tmp_path}: 1, as 5.png",
    )


def test_names_that_a_terminal_would_obey_or_cannot_print_are_escaped(tmp_path):
    """In messages and notes; a class keeps its name."""
    reference = tree(tmp_path, "a\x1b[2J\n/1.png", "b/1.png", "b/x.\x1b[2J", "\udcff.png")
    images = load_images(reference)
    assert images.classes[0] == "a\x1b[2J\n"
    assert images.notes == (
        rf"passed over files that are not images in {tmp_path}: .\x1b[2j (1)",
        rf"passed over images outside of class folders in {tmp_path}: 1, as \udcff.png",
    )
    tree(tmp_path, "c\nd\x1b[2J/x.a\nb", "c\udcff/x.a\nb")
    with pytest.raises(DataError, match=r"got only \.a\\nb \(2\) in c\\nd\\x1b\[2J, c\\udcff of "):
        load_images(reference)


def test_clutter_is_passed_over_without_a_word(tmp_path):
    clutter = ("._1.png", ".DS_Store", "Thumbs.db", "desktop.ini", "@eaDir/1.png", "__MACOSX/1.png")
    reference = tree(tmp_path, *(f"{name}/{file}" for name in ("a", "b") for file in ("1.png", *clutter)))
    tree(tmp_path, "__MACOSX/a/1.png", "@eaDir/1.png", ".ipynb_checkpoints/1.png")
    images = load_images(reference)
    assert images.classes == ("a", "b") and images.names == ("a/1.png", "b/1.png") and images.notes == ()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["fox/1.raw", "fox/2.raw"], r"classes must have images, got only .raw \(2\) in fox of .*; images end in .jpg"),
        (["labels/1.xml", "other/1.json"], r"got only .xml \(1\), .json \(1\) in labels, other of"),
    ],
)
def test_a_class_that_is_left_with_nothing_is_an_error(tmp_path, paths, message):
    with pytest.raises(DataError, match=message):
        load_images(tree(tmp_path, "cat/1.png", *paths))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images in .*/empty', got no files"):
        load_images(f"folder:{tmp_path / 'empty'}")
    with pytest.raises(DataError, match=r"no images in .*, got .txt \(1\); write"):
        load_images(tree(tmp_path / "text", "a/1.txt"))


def test_images_of_every_ending_are_listed(tmp_path):
    names = [f"a/1{ending}" for ending in SUFFIXES] + ["a/2.TIF"]
    assert set(load_images(tree(tmp_path, *names)).names) == set(names)


def test_links_that_lead_nowhere_are_named(tmp_path):
    """To what is missing, back to themselves, and below a file; a loop of folders is not followed."""
    reference = tree(tmp_path, "a/1.png", "a/2.png", "b/1.png")
    for name, target in {"l": "/nowhere", "m": "m.png", "n": "1.png/x"}.items():
        (tmp_path / "a" / f"{name}.png").symlink_to(target)
    (tmp_path / "b/loop").symlink_to("loop")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "a/empty.png").touch()
    images = load_images(reference)
    unreadable = {images.names[index]: reason for index, reason in images.inspect().unreadable.items()}
    nowhere = "a link that leads nowhere"
    assert {name: reason for name, reason in unreadable.items() if "up/" not in name} == {
        "a/l.png": nowhere,
        "a/m.png": nowhere,
        "a/n.png": nowhere,
        "a/empty.png": "empty",
    }
