"""Load networks by reference, `source:name[@weights]`. `netsim.references` lists the sources."""

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from shlex import quote
from typing import NamedTuple

import torch
from torch import Tensor

from netsim.errors import NetworkError, SettingsError, closest, nearest
from netsim.networks import gate
from netsim.networks.ambient import plain_torch
from netsim.networks.behaviour import represent_two
from netsim.networks.checkpoint import FoundWeights, find_weights
from netsim.networks.network import Network
from netsim.networks.preprocessing import Shape
from netsim.networks.sources.base import Built, NetworkSource, Reference
from netsim.networks.tensor_files import NeedsPickleError, TensorFile, read_tensors
from netsim.networks.weights import Weights, class_count, content_hash, fill, listed
from netsim.references import NETWORK_FORMS, split_folder, split_key

MODULES = {
    "torchvision": "netsim.networks.sources.torchvision",
    "timm": "netsim.networks.sources.timm",
    "robust": "netsim.networks.sources.robust_imagenet",
    "robustness": "netsim.networks.sources.robustness",
    "small": "netsim.networks.sources.small",
    "small32": "netsim.networks.sources.small32",
    "python": "netsim.networks.sources.python",
}

NAMED_SOURCES = ("torchvision", "timm", "small", "small32")
"""Sources of which a name alone may have been meant."""

WEIGHTS_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
"""Suffixes of files with weights."""

# What to do if a network fails on images of ImageNet's shape, because it states no other.
UNSTATED_SHAPE = (
    "state what it takes: give its attribute preprocessing a netsim.Preprocessing(mean=(0,), std=(1,), size=28), with "
    "one mean and std per channel, or load it with input_shape=(1, 28, 28)"
)


@cache
def network_source(name: str) -> NetworkSource:
    """Import a source when it is first used: timm takes seconds."""
    source = import_module(MODULES[name]).SOURCE
    assert isinstance(source, NetworkSource)
    return source


def parse_reference(reference: str) -> Reference:
    """Split a network reference into its parts, and check that what it names exists.

    Raises
    ------
    SettingsError
        For an unknown source, architecture or name of weights; the message has the nearest known name.

    Examples
    --------
    >>> parse_reference("small:vgg@none")
    Reference(source='small', name='vgg', weights='none', file=None, key=None, folder=None)
    """
    source_name, colon, rest = reference.partition(":")
    name, at, weights = rest.partition("@")
    folder, name = split_folder(name) if source_name == "python" else (None, name)
    if source_name not in NETWORK_FORMS:
        raise SettingsError(_no_source(reference))
    if not colon or not name or (at and not weights):
        raise SettingsError(f"network {reference!r} is incomplete: write {NETWORK_FORMS[source_name][0]}")
    source = network_source(source_name)
    file = source.weights_file(Reference(source_name, name, weights or None))
    file, key = split_key(file) if at and file is not None else (file, None)
    parsed = Reference(source_name, name, weights or None, file, key, folder)
    source.check(parsed)
    return parsed


def _no_source(reference: str) -> str:
    """Return the error message about an unknown source: perhaps a name, a file or a function was given without one."""
    source_name, colon, rest = reference.partition(":")
    if os.path.splitext(source_name)[1] in WEIGHTS_SUFFIXES:
        return (
            f"network {reference!r} is a file, and a file says nothing of the architecture. "
            f"Write 'torchvision:NAME@{reference}', or 'python:MODULE:FUNCTION@{reference}' for one of your own"
        )
    message = f"no source {source_name!r} in network {reference!r}"
    if not colon and (meant := [known for source in NAMED_SOURCES if _exists(known := f"{source}:{reference}")]):
        return f"{message}; did you mean {' or '.join(map(repr, meant))}?"
    if rest and not closest(source_name, NETWORK_FORMS):
        return f"{message}; did you mean 'python:{reference}'? Sources are {', '.join(NETWORK_FORMS)}"
    return f"{message}{nearest(source_name, NETWORK_FORMS)}"


