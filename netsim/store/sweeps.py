"""Sweeps: what is asked of a store. A settings file whose networks are resolved to those that the store has.

    sweeps/<id>.json      a sweep: its settings, the networks they name, and when it was run last
    networks/<name>.json  a network: what its weights are determined by

A network has one name in a store, that under which it came first; a sweep may show it under another.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from netsim.errors import SettingsError, StoreError, nearest
from netsim.references import has_photographs
from netsim.settings import Member, SweepSettings, TrainingSettings, parse_settings
from netsim.store.protocol import Protocol


@dataclass(frozen=True)
class StoredNetwork:
    """A network of a store.

    Attributes
    ----------
    name
        Name in the store, of which its paths are made.
    reference
        `source:name[@weights]` under which it came.
    training
        How it is trained; None for a network that comes with weights.
    identity
        Hash over what determines its representations: architecture and weights, or how they are trained.
    behaviour
        What the return value of a function makes of two fixed images (`netsim.networks.behaviour`), because its code
        is not hashed; empty for other networks.
    """

    name: str
    reference: str
    training: TrainingSettings | None
    identity: str
    behaviour: tuple[float, ...] = ()

    @property
    def weights(self) -> str:
        """The identity without what stands for the behaviour of a function's network."""
        return self.identity.partition("-")[0]

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object."""
        training = None if self.training is None else self.training.model_dump(mode="json")
        values = {"name": self.name, "reference": self.reference, "training": training, "identity": self.identity}
        return values | ({"behaviour": list(self.behaviour)} if self.behaviour else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Convert from a JSON object."""
        training = values["training"]
        return cls(
            name=values["name"],
            reference=values["reference"],
            training=None if training is None else TrainingSettings.model_validate(training),
            identity=values["identity"],
            behaviour=tuple(values.get("behaviour", ())),
        )


@dataclass(frozen=True)
class Sweep:
    """A question asked of a store: which networks to compare, on how many pairs, and how to show them.

    Attributes
    ----------
    label
        Name for people: that of the settings file.
    settings
        As given; of a sweep that looks at its results as it grows, with the pairs of the look.
    images
        Content hash of the test images.
    networks, observers
        The networks in the store that `settings.members` and `settings.observing` name, in their order. Two members
        may be the same network.
    asked
        When it was run last, in UTC; "" if it was not.
    at_most
        Pairs that it may use in all, where `settings` has those of a look (`pairs.until`).
    """

    label: str
    settings: SweepSettings
    images: str
    networks: tuple[StoredNetwork, ...]
    observers: tuple[StoredNetwork, ...] = ()
    asked: str = field(default="", compare=False)
    at_most: int | None = None

    @property
    def given_settings(self) -> SweepSettings:
        """The settings as given: with all pairs that the sweep may use."""
        return self.settings if self.at_most is None else _with_pairs(self.settings, self.at_most)

    def at_look(self, shards: int) -> Self:
        """Return the sweep as it looks at its first shards; its id stays."""
        pairs = self.given_settings.pairs
        return replace(self, settings=_with_pairs(self.settings, shards * pairs.shard_size), at_most=pairs.count)

    @cached_property
    def id(self) -> str:
        """12 hex digits that name the sweep: of what it compares and shows, not of how its settings are written."""
        pairs = self.given_settings.pairs
        until = {} if pairs.until is None else {"until": pairs.until.model_dump(mode="json", exclude_none=True)}
        content = {
            "protocol": self.protocol.digest(),
            "networks": self._shown(self.settings.members, self.networks),
            "observers": self._shown(self.settings.observing, self.observers),
            "pairs": pairs.count,
            "tolerance": self.settings.inversion.tolerance,
            **until,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @staticmethod
    def _shown(members: Iterable[Member], networks: Iterable[StoredNetwork]) -> list[list[str]]:
        pairs = zip(members, networks, strict=True)
        return [[member.name, member.group, network.name, network.identity] for member, network in pairs]

    @cached_property
    def protocol(self) -> Protocol:
        """Settings and images that all values of its store share."""
        return Protocol.of(self.settings, self.images)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in the store of the networks to invert, each once, in order."""
        return tuple(dict.fromkeys(network.name for network in self.networks))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names in the store of all networks that look: those to invert, then the observers, each once."""
        return tuple(dict.fromkeys([*self.names, *(network.name for network in self.observers)]))

    @cached_property
    def _by_name(self) -> dict[str, StoredNetwork]:
        return {network.name: network for network in (*self.observers, *self.networks)}

    def network(self, name: str) -> StoredNetwork:
        """Return the network that is called `name` in the store.

        Raises
        ------
        SettingsError
            If this sweep has none.
        """
        if name not in self._by_name:
            raise SettingsError(f"no network {name!r} in this run{nearest(name, self._by_name)}")
        return self._by_name[name]

    @cached_property
    def shown(self) -> dict[str, str]:
        """Names of members and observers as the settings have them -> names in the store."""
        members = (*self.settings.members, *self.settings.observing)
        pairs = zip(members, (*self.networks, *self.observers), strict=True)
        return {member.name: network.name for member, network in pairs}

    def stored_name(self, name: str) -> str:
        """Return the name in the store of the network that the settings call `name`.

        Raises
        ------
        SettingsError
            If they name none.
        """
        if name not in self.shown:
            raise SettingsError(f"no network {name!r} in this run{nearest(name, self.shown)}")
        return self.shown[name]

    def identities(self, names: Iterable[str]) -> dict[str, str]:
        """Map names of networks in the store to their identities."""
        return {name: self.network(name).identity for name in names}

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the networks that are trained in the store."""
        return tuple(name for name in self.columns if self.network(name).training is not None)

    @property
    def checked_splits(self) -> tuple[str, ...]:
        """Splits whose images are decoded once before they are used: those of photographs."""
        if not has_photographs(self.settings.images.source):
            return ()
        return ("test", "train") if self.trained else ("test",)

    @property
    def shards(self) -> int:
        """Number of shards of pairs."""
        return self.settings.pairs.shards

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object."""
        return {
            "label": self.label,
            "settings": self.given_settings.model_dump(mode="json"),
            "images": self.images,
            "networks": [network.to_json() for network in self.networks],
            "observers": [network.to_json() for network in self.observers],
            **({} if self.at_most is None else {"shards": self.shards}),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], *, origin: str) -> Self:
        """Convert from a JSON object.

        Raises
        ------
        StoreError
            If this netsim cannot read it; `origin` is its place.
        """
        try:
            sweep = cls(
                label=values["label"],
                settings=parse_settings(values["settings"], origin=origin),
                images=values["images"],
                networks=tuple(map(StoredNetwork.from_json, values["networks"])),
                observers=tuple(map(StoredNetwork.from_json, values["observers"])),
                asked=values["asked"],
            )
            return sweep.at_look(values["shards"]) if "shards" in values else sweep
        except SettingsError as error:
            raise StoreError(f"this netsim cannot read the stored settings of {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{origin} is damaged ({error!r}); remove it, and run its settings again") from None


def _with_pairs(settings: SweepSettings, count: int) -> SweepSettings:
    return settings.model_copy(update={"pairs": settings.pairs.model_copy(update={"count": count})})
