"""Resolve the settings of a sweep to what its images and networks are, by content: the base of every reuse.

A name, a path and a URL say where something is; only its content decides whether stored values are those of it. So a
network is identified by its architecture and its weights, or by how and on which images it is trained.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from blake3 import blake3

from netsim.errors import NetsimError, NetworkError
from netsim.images import Split, load_images
from netsim.settings import ImageSettings, Member, SweepSettings
from netsim.storage.files import Files
from netsim.store.protocol import Protocol
from netsim.store.run import Run, all_networks, all_sweeps, require_same_network
from netsim.store.sweeps import StoredNetwork, Sweep

if TYPE_CHECKING:
    from netsim.networks import Network

logger = logging.getLogger(__name__)

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


@dataclass(frozen=True)
class Known:
    """Networks and sweeps of a store, where there is one."""

    url: str
    networks: Sequence[StoredNetwork] = ()
    sweeps: Sequence[Sweep] = ()

    @classmethod
    def at(cls, url: str) -> "Known":
        """Read the networks and sweeps of the store at `url`; empty if there is none."""
        if not Run.exists(url):
            return cls(Files(url).url)
        files = Files(url)
        return cls(files.url, all_networks(files), all_sweeps(files))


def resolve(settings: SweepSettings, store: str, *, label: str = "") -> Sweep:
    """Find what the settings ask for, and which of it the store at `store` knows. Nothing is stored.

    Images are listed and hashed; files of weights are hashed; functions are called, and their network is hashed. Where
    images are gone, but the store was asked for the same before, its answer counts.

    Raises
    ------
    SettingsError, DataError, NetworkError
        For images or networks that cannot be used; the message has the faults of all networks.
    StoreError
        If the store has another protocol, or a network has the name of another one in the store.
    """
    known = Known.at(store)
    images = _Images(settings.images, known)
    test_images = images.test_hash  # first: the fault of images is not one of every network
    if known.sweeps:
        Run.at(store, known.sweeps[-1]).require(Protocol.of(settings, test_images))
    members = (*settings.members, *settings.observing)
    networks = _joined(known, members, _identities(members, images))
    count = len(settings.members)
    return Sweep(label, settings, test_images, networks[:count], networks[count:])


class Identity(NamedTuple):
    """The `identity` and the `behaviour` of a `StoredNetwork`."""

    key: str
    behaviour: tuple[float, ...] = ()


def _joined(known: Known, members: Sequence[Member], identities: Mapping[str, Identity]) -> tuple[StoredNetwork, ...]:
    """Return the network of each member: the one of its identity that the store has, or else a new one.

    Its reference is that of the member, because files may have moved. Raises StoreError if a new network has the name
    of another one.
    """
    by_name = {network.name.casefold(): network for network in known.networks}
    joined = []
    for member in members:
        given = StoredNetwork(member.name, member.reference, member.training, *identities[member.name])
        network = next((network for network in by_name.values() if _is_same(network, given)), None)
        if network is None:
            if taken := by_name.get(given.name.casefold()):
                require_same_network(known.url, taken, given)
            network = by_name[given.name.casefold()] = given
        joined.append(replace(network, reference=member.reference))
    return tuple(joined)


def _is_same(stored: StoredNetwork, given: StoredNetwork) -> bool:
    """Return True if two networks have one identity; rounding on another machine makes no other network."""
    if stored.identity == given.identity or not (stored.behaviour and stored.weights == given.weights):
        return stored.identity == given.identity
    from netsim.networks import same_behaviour

    return same_behaviour(stored.behaviour, given.behaviour)


# ---- images


class _Images:
    """The images of a sweep. A split is listed once; where it is gone, what an earlier sweep saw of it counts."""

    def __init__(self, settings: ImageSettings, known: Known) -> None:
        self.settings = settings
        self._url = known.url
        self._earlier = [
            sweep for sweep in reversed(known.sweeps) if _listing(sweep.settings.images) == _listing(settings)
        ]

    @property
    def test_hash(self) -> str:
        """Content hash of the test images."""
        return self._earlier[0].images if self._test is None else self._test[0]

    @cached_property
    def _test(self) -> tuple[str, Shape] | None:
        """Content hash and shape of the test images, as listed now; None if only an earlier sweep could list them."""
        try:
            return self._list("test")
        except NetsimError as error:
            if not self._earlier:
                raise
            logger.warning("the images are taken to be those of an earlier sweep of %s: %s", self._url, error)
            return None

    def shape(self) -> Shape:
        """Return the shape of an image; if they are gone, that of the pairs in the store."""
        if self._test is not None:
            return self._test[1]
        run = Run.at(self._url, self._earlier[0])
        if not run.files.exists("images/target/zarr.json"):
            return self._list("test")[1]  # which tells why they cannot be listed
        _, channels, height, width = run.array("images/target").shape
        return channels, height, width

    def trained_identity(self, member: Member) -> Identity:
        """Identify a network that is trained on the images; if they are gone, as an earlier sweep did."""
        assert member.training is not None
        if isinstance(self._train_hash, str):
            training = member.training.model_dump(mode="json", exclude_defaults=True)
            return Identity(_hash({"trained": member.reference, "training": training, "images": self._train_hash}))
        for network in (network for sweep in self._earlier for network in (*sweep.networks, *sweep.observers)):
            if (network.reference, network.training) == (member.reference, member.training):
                return Identity(network.identity)
        raise self._train_hash

    @cached_property
    def _train_hash(self) -> str | NetsimError:
        """Content hash of the training images, as listed now, or why they cannot be listed."""
        try:
            return self._list("train")[0]
        except NetsimError as error:
            return error

    def _list(self, split: Split) -> tuple[str, Shape]:
        """Return the content hash and shape of a split."""
        images = load_images(self.settings.source, split, self.settings.size, self.settings.class_order)
        return images.content_hash(), images.shape


def _listing(images: ImageSettings) -> tuple[Any, ...]:
    """Select the settings that decide which images are listed, in which shape and order."""
    return images.source, images.size, images.class_order


# ---- networks


def _identities(members: Sequence[Member], images: _Images) -> dict[str, Identity]:
    """Identify every network by name, each reference once. Raises one error with the faults of all."""
    identities: dict[str, Identity] = {}
    faults: dict[str, NetsimError] = {}
    by_reference: dict[str, Identity] = {}
    for member in members:
        if member.training is not None:
            identities[member.name] = images.trained_identity(member)
            continue
        try:
            if member.reference not in by_reference:
                by_reference[member.reference] = identify(member.reference, images.shape)
            identities[member.name] = by_reference[member.reference]
        except NetsimError as error:
            faults[member.name] = error
    if faults:
        raise_faults(_with_other_faults(faults, members, images.settings), total=len(members))
    return identities


def _with_other_faults(
    faults: Mapping[str, NetsimError], members: Sequence[Member], images: ImageSettings
) -> dict[str, NetsimError]:
    """Add the faults of those networks that could be identified, in the order of the settings."""
    from netsim.planning.preflight import fault_of

    every = {member.name: faults.get(member.name) or fault_of(member, images) for member in members}
    return {name: fault for name, fault in every.items() if fault is not None}


def raise_faults(faults: Mapping[str, NetsimError], *, total: int) -> None:
    """Raise the fault of one network, or one error with the faults of all; nothing without faults."""
    if not faults:
        return
    if len(faults) == 1:
        raise next(iter(faults.values()))
    kinds = {type(error) for error in faults.values()}
    lines = [f"{name}: {error}" for name, error in faults.items()]
    kind = kinds.pop() if len(kinds) == 1 else NetworkError
    raise kind("\n  ".join([f"{len(faults)} of {total} networks cannot be used:", *lines]))


def identify(reference: str, shape: Callable[[], Shape]) -> Identity:
    """Hash what determines the representations of a network that comes with weights, in 32 hex digits.

    That of a function's return value has 8 more, of its behaviour.

    Parameters
    ----------
    reference
        The network, as `source:name[@weights]`.
    shape
        Returns the shape of the images; called for a network that is the return value of a function.

    Raises
    ------
    SettingsError, NetworkError
        If the network or its weights cannot be read.
    """
    from netsim.networks.load import network_source, parse_reference

    parsed = parse_reference(reference)
    architecture, source = f"{parsed.source}:{parsed.name}", network_source(parsed.source)
    if parsed.source == "python":
        return _of_function(reference, parsed.name, shape())
    if parsed.file is not None:
        return Identity(_hash({"architecture": architecture, **_of_file(reference)}))
    if parsed.weights == "none":
        return Identity(_hash({"random": architecture}))
    return Identity(_hash({"published": f"{architecture}@{source.tag(parsed)}"}))


def _hash(content: Mapping[str, Any]) -> str:
    return blake3(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _of_file(reference: str) -> dict[str, Any]:
    """Identify weights in a file by their tensors and the preprocessing stated with them, however they are saved."""
    from netsim.networks.load import file_weights
    from netsim.networks.weights import hash_tensors

    weights = file_weights(reference)
    stated = {key: weights.metadata[key] for key in ("mean", "std") if key in weights.metadata}
    return {"weights": hash_tensors(weights.tensors), **stated}


def _of_function(reference: str, name: str, shape: Shape) -> Identity:
    """Identify the network that a function returns; it is called twice, and must return the same network."""
    from netsim.networks import coarse_behaviour
    from netsim.networks.behaviour import summary
    from netsim.networks.load import load_twice

    network, fingerprint = load_twice(reference, input_shape=shape)
    preprocessing = json.dumps(network.preprocessing.to_json(), sort_keys=True)
    content = {"weights": fingerprint.weights, "preprocessing": preprocessing, "layers": _layers(network)}
    behaviour = summary(fingerprint.representations)
    suffix = _hash({"behaviour": coarse_behaviour(behaviour)})[:8]
    return Identity(f"{_hash({'function': name, **content})}-{suffix}", behaviour)


def _layers(network: "Network") -> list[tuple[str, str, str]]:
    """List names, classes and options of all layers, because activations have no weights."""
    modules = [(name, module) for name, module in network.body.named_modules() if name not in network.head_paths]
    # what a layer says of itself may have an address in memory, which differs from process to process
    return [(name, type(module).__qualname__, re.sub(r"0x\w+", "", module.extra_repr())) for name, module in modules]