def _exists(reference: str) -> bool:
    try:
        parse_reference(reference)
    except SettingsError:
        return False
    return True


def needs_training(reference: str) -> bool:
    """Return True if a run trains the network: its source has no weights, and the reference names none.

    Examples
    --------
    >>> needs_training("small:vgg"), needs_training("small:vgg@none")
    (True, False)
    """
    parsed = parse_reference(reference)
    return network_source(parsed.source).trains and parsed.weights is None


def needs_download(reference: str) -> bool:
    """Return True if loading the network requires published weights, which are downloaded unless they are cached."""
    parsed = parse_reference(reference)
    return network_source(parsed.source).publishes and parsed.file is None and parsed.weights != "none"


def untrained(reference: str) -> str:
    """Return the reference of the same architecture with random weights.

    Examples
    --------
    >>> untrained("torchvision:resnet50@IMAGENET1K_V1")
    'torchvision:resnet50@none'
    """
    return f"{reference.partition('@')[0]}@none"


def load_network(
    reference: str, num_classes: int | None = None, *, input_shape: Shape | None = None, rng_seed: int = 0
) -> Network:
    """Load a network by reference, on the CPU, cut in front of its last linear layer.

    A reference is ``source:name[@weights]``:

    ==========================  =====================================================================================
    torchvision:NAME            any torchvision classifier, or wide_resnet50_4, with its default weights (downloaded);
                                only SqueezeNet cannot be cut, because it has no linear layer
    torchvision:NAME@ENUM       the same with other weights of torchvision, as in @IMAGENET1K_V1
    timm:NAME, timm:NAME@TAG    any timm classifier with default or other weights, as in @a1_in1k (downloaded)
    robust:ARCH_NORM_epsE       a network of Salman et al. [1]_, as in resnet50_l2_eps3, from a checkpoint converted by
                                ``netsim convert``
    robustness:DATASET:ARCH     a network of the robustness library, as in cifar:resnet50, with @FILE or @none
    small:NAME                  one of nine small networks for 28x28 grey images, which come without weights
    small32:NAME                the same for 32x32 colour images
    python:MODULE:FUNCTION      the return value of a function: a classifier of images in [0, 1], or an AttackerModel
    ...@none                    random weights, a function of the architecture's name and `rng_seed` only
    ...@FILE, ...@FILE#KEY      a path or URL of safetensors, or of tensors that ``torch.save`` wrote; the weights are
                                those that fit the architecture, or those under KEY if several do
    ==========================  =====================================================================================

    Parameters
    ----------
    reference : str
        Network to load.
    num_classes : int, optional
        Number of logits. Sets it where no weights do, and must agree with the weights where they do.
    input_shape : tuple of int, optional
        Shape (C, H, W) of the images, RGB in [0, 1], on which the network is cut and checked. Default: that of the
        images it is made for.
    rng_seed : int, default 0
        Seed of the random weights. Random numbers drawn outside are not affected.

    Returns
    -------
    Network
        Module of images (n, C, H, W) in [0, 1]: ``network(images)`` are logits (n, num_classes), and
        ``network.represent(images)`` is the representation (n, d), d = ``network.width``. It is in evaluation mode,
        and its weights require no gradients.

    Raises
    ------
    SettingsError
        For a reference that does not exist, or a `num_classes` that the weights do not have.
    NetworkError
        For weights that cannot be downloaded or read, or do not match the architecture, for a function that returns
        another network at every call, and for a network that cannot be inverted (`netsim.networks.gate`).

    See Also
    --------
    Preprocessing : What a module of your own expects of its images.

    References
    ----------
    .. [1] Salman, Ilyas, Engstrom, Kapoor, Madry 2020, "Do Adversarially Robust ImageNet Models Transfer Better?",
       https://arxiv.org/abs/2007.08489

    Examples
    --------
    >>> import torch
    >>> import netsim
    >>> network = netsim.load_network("small:vgg@none")
    >>> images = torch.rand(4, 1, 28, 28)
    >>> network.represent(images).shape
    torch.Size([4, 128])
    >>> network(images).shape
    torch.Size([4, 10])

    Random weights are the same at every load:

    >>> again = netsim.load_network("small:vgg@none")
    >>> torch.equal(network(images), again(images))
    True
    >>> other = netsim.load_network("small:vgg@none", num_classes=3, rng_seed=1)
    >>> other(images).shape
    torch.Size([4, 3])
    """
    if not reference.startswith("python:"):
        return load_once(reference, num_classes, input_shape=input_shape, rng_seed=rng_seed)
    return load_twice(reference, num_classes, input_shape=input_shape, rng_seed=rng_seed)[0]


