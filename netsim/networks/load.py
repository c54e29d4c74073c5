"""References: `source:name[@weights]`, and the networks they name. `netsim.references` lists the sources."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module

import torch

from netsim.errors import NetworkError, SettingsError, nearest
from netsim.networks.network import Network
from netsim.networks.preprocessing import Shape
from netsim.networks.sources.base import NetworkSource, Reference
from netsim.networks.weights import Weights, class_count, fill, read_weights
from netsim.references import NETWORK_FORMS

MODULES = {
    "torchvision": "netsim.networks.sources.torchvision",
    "timm": "netsim.networks.sources.timm",
    "robust": "netsim.networks.sources.robust_imagenet",
    "robustness": "netsim.networks.sources.robustness",
    "small": "netsim.networks.sources.small",
    "python": "netsim.networks.sources.python",
}


@cache
def source(name: str) -> NetworkSource:
    """Imported when it is first used: timm takes seconds."""
    found = import_module(MODULES[name]).SOURCE
    assert isinstance(found, NetworkSource)
    return found


def parse_reference(reference: str) -> Reference:
    """Raises SettingsError, with the nearest name, for a source, an architecture or weights that do not exist."""
    name_of_source, colon, rest = reference.partition(":")
    name, at, weights = rest.partition("@")
    if name_of_source not in NETWORK_FORMS:
        raise SettingsError(
            f"no source {name_of_source!r} in network {reference!r}{nearest(name_of_source, NETWORK_FORMS)}"
        )
    if not colon or not name or (at and not weights):
        raise SettingsError(f"network {reference!r} is incomplete: write {NETWORK_FORMS[name_of_source][0]}")
    of = source(name_of_source)
    parsed = Reference(name_of_source, name, weights or None)
    parsed = Reference(name_of_source, name, weights or None, file=of.file(parsed))
    of.check(parsed)
    return parsed


def needs_training(reference: str) -> bool:
    """Whether a network has no weights of its own and none were named: the small ones."""
    parsed = parse_reference(reference)
    return source(parsed.source).trains and parsed.weights is None


def needs_download(reference: str) -> bool:
    """Whether loading it asks for weights that somebody publishes, unless they are in a cache already."""
    parsed = parse_reference(reference)
    return source(parsed.source).publishes and parsed.file is None and parsed.weights != "none"


def untrained(reference: str) -> str:
    """The reference of the same architecture with random weights."""
    return f"{reference.partition('@')[0]}@none"


def load_network(
    reference: str, num_classes: int | None = None, *, input_shape: Shape | None = None, rng_seed: int = 0
) -> Network:
    """The network that `reference` (source:name[@weights]) names, on the CPU.

    torchvision:NAME           any of torchvision's, or wide_resnet50_4, with its default weights (downloaded);
                               SqueezeNet alone cannot be cut, because it has no linear layer
    torchvision:NAME@ENUM      with other weights of torchvision's, as in @IMAGENET1K_V1
    timm:NAME, timm:NAME@TAG   any of timm's, with default or other weights, as in @a1_in1k (downloaded)
    robust:ARCH_NORM_epsE      Salman et al.'s, as in resnet50_l2_eps3, once `netsim convert` has made safetensors of it
    robustness:DATASET:ARCH    a network of the robustness library, as in cifar:resnet50, from a file
    small:NAME                 one of the nine small ones, which come without weights
    python:MODULE:FUNCTION     what a function of yours returns: a classifier of images in [0, 1], or an AttackerModel
    ...@none                   random weights, named by the architecture and `rng_seed`: the same at every start
    ...@FILE.safetensors       a local file or any fsspec URL, in the tensor names of the architecture itself

    `num_classes` sets the number of classes where no weights do, and is checked where they do. `input_shape` (C, H, W)
    is what the network is tried on: images as it is made for, unless given.

    Raises SettingsError for a reference or a `num_classes` that does not exist, NetworkError for weights that cannot be
    had, read or fitted, or a network that cannot be cut.
    """
    parsed = parse_reference(reference)
    given = None if parsed.file is None else read_weights(parsed.file, advice=source(parsed.source).advice(parsed))
    if given is not None:
        _check_origin(parsed, reference, given)
    network = assembled(parsed, reference, given, num_classes, input_shape=input_shape, rng_seed=rng_seed)
    if num_classes not in (None, network.num_classes):
        raise SettingsError(f"{reference} has {network.num_classes} classes, not {num_classes}; leave num_classes out")
    return network


def assembled(
    parsed: Reference,
    reference: str,
    given: Weights | None,
    num_classes: int | None = None,
    *,
    input_shape: Shape | None = None,
    rng_seed: int = 0,
) -> Network:
    """The network as its source builds it, filled with `given`. Raises NetworkError naming what does not fit."""
    facts = {} if given is None else given.facts

    def build(classes: int | None) -> Callable[[], Network]:
        return _builder(parsed, reference, classes, facts, input_shape=input_shape, rng_seed=rng_seed)

    network = (cut := build(num_classes))()
    if given is not None:
        found = class_count(given.tensors, network)
        if num_classes is None and found != network.num_classes and parsed.source not in ("python", "robust"):
            network = (cut := build(found))()
        fill(network, given.tensors, origin=given.name)
        network = cut()  # with these weights it may be another function: is it still cut where it was?
        network.origin = facts
    return network


def _builder(
    parsed: Reference,
    reference: str,
    num_classes: int | None,
    facts: Mapping[str, object],
    *,
    input_shape: Shape | None,
    rng_seed: int,
) -> Callable[[], Network]:
    """With the weights published for it, or random ones. Networks that are cut from it have its tensors."""
    with _random_numbers(f"{parsed.name}/{rng_seed}"):
        model, preprocessing = source(parsed.source).build(parsed, num_classes)
    shape = input_shape or preprocessing.shape
    example = torch.linspace(0, 1, shape[0] * shape[1] * shape[2]).reshape(1, *shape)
    preprocessing = preprocessing.with_file(facts)
    return partial(Network, model, example, name=parsed.architecture, reference=reference, preprocessing=preprocessing)


def _check_origin(parsed: Reference, reference: str, given: Weights) -> None:
    """A file that was converted as something else, and renamed or swapped."""
    said = given.facts.get("reference")
    if parsed.source == "robust" and said is not None and said != reference:
        raise NetworkError(f"{given.name} says that it is {said}, not {reference}: convert it again")


_ONE_GENERATOR = threading.RLock()
"""torch has one generator for a process, and a worker may load networks in several threads."""


@contextmanager
def _random_numbers(name: str) -> Iterator[None]:
    """Inside, torch draws on the CPU the random numbers named `name`; outside, nothing has changed."""
    with _ONE_GENERATOR, torch.random.fork_rng(devices=[]):
        digest = hashlib.sha256(name.encode()).digest()
        torch.random.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield
