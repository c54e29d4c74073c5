"""References: how a sweep names its images and its networks.

Images are `kind` or `kind:path`, networks are `[name=]source:name[@weights]`. Weights are a name, or a path or URL of a
file, behind which `#key` may choose what is in it. In a settings file, paths start from its folder. This module only
knows the grammar; readers are in `netsim.images.formats`, builders in `netsim.networks.sources`. It imports nothing
heavy, so `netsim --help` and programs that only read a store start fast.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from netsim.errors import SettingsError, closest, nearest

# A valid network name: it becomes the name of a file.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ImageSource:
    """One kind of image set.

    Attributes
    ----------
    form
        How a reference of this kind is written, as in ``folder:PATH``.
    description
        One line for help texts and the form of the UI.
    loader
        The function that reads it, as ``module:function`` in `netsim.images.formats`.
    photographs
        True for encoded files of any size, which are scaled and cropped, and of which some may be unreadable.
    """

    form: str
    description: str
    loader: str
    photographs: bool = True

    @property
    def kind(self) -> str:
        """The word before the colon."""
        return self.form.partition(":")[0]

    @property
    def requires_path(self) -> bool:
        """True if a path or URL follows the kind."""
        return ":" in self.form


# Image sources by kind. Every FOLDER, FILE, PATH and PATTERN is a path, or a URL as in s3://bucket/images.
IMAGE_SOURCES = {
    source.kind: source
    for source in (
        ImageSource(
            "fashion-mnist",
            "5000 training and 2000 test images, greyscale, 28x28, included in netsim",
            "fashion_mnist:load",
            photographs=False,
        ),
        ImageSource("folder:PATH", "photographs, one folder per class, as for ImageFolder", "folder:load"),
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

# The list of forms in error messages.
IMAGE_FORMS = ", ".join(source.form for source in IMAGE_SOURCES.values())

# The list of forms with their descriptions in the form of the UI.
IMAGE_SOURCES_HELP = "; ".join(f"`{source.form}`: {source.description}" for source in IMAGE_SOURCES.values())

# Network sources: form and description. none: random weights; FILE: a path or a URL, with or without #KEY.
NETWORK_FORMS = {
    "torchvision": (
        "torchvision:NAME[@WEIGHTS|@none|@FILE]",
        "any torchvision classifier, or wide_resnet50_4; WEIGHTS as in IMAGENET1K_V1",
    ),
    "timm": ("timm:NAME[@TAG|@none|@FILE]", "any timm classifier; TAG as in a1_in1k"),
    "robust": (
        "robust:ARCH_NORM_epsE",
        "a robust ImageNet network of Salman et al. 2020, from a checkpoint converted by `netsim convert`",
    ),
    "robustness": (
        "robustness:DATASET:ARCH@FILE",
        "a network of the robustness library, from a checkpoint (or @none)",
    ),
    "small": ("small:NAME[@none|@FILE]", "one of nine small networks for 28x28 grey images, trained by the run"),
    "small32": ("small32:NAME[@none|@FILE]", "the same for 32x32 colour images, such as CIFAR-10"),
    "python": (
        "python:MODULE:FUNCTION[@FILE]",
        "the return value of a function: a classifier of images in [0, 1], or an AttackerModel",
    ),
}

# Network sources without weights.
TRAINED_SOURCES = ("small", "small32")

# Network sources whose weights have names.
PUBLISHED_SOURCES = ("torchvision", "timm")

# The file and the key in FILE#KEY. A # elsewhere belongs to the file's name.
_KEY = re.compile(r"(.*\.(?:pt|pth|ckpt|bin|tar|safetensors))#(.*)", re.DOTALL)

# What is no relative path: a path from the root or from a home directory, and a URL.
_ABSOLUTE = re.compile(r"[/~]|[A-Za-z][A-Za-z0-9+.-]*:[/\\]")


def parse_image_source(reference: str) -> tuple[ImageSource, str]:
    """Split an image reference into its source and its path, which is empty for images that come with netsim.

    Raises
    ------
    SettingsError
        For an unknown kind, a missing path, or a path after a kind that takes none.

    Examples
    --------
    >>> source, path = parse_image_source("folder:s3://bucket/photos")
    >>> source.kind, path
    ('folder', 's3://bucket/photos')
    """
    kind, colon, path = reference.partition(":")
    source = IMAGE_SOURCES.get(kind)
    if source is None:
        raise SettingsError(_no_image_source(reference))
    if source.requires_path and not path:
        raise SettingsError(f"image source {reference!r} requires a path: write {source.form!r}")
    if colon and not source.requires_path:
        raise SettingsError(f"image source {kind!r} takes no path, got {reference!r}")
    return source, path


def _no_image_source(reference: str) -> str:
    """Return the error message about an unknown kind of images: perhaps a path was given without its kind."""
    kind, colon, _ = reference.partition(":")
    if closest(kind, IMAGE_SOURCES) or (colon and "/" not in kind):
        return f"no image source {reference!r}{nearest(kind, IMAGE_SOURCES)}; sources are {IMAGE_FORMS}"
    suffix = os.path.splitext(reference)[1].removeprefix(".")
    meant = suffix if suffix in ("npz", "tar") else "folder"
    return f"no image source {reference!r}; did you mean '{meant}:{reference}'? Sources are {IMAGE_FORMS}"


def has_photographs(reference: str) -> bool:
    """Return True if the images are decoded one by one, so that some may be unreadable."""
    return reference.partition(":")[0] in IMAGE_SOURCES and parse_image_source(reference)[0].photographs


def is_trained_here(reference: str) -> bool:
    """Return True if a run trains the network: its source has no weights, and the reference names none.

    Examples
    --------
    >>> is_trained_here("small:vgg"), is_trained_here("small:vgg@none")
    (True, False)
    """
    return reference.partition(":")[0] in TRAINED_SOURCES and "@" not in reference


def network_name(reference: str) -> str:
    """Return the name of a network in its run: the given one, or else that of its architecture or function.

    Examples
    --------
    >>> network_name("small:resnet18")
    'resnet18'
    >>> network_name("mine=python:lab.models:tiny@weights.safetensors")
    'mine'
    """
    if _has_name(reference):
        return reference.partition("=")[0]
    return reference.partition("@")[0].rpartition(":")[2]


def without_name(reference: str) -> str:
    """Return a network reference without its `name=`.

    Examples
    --------
    >>> without_name("mine=small:resnet18")
    'small:resnet18'
    """
    return reference.partition("=")[2] if _has_name(reference) else reference


def _has_name(reference: str) -> bool:
    """Return True if `name=` comes before the source. An `=` after the first `:` belongs to a path or a URL."""
    return "=" in reference.partition(":")[0]


def split_key(file: str) -> tuple[str, str | None]:
    """Split FILE#KEY into the file and the key, which is None without a #.

    Examples
    --------
    >>> split_key("runs/last.ckpt#state_dict.model")
    ('runs/last.ckpt', 'state_dict.model')
    >>> split_key("run#3/last.ckpt")
    ('run#3/last.ckpt', None)
    """
    match = _KEY.fullmatch(file)
    return (match[1], match[2]) if match else (file, None)


def split_folder(name: str) -> tuple[str | None, str]:
    """Split the FOLDER/MODULE:FUNCTION of a `python:` reference at its last slash.

    Examples
    --------
    >>> split_folder("/home/me%40lab/project/my_nets:large")
    ('/home/me@lab/project', 'my_nets:large')
    >>> split_folder("my_nets:large")
    (None, 'my_nets:large')
    """
    folder, slash, rest = name.rpartition("/")
    return (unquote(folder) or "/", rest) if slash else (None, name)


def module_file(folder: str, module: str) -> str | None:
    """Return the file of a module that is in a folder, or None."""
    base = os.path.join(os.path.abspath(os.path.expanduser(folder)), *module.split("."))
    candidates = (f"{base}.py", os.path.join(base, "__init__.py"))
    return next((file for file in candidates if os.path.isfile(file)), None)


def with_absolute_paths(reference: str, folder: str) -> str:
    """Return a network reference in which paths that start from `folder` are absolute.

    A module of a `python:` reference that is in `folder` is named with it: other processes, wherever they work, find
    the same one.

    Examples
    --------
    >>> with_absolute_paths("mine=torchvision:resnet50@weights/mine.pt#model", "/home/me")
    'mine=torchvision:resnet50@/home/me/weights/mine.pt#model'
    >>> with_absolute_paths("torchvision:resnet50@IMAGENET1K_V1", "/home/me")
    'torchvision:resnet50@IMAGENET1K_V1'
    """
    given = without_name(reference)
    source, colon, rest = given.partition(":")
    name, at, weights = rest.partition("@")
    if source == "python":
        name = _with_folder(name, folder)
    published = source in PUBLISHED_SOURCES and re.fullmatch(r"[\w{}]+", weights)  # braces: filled by a grid
    if weights and weights != "none" and not published:
        weights = absolute_path(weights, folder)
    return f"{reference.removesuffix(given)}{source}{colon}{name}{at}{weights}"


def _with_folder(name: str, folder: str) -> str:
    """Return the FOLDER/MODULE:FUNCTION of a module in `folder`, in which a % or @ of the folder is encoded."""
    given, rest = split_folder(name)
    if given is None and not module_file(folder, rest.partition(":")[0]):
        return name
    path = folder if given is None else absolute_path(given, folder)
    return f"{path.replace('%', '%25').replace('@', '%40').rstrip('/')}/{rest}"


def absolute_path(path: str, folder: str) -> str:
    """Return a path that starts from `folder` as an absolute one; URLs and paths from a home directory as they are.

    Examples
    --------
    >>> absolute_path("photos", "/home/me"), absolute_path("s3://bucket/photos", "/home/me")
    ('/home/me/photos', 's3://bucket/photos')
    """
    return path if _ABSOLUTE.match(path) else os.path.join(folder, path.removeprefix("./"))


def images_with_absolute_path(reference: str, folder: str) -> str:
    """Return an image reference whose path, if it starts from `folder`, is absolute.

    Examples
    --------
    >>> images_with_absolute_path("folder:photos", "/home/me"), images_with_absolute_path("fashion-mnist", "/home/me")
    ('folder:/home/me/photos', 'fashion-mnist')
    """
    kind, colon, path = reference.partition(":")
    return f"{kind}:{absolute_path(path, folder)}" if colon and path and kind in IMAGE_SOURCES else reference