def load_twice(
    reference: str, num_classes: int | None = None, *, input_shape: Shape | None = None, rng_seed: int = 0
) -> "tuple[Network, Fingerprint]":
    """Load the return value of a function of the user's like `load_network`, with what it was compared by."""
    before = _fingerprint(load_once(reference, num_classes, input_shape=input_shape, rng_seed=rng_seed), input_shape)
    network = load_once(reference, num_classes, input_shape=input_shape, rng_seed=rng_seed)
    now = _fingerprint(network, input_shape)
    _require_same(before, now, reference)
    return network, now


def load_once(
    reference: str, num_classes: int | None = None, *, input_shape: Shape | None = None, rng_seed: int = 0
) -> Network:
    """Load a network like `load_network`, for callers that compare its weights with recorded ones.

    A function of the user's is called once only, so that it may return another network the next time.
    """
    parsed = parse_reference(reference)
    file = _read_file(parsed, reference)
    network = build_network(parsed, reference, file, num_classes, input_shape=input_shape, rng_seed=rng_seed)
    if num_classes not in (None, network.num_classes):
        raise SettingsError(
            f"num_classes of {reference} must be {network.num_classes}, got {num_classes}. Omit num_classes."
        )
    return network


class Fingerprint(NamedTuple):
    """The content hash of a network, and the representations of two images, to notice that it is another network."""

    weights: str
    representations: Tensor


def _fingerprint(network: Network, input_shape: Shape | None) -> Fingerprint:
    return Fingerprint(content_hash(network), represent_two(network, input_shape or network.preprocessing.shape))


def _require_same(before: Fingerprint, now: Fingerprint, reference: str) -> None:
    """Raise NetworkError if a function has returned two different networks."""
    if before.weights != now.weights:
        got, way_out = "other weights", "Load weights in it, or set a seed."
    elif not gate.agree(now.representations, before.representations, gate.ROUNDING[before.representations.dtype]):
        got = "other representations by equal weights"
        way_out = "Register all tensors that it draws as parameters or buffers, and set a seed."
    else:
        return
    raise NetworkError(f"{reference} must give the same network at every call, got {got}. {way_out}")


def file_weights(reference: str) -> Weights:
    """Read the weights in the file of a reference, by the names that its architecture has for them.

    Raises
    ------
    SettingsError, NetworkError
        If they cannot be read, or several sets of weights in the file fit and differ.
    """
    parsed = parse_reference(reference)
    file = _read_file(parsed, reference)
    assert file is not None
    with plain_torch():
        built = _build(parsed, None, rng_seed=0)
        network = _cut(parsed, reference, built, file.metadata, check=False)
    return _weights(file, _find(file, network, parsed))


def _read_file(parsed: Reference, reference: str) -> TensorFile | None:
    """Read the file of a reference, if it has one."""
    if parsed.file is None:
        return None
    try:
        file = read_tensors(parsed.file, hint=network_source(parsed.source).hint(parsed))
    except NeedsPickleError as error:
        command = f"netsim convert {reference.partition('@')[0]} {quote(parsed.file)}"
        raise NeedsPickleError(f"{error}. If you trust it, convert it once: {command}") from error
    _check_origin(parsed, reference, file)
    return file


