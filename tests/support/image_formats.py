"""Small image sets in every format, written by the field's own tools where there are any, and helpers to test them."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from datasets.utils import logging as datasets_logging
from PIL import Image
from torchvision.transforms import v2

from netsim.images import ImageSet, load_images
from netsim.references import IMAGE_SOURCES

datasets_logging.disable_progress_bar()

CLASSES = ("ant", "bee", "cat")
WNIDS = {"ant": "n00000003", "bee": "n00000001", "cat": "n00000002"}


@dataclass(frozen=True)
class Made:
    """An image set on disk, and what reading it must give.

    Attributes
    ----------
    reference : str
        Its reference, with ROOT for the folder.
    pixels : list of arrays (H, W) or (H, W, 3) of uint8
        The images in order.
    labels : list of int
        Their labels.
    classes : tuple of str
        Names of the classes.
    """

    reference: str
    pixels: list[np.ndarray]
    labels: list[int]
    classes: tuple[str, ...]


def open_made(made: Made, root: str, **options: object) -> ImageSet:
    """Open an image set that lies in a folder or below a URL."""
    return load_images(made.reference.replace("ROOT", root), **options)


def by_torchvision(pixels: np.ndarray, size: int) -> np.ndarray:
    """Scale and crop an image (H, W) or (H, W, 3) with torchvision; return (C, size, size)."""
    transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    cropped: torch.Tensor = transform(Image.fromarray(pixels))
    return cropped.numpy()


def truncate(path: Path, size: int) -> None:
    """Cut a file off after `size` bytes."""
    path.write_bytes(path.read_bytes()[:size])


def flip_bit(path: Path, position: int) -> None:
    """Flip the lowest bit of a byte."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def photographs(rng: np.random.Generator, count: int = 12) -> list[np.ndarray]:
    """Return smooth images of several sizes."""
    images = []
    for _ in range(count):
        width, height = rng.integers(20, 50, size=2)
        small = Image.fromarray(rng.integers(256, size=(5, 5, 3), dtype=np.uint8))
        images.append(np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)))
    return images


def png(pixels: np.ndarray) -> bytes:
    """Return pixels as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar file."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def make_folder(root: Path, rng: np.random.Generator) -> Made:
    """Write a tree of class folders."""
    images = photographs(rng)
    for place, pixels in enumerate(images):
        path = root / "test" / CLASSES[place // 4] / f"{place % 4}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))
    return Made("folder:ROOT", images, [place // 4 for place in range(12)], CLASSES)


def make_tar(root: Path, rng: np.random.Generator) -> Made:
    """Write two WebDataset shards, with names long enough for a second header, and files of other extensions."""
    root.mkdir(parents=True)
    images = photographs(rng)
    for shard in range(2):
        with tarfile.open(root / f"shard-{shard:03d}.tar", "w") as tar:
            for place in range(6 * shard, 6 * shard + 6):
                key = f"{'x' * 120}/{place:06d}"
                add(tar, f"{key}.cls", f"{place % 3}\n".encode())
                add(tar, f"{key}.seg.png", b"another image")
                add(tar, f"{key}.jpg", png(images[place]))  # as some images of ImageNet
                add(tar, f"{key}.json", json.dumps({"place": place}).encode())
    return Made("tar:ROOT/shard-{000..001}.tar", images, [place % 3 for place in range(12)], ("0", "1", "2"))


def make_imagenet(root: Path, rng: np.random.Generator) -> Made:
    """Write the validation archive and its devkit. Wnids are not in the order of numbers; one synset is not a leaf."""
    root.mkdir(parents=True)
    images = photographs(rng)
    numbers = rng.permutation(np.repeat([1, 2, 3], 4))
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as tar:
        for place in rng.permutation(12):
            add(tar, f"ILSVRC2012_val_{place + 1:08d}.JPEG", png(images[place]))
    write_devkit(root / "ILSVRC2012_devkit_t12.tar.gz", numbers)
    wnids = [list(WNIDS.values())[number - 1] for number in numbers]
    order = sorted(range(12), key=lambda place: (wnids[place], place))
    names = {wnid: f"{name} ({wnid})" for name, wnid in WNIDS.items()}
    return Made(
        "imagenet:ROOT",
        [images[place] for place in order],
        [sorted(names).index(wnids[place]) for place in order],
        tuple(names[wnid] for wnid in sorted(names)),
    )


def write_devkit(path: Path, numbers: np.ndarray) -> None:
    """Write ImageNet's devkit with the numbers (1 to 3) of the validation images."""
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height"]
    fields += ["num_train_images"]
    synsets = np.zeros((4, 1), dtype=[(field, object) for field in fields])
    leaves = [(number + 1, wnid, f"{name}, other word") for number, (name, wnid) in enumerate(WNIDS.items())]
    for place, (number, wnid, words) in enumerate([*leaves, (4, "n00000000", "animal")]):
        children = np.array([1.0, 2.0, 3.0]) if number == 4 else np.zeros((1, 0))
        synsets[place, 0] = (float(number), wnid, words, "gloss", float(3 * (number == 4)), children, 0.0, 1300.0)
    mat = io.BytesIO()
    scipy.io.savemat(mat, {"synsets": synsets})
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "ILSVRC2012_devkit_t12/data/meta.mat", mat.getvalue())
        truth = "".join(f"{number}\n" for number in numbers).encode()
        add(tar, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth)


