"""What every source of networks gives: each has a module here, which `netsim.networks.load` lists."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from netsim.networks.preprocessing import Preprocessing


@dataclass(frozen=True)
class Reference:
    """`source:name[@weights]`, taken apart. `weights`: None where none are named, "none" for random ones."""

    source: str
    name: str
    weights: str | None
    file: str | None = None  # path or URL of the safetensors its weights are in, if they are in a file

    @property
    def architecture(self) -> str:
        return self.name.rpartition(":")[2]


class Built(NamedTuple):
    """A classifier as its source builds it, and what it expects of its images."""

    model: nn.Module
    preprocessing: Preprocessing


def _file_behind_at(parsed: Reference) -> str | None:
    return None if parsed.weights == "none" else parsed.weights


def no_advice(_: Reference) -> str:
    return ""


@dataclass(frozen=True)
class NetworkSource:
    """`check` raises SettingsError for a name or weights that do not exist.

    `build` gives the network with the weights published for it where those are asked for, else with random ones and so
    many classes. `publishes`: its weights have names, and are downloaded when they are first used. `trains`: its
    networks have no weights of their own, so a run trains them. `find_file` says where safetensors lie that are to be
    filled in, and `advice` what to do where they do not.
    """

    check: Callable[[Reference], None]
    build: Callable[[Reference, int | None], Built]
    publishes: bool = False
    trains: bool = False
    find_file: Callable[[Reference], str | None] = _file_behind_at
    advice: Callable[[Reference], str] = no_advice

    def file(self, parsed: Reference) -> str | None:
        """Names of published weights have neither dots nor slashes."""
        if self.publishes and parsed.weights is not None and re.fullmatch(r"\w+", parsed.weights):
            return None
        return self.find_file(parsed)
