"""Names of files and folders: clutter, images, and splits."""

import pytest
from PIL import Image

from netsim.errors import DataError
from netsim.images.decoding import FORMATS, SUFFIXES
from netsim.images.names import (
    SPLITS,
    choose_name,
    choose_split,
    count_endings,
    is_clutter,
    is_image,
    resembles_split,
    spell_split,
    split_in,
    split_of,
)


@pytest.mark.parametrize(
    "path",
    [
        *("._000.jpg", "a/._000.jpg", ".DS_Store", "./a/.DS_Store", "__MACOSX/a/000.jpg", "__MACOSX", "a/Thumbs.db"),
        *("desktop.ini", "Desktop.ini", "@eaDir/x.jpg", ".ipynb_checkpoints/x.png", "$RECYCLE.BIN/x.jpg", "Icon\r"),
    ],
)
def test_what_systems_leave_behind_is_clutter(path):
    assert is_clutter(path) and not is_image(path)


@pytest.mark.parametrize("path", ["./000.jpg", "a/../b.jpg", "a.b/c.d.jpg", "MACOSX/x.jpg", "thumbs/x.jpg"])
def test_other_paths_are_not_clutter(path):
    """Tar files that are made in the folder itself have paths that begin with a dot and a slash."""
    assert not is_clutter(path) and is_image(path)


def test_endings_of_images_are_those_that_pillow_registers_for_their_formats():
    registered = Image.registered_extensions()
    assert set(SUFFIXES) == {ending for ending, name in registered.items() if name in FORMATS}
    for ending in (".TIF", ".jfif", ".JPE", ".ppm", ".avif", ".JPEG"):
        assert is_image(f"a/b{ending}")
    for ending in (".pdf", ".eps", ".h5", ".mpg", ".txt", ".tga", ""):
        assert not is_image(f"a/b{ending}")


def test_endings_are_counted_and_rare_ones_summed_up():
    paths = [f"{k}.txt" for k in range(3)] + ["x.csv", "y.CSV", "a.b/README"] + [f"z.{k}" for k in range(4)]
    assert count_endings(paths) == ".txt (3), .csv (2), no ending (1), .0 (1), .1 (1), others (2)"
    assert count_endings([]) == ""


def test_names_of_splits_are_those_of_huggingface_in_any_case():
    from datasets.data_files import SPLIT_KEYWORDS

    for split, keywords in SPLIT_KEYWORDS.items():
        expected = "train" if str(split) == "train" else "test"
        assert all(split_of(word) == split_of(word.upper()) == split_of(word.title()) == expected for word in keywords)
    assert split_of("tests") == "test" and split_of("cat") is split_of("train_set") is split_of("") is None
    names = [name for groups in SPLITS.values() for group in groups for name in group]
    assert len(set(names)) == len(names) and all(name == name.casefold() for name in names)


def test_the_split_of_a_file_is_the_first_word_that_names_one():
    assert split_in("imagenet-train-000.tar") == "train" and split_in("Val_0.test.tar") == "Val"
    assert split_in("attest-training2.tar") is None


def test_names_that_contain_a_split_resemble_one():
    assert all(
        map(resembles_split, ("seg_train", "TestImages", "train2017", "trainset", "training_set", "my-dev", "VAL"))
    )
    assert not any(map(resembles_split, ("contest", "strain", "cat", "device", "evaluator", "12", "")))


def test_test_data_are_preferred_to_validation_data():
    assert choose_split("test", ["val", "train", "Testing"], "x") == "Testing"
    assert choose_split("test", ["train", "eval", "dev"], "x") == "dev"
    assert choose_split("train", ["train", "test"], "x") == "train" and choose_split("train", ["test"], "x") is None
    assert spell_split("test") == "test or val or eval"


def test_two_names_that_are_equally_preferred_are_refused():
    with pytest.raises(
        DataError, match=r"^x must have one test split, got val and Validation; rename or remove all but one$"
    ):
        choose_split("test", ["val", "train", "Validation"], "x")
    with pytest.raises(DataError, match=r"^one, got Test and test; choose$"):
        choose_name([("test",)], ["Test", "test"], "one", hint="choose")
    assert choose_name([("Test",)], ["Test", "test"], "one", hint="choose") == "Test"  # as an option spells it
