"""References: how images and networks are named. Imports nothing heavy, so `--help` and readers stay fast."""

import re
from dataclasses import dataclass

from netsim.errors import SettingsError, nearest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def network_name(reference: str) -> str:
    """`resnet18` for `small:resnet18`, `mine` for `mine=python:lab.models:tiny@weights.safetensors`."""
    if _is_named(reference):
        return reference.partition("=")[0]
    return reference.partition("@")[0].rpartition(":")[2]


def _is_named(reference: str) -> bool:
    """A name stands before the source: `=` before the first `:` (later ones belong to a path or a URL)."""
    return "=" in reference.partition(":")[0]


@dataclass(frozen=True)
class ImageSource:
    """A kind of image set. `loader` is `module:function` in `netsim.images.formats`."""

    form: str
    description: str
    loader: str
    photographs: bool = True  # encoded files of any size, which are scaled and cropped, and may be unreadable

    @property
    def kind(self) -> str:
        return self.form.partition(":")[0]

    @property
    def takes_a_place(self) -> bool:
        return ":" in self.form


IMAGE_SOURCES = {
    source.kind: source
    for source in (
        ImageSource(
            "fashion-mnist",
            "5000 + 2000 grey images of 28 pixels that come with netsim",
            "fashion_mnist:load",
            photographs=False,
        ),
        ImageSource("folder:PATH", "photographs, one folder a class, as ImageFolder has them", "folder:load"),
        ImageSource(
            "imagenet:FOLDER", "the ILSVRC 2012 archives with their devkit, or train/ and val/", "imagenet:load"
        ),
        ImageSource("cifar10:FOLDER", "the binary version of CIFAR-10", "cifar:load_cifar10", photographs=False),
        ImageSource("cifar100:FOLDER", "the binary version of CIFAR-100", "cifar:load_cifar100", photographs=False),
        ImageSource("npz:FILE", "a NumPy archive of uint8 images and their labels", "npz:load", photographs=False),
        ImageSource("tar:PATTERN", "WebDataset shards, as in shard-{000000..000099}.tar", "tar:load"),
        ImageSource("hf:FOLDER", "a Hugging Face dataset: save_to_disk or Parquet", "huggingface:load"),
    )
}
"""By kind. Every FOLDER, FILE and PATTERN is a path or a URL as in s3://bucket/images."""


IMAGE_FORMS = ", ".join(source.form for source in IMAGE_SOURCES.values())


IMAGE_SOURCES_HELP = "; ".join(f"`{source.form}`: {source.description}" for source in IMAGE_SOURCES.values())
"""For the form of the UI."""


def parse_image_source(reference: str) -> tuple[ImageSource, str]:
    """`folder:photos` -> what reads it, and `photos`. Raises SettingsError for what no source is written like."""
    kind, colon, place = reference.partition(":")
    source = IMAGE_SOURCES.get(kind)
    if source is None:
        raise SettingsError(f"no image set {reference!r}{nearest(kind, IMAGE_SOURCES)}; sources are {IMAGE_FORMS}")
    if source.takes_a_place and not place:
        raise SettingsError(f"image set {reference!r} names no place: write {source.form!r}")
    if colon and not source.takes_a_place:
        raise SettingsError(f"image set {reference!r}: nothing follows {kind!r}, it comes with netsim")
    return source, place


def has_photographs(reference: str) -> bool:
    """Whether the images are decoded one by one, so that some may be unreadable."""
    return reference.partition(":")[0] in IMAGE_SOURCES and parse_image_source(reference)[0].photographs


NETWORK_FORMS = {
    "torchvision": (
        "torchvision:NAME[@WEIGHTS|@none|@FILE]",
        "any of torchvision's classifiers, or wide_resnet50_4; WEIGHTS as in IMAGENET1K_V1",
    ),
    "timm": ("timm:NAME[@TAG|@none|@FILE]", "any of timm's classifiers; TAG as in a1_in1k"),
    "robust": ("robust:ARCH_NORM_epsE", "one of the robust ImageNet networks of Salman et al. 2020, once converted"),
    "robustness": (
        "robustness:DATASET:ARCH@FILE",
        "a network of the robustness library, from a converted checkpoint (or @none)",
    ),
    "small": ("small:NAME[@none|@FILE]", "one of nine small networks for 28x28 grey images, which a run trains"),
    "python": (
        "python:MODULE:FUNCTION[@FILE]",
        "what a function of yours returns: a classifier of images in [0, 1], or an AttackerModel",
    ),
}
"""How a reference is written, and what it names. none: random weights; FILE: safetensors, a path or a URL."""
