"""The order of classes: as listed, or with numbers as numbers."""

import numpy as np

from netsim.images import ArrayImages, load_images
from netsim.images.classes import in_order, natural_ranks, text_ranks
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