def make_cifar10(root: Path, rng: np.random.Generator) -> Made:
    """Write the binary version of CIFAR-10, with three classes, in the folder of its archive."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    names = ("airplane", "automobile", "bird")
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    pixels, labels = rng.integers(256, size=(12, 32, 32, 3), dtype=np.uint8), rng.integers(3, size=12)
    write_records(folder / "test_batch.bin", pixels, labels[:, None])
    return Made("cifar10:ROOT", list(pixels), labels.tolist(), names)


def make_cifar100(root: Path, rng: np.random.Generator) -> Made:
    """Write the binary version of CIFAR-100, without the folder of its archive."""
    root.mkdir(parents=True)
    (root / "fine_label_names.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "coarse_label_names.txt").write_text("animals\n")
    pixels, labels = rng.integers(256, size=(12, 32, 32, 3), dtype=np.uint8), rng.integers(3, size=12)
    write_records(root / "test.bin", pixels, np.stack([0 * labels, labels], axis=1))
    return Made("cifar100:ROOT", list(pixels), labels.tolist(), CLASSES)


def write_records(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Write pixels (n, 32, 32, 3) and labels (n, bytes) as records of CIFAR."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    path.write_bytes(np.concatenate([labels.astype(np.uint8), planes], axis=1).tobytes())


def make_npz(root: Path, rng: np.random.Generator) -> Made:
    """Write an archive as np.savez does, with names of classes."""
    root.mkdir(parents=True)
    pixels, labels = rng.integers(256, size=(12, 9, 11, 3), dtype=np.uint8), rng.integers(3, size=12)
    np.savez(root / "some.npz", images=pixels, labels=labels, classes=np.array(CLASSES))
    return Made("npz:ROOT/some.npz", list(pixels), labels.tolist(), CLASSES)


def make_npz_grey(root: Path, rng: np.random.Generator) -> Made:
    """Write a compressed archive of greyscale images by split, with labels as a column, as MedMNIST does."""
    root.mkdir(parents=True)
    pixels, labels = rng.integers(256, size=(12, 9, 9), dtype=np.uint8), np.arange(12) % 3
    np.savez_compressed(root / "grey.npz", test_images=pixels, test_labels=labels[:, None].astype(np.uint8))
    return Made("npz:ROOT/grey.npz", list(pixels), labels.tolist(), ("0", "1", "2"))


def dataset(images: list[np.ndarray], labels: list[int]) -> Dataset:
    """Return a dataset with a column before and one between images and labels, both with missing values."""
    features = Features(
        {
            "words": Features({"a": Value("string"), "b": [Value("float32")]}),
            "image": ImageFeature(),
            "note": Value("string"),
            "label": ClassLabel(names=list(CLASSES)),
        }
    )
    n = len(labels)
    columns = {
        "words": [{"a": None if k % 5 else "x" * k, "b": [0.5] * k} for k in range(n)],
        "image": [Image.fromarray(pixels) for pixels in images],
        "note": [None if k % 2 else "note" for k in range(n)],
        "label": labels,
    }
    return Dataset.from_dict(columns, features=features)


def make_hf_arrow(root: Path, rng: np.random.Generator) -> Made:
    """Write a dict of splits with save_to_disk; the split test is called validation and has two files."""
    images, labels = photographs(rng), rng.integers(3, size=12).tolist()
    splits = {"train": dataset(images[:2], labels[:2]), "validation": dataset(images, labels)}
    DatasetDict(splits).save_to_disk(root, num_shards={"train": 1, "validation": 2})
    return Made("hf:ROOT", images, labels, CLASSES)


def make_hf_parquet(root: Path, rng: np.random.Generator) -> Made:
    """Write two Parquet files, named as on the Hub."""
    images, labels = photographs(rng), rng.integers(3, size=12).tolist()
    (root / "data").mkdir(parents=True)
    made = dataset(images, labels)
    for part in range(2):
        some = made.select(range(6 * part, 6 * part + 6))
        some.to_parquet(root / "data" / f"test-{part:05d}-of-00002.parquet", batch_size=4)  # rows of a row group
    return Made("hf:ROOT", images, labels, CLASSES)


# Function that writes a set, by name of the format.
FORMATS: dict[str, Callable[[Path, np.random.Generator], Made]] = {
    "folder": make_folder,
    "imagenet": make_imagenet,
    "tar": make_tar,
    "hf_arrow": make_hf_arrow,
    "hf_parquet": make_hf_parquet,
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "npz": make_npz,
    "npz_grey": make_npz_grey,
}

# Formats with encoded files.
PHOTOGRAPHS = [name for name in FORMATS if IMAGE_SOURCES[name.partition("_")[0]].photographs]
