"""The order of classes: as listed, or with numbers as numbers."""

import numpy as np
import pytest

from netsim.images import ArrayImages, load_images
from netsim.images.classes import describe_order, in_order, natural_ranks, text_ranks
from support.image_formats import png

NAMES = tuple(map(str, range(12)))


def test_numbers_in_names_compare_as_numbers():
    assert natural_ranks(("10", "9", "b10", "b9", "a", "b")).tolist() == [1, 0, 5, 4, 2, 3]
    assert natural_ranks(NAMES).tolist() == list(range(12))
    assert natural_ranks(("n02", "n2", "n01")).tolist() == [1, 2, 0]  # equal numbers: as text
    assert natural_ranks(("-1", "1", "1.5", "²")).tolist() == [2, 0, 1, 3]


def test_names_without_numbers_are_sorted_alike():
    names = ("bee", "ant", "Zebra", "n01440764")
    assert natural_ranks(names).tolist() == text_ranks(names).tolist() == [2, 1, 0, 3]
    assert text_ranks(NAMES).tolist() == [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3]


def test_labels_follow_their_classes_into_another_order():
    pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    images = ArrayImages("x", pixels, np.array([0, 1, 2, 1]), ("1", "10", "2"))
    assert in_order(images, "listed") is images
    ordered = in_order(images, "natural")
    assert ordered.classes == ("1", "2", "10") and ordered.labels.tolist() == [0, 2, 1, 2]
    for k in range(4):
        assert ordered.classes[ordered.labels[k]] == images.classes[images.labels[k]]
    assert np.array_equal(ordered.read(range(4)), images.read(range(4)))


def test_folders_of_numbers_are_sorted_as_text_or_naturally(tmp_path, rng):
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(png(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)))
    listed = load_images(f"folder:{tmp_path}", size=8)
    natural = load_images(f"folder:{tmp_path}", size=8, class_order="natural")
    assert listed.classes == tuple(sorted(NAMES)) and natural.classes == NAMES
    assert listed.names == natural.names and natural.labels.tolist() == [
        int(name.split("/")[0]) for name in natural.names
    ]
    assert listed.content_hash() != natural.content_hash()


def of_labels(classes: tuple[str, ...], labels: np.ndarray) -> ArrayImages:
    return ArrayImages("x", np.zeros((len(labels), 1, 1, 1), np.uint8), labels, classes)


def test_an_order_of_classes_that_fits_predictions_much_better_is_named():
    """Of 12 classes sorted as text, only 0 and 1 are where a network trained on numbers has them."""
    truth = np.arange(120) % 12
    listed = of_labels(tuple(sorted(NAMES)), text_ranks(NAMES)[truth])
    (note,) = describe_order(truth, listed, "listed")
    assert "Accuracy is 16.7%, but with the classes in the order 0, 1, 2, 3 ... it would be 100.0%" in note
    assert "Set images.class_order=natural" in note
    (note,) = describe_order(text_ranks(NAMES)[truth], of_labels(NAMES, truth), "natural")
    assert "in the order 0, 1, 10, 11 ... it would be 100.0%" in note and "images.class_order=listed" in note


@pytest.mark.parametrize("order", ["listed", "natural"])
def test_an_order_that_fits_is_not_doubted(rng, order):
    truth = np.arange(1200) % 12
    assert describe_order(truth, of_labels(NAMES, truth), order) == []
    assert describe_order(rng.integers(12, size=1200), of_labels(NAMES, truth), order) == []  # chance in any order
    letters = of_labels(tuple("abcdefghijkl"), truth[::-1])
    assert describe_order(truth, letters, order) == []  # there is no other order
