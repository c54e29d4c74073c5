"""CIFAR-10 and CIFAR-100."""

import numpy as np
import pytest

from netsim.errors import DataError
from netsim.images import load_images
from support import image_formats
from support.image_formats import truncate


@pytest.mark.parametrize(("kind", "pickled"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_the_pickled_version_of_cifar_is_refused_with_the_way_out(tmp_path, kind, pickled):
    (tmp_path / pickled).mkdir()
    (tmp_path / pickled / "x").write_bytes(b"cos\nsystem\n")
    with pytest.raises(DataError, match="whose pickles can run any code; download the binary version"):
        load_images(f"{kind}:{tmp_path}")


def test_training_images_of_cifar_are_those_of_five_files(tmp_path):
    image_formats.make_cifar10(tmp_path, np.random.default_rng(0))
    for k in range(1, 6):
        pixels = np.full((2, 32, 32, 3), k, dtype=np.uint8)
        image_formats.write_records(
            tmp_path / "cifar-10-batches-bin" / f"data_batch_{k}.bin", pixels, np.array([[0], [1]])
        )
    images = load_images(f"cifar10:{tmp_path}", "train")
    assert images.read(range(10))[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: truncate(folder / "test_batch.bin", 5000), "must be a multiple of 3073 bytes, got 5000"),
        (lambda folder: truncate(folder / "batches.meta.txt", 8), "labels must be indices into the 1 classes"),
        (
            lambda folder: (folder / "test_batch.bin").unlink(),
            "lacks test_batch.bin; it must contain the binary version",
        ),
    ],
)
def test_a_cifar_that_is_not_whole_is_refused(tmp_path, harm, message):
    image_formats.make_cifar10(tmp_path, np.random.default_rng(0))
    harm(tmp_path / "cifar-10-batches-bin")
    with pytest.raises(DataError, match=message):
        load_images(f"cifar10:{tmp_path}")
