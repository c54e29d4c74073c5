"""The included subset of Fashion-MNIST."""

import numpy as np
import pytest

from netsim.images import load_images
from netsim.images.formats.fashion_mnist import CLASSES, DATA, fashion_mnist


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


def test_the_size_may_be_given_if_it_is_that_of_the_images():
    assert load_images("fashion-mnist", size=28).content_hash() == load_images("fashion-mnist").content_hash()