@plain_torch()
def build_network(
    parsed: Reference,
    reference: str,
    file: TensorFile | None,
    num_classes: int | None = None,
    *,
    chosen: FoundWeights | None = None,
    input_shape: Shape | None = None,
    rng_seed: int = 0,
) -> Network:
    """Build a network by its source, and fill it with its weights in `file`, if any.

    `chosen` are these weights, if they are known already. See `load_network` for the other parameters.

    Raises
    ------
    SettingsError
        If several sets of weights in the file fit and differ.
    NetworkError
        For tensors that are missing, surplus, of another shape or not finite, and for a network that cannot be
        inverted.
    """
    cut = partial(_cut, parsed, reference, input_shape=input_shape)
    built = _build(parsed, num_classes, rng_seed=rng_seed)
    network = cut(built, {} if file is None else file.metadata, check=file is None)
    if file is None:
        return network
    chosen = chosen or _find(file, network, parsed)
    weights = _weights(file, chosen)
    classes = class_count(weights.tensors, network)
    if num_classes is None and classes != network.num_classes and parsed.source not in ("python", "robust"):
        built = _build(parsed, classes, rng_seed=rng_seed)
        network = cut(built, weights.metadata, check=False)
    fill(network, weights.tensors, origin=weights.name, hint=chosen.hint)
    network = cut(
        built, weights.metadata
    )  # again, because the cut that held with random weights may not hold with these
    network.origin = weights.metadata
    return network


def _find(file: TensorFile, network: Network, parsed: Reference) -> FoundWeights:
    return find_weights(file.tensors, network, key=parsed.key, origin=file.name, option=f"@{file.name}#")


def _weights(file: TensorFile, chosen: FoundWeights) -> Weights:
    """Return weights that were found in a file, with what is known of them."""
    metadata = {
        **({"key": chosen.key} if chosen.key else {}),
        **({"ignored": listed(chosen.ignored)} if chosen.ignored else {}),
        **file.metadata,
        **chosen.normalisation,
    }
    return Weights(f"{file.name} under {chosen.key!r}" if chosen.key else file.name, chosen.tensors, metadata)


def _build(parsed: Reference, num_classes: int | None, *, rng_seed: int) -> Built:
    """Build the model, with published or random weights."""
    with _random_numbers(f"{parsed.name}/{rng_seed}"):
        return network_source(parsed.source).build(parsed, num_classes)


def _cut(
    parsed: Reference,
    reference: str,
    built: Built,
    metadata: Mapping[str, object],
    *,
    input_shape: Shape | None = None,
    check: bool = True,
) -> Network:
    """Cut a model in front of its last layer. All cuts of a model share its tensors."""
    preprocessing = built.preprocessing
    return Network(
        built.model,
        gate.ramp(input_shape or preprocessing.shape),
        name=parsed.architecture,
        reference=reference,
        preprocessing=preprocessing.with_metadata(metadata),
        hint="" if input_shape or preprocessing.states_shape else UNSTATED_SHAPE,
        check=check,
    )


def _check_origin(parsed: Reference, reference: str, file: TensorFile) -> None:
    """Refuse the file of another `robust:` network that was renamed."""
    converted_as = file.metadata.get("reference")
    if parsed.source == "robust" and converted_as is not None and converted_as != reference:
        raise NetworkError(f"{file.name} must hold {reference}, got {converted_as}. Convert its checkpoint again.")


# torch has one generator per process, and a worker may load networks in several threads.
_ONE_GENERATOR = threading.RLock()


@contextmanager
def _random_numbers(name: str) -> Iterator[None]:
    """Seed torch's CPU generator by `name` inside the context, and restore its state afterwards."""
    with _ONE_GENERATOR, torch.random.fork_rng(devices=[]):
        digest = hashlib.sha256(name.encode()).digest()
        torch.random.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield
