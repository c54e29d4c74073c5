"""Interface of a network source. `netsim.networks.load` lists the module of each."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from netsim.networks.preprocessing import Preprocessing


@dataclass(frozen=True)
class Reference:
    """A reference, `source:name[@weights]`, split into its parts.

    Attributes
    ----------
    source, name
        As written; `name` may contain colons.
    weights
        As written; None if the reference names none, "none" for random weights.
    file
        Path or URL of the file with the weights, or None if they are not in a file.
    key
        Place of the weights in the file; None for those that fit.
    folder
        Folder of the module of a `python:` reference; None if it is on the path.
    """

    source: str
    name: str
    weights: str | None
    file: str | None = None
    key: str | None = None
    folder: str | None = None

    @property
    def architecture(self) -> str:
        """Part of the name after the last colon."""
        return self.name.rpartition(":")[2]


class Built(NamedTuple):
    """A classifier as its source builds it, and its preprocessing."""

    model: nn.Module
    preprocessing: Preprocessing


def _file_behind_at(parsed: Reference) -> str | None:
    return None if parsed.weights == "none" else parsed.weights


def _no_hint(_: Reference) -> str:
    return ""


def _named(parsed: Reference) -> str:
    return parsed.weights or ""


@dataclass(frozen=True)
class NetworkSource:
    """One source of networks.

    Attributes
    ----------
    check
        Raises SettingsError for a name or weights that do not exist.
    build
        Builds a network with the published weights that its reference names, or else with random weights and the given
        number of classes (None: the source's default).
    publishes
        True if its weights have names, and are downloaded when they are first used.
    trains
        True if its networks come without weights, so that a run trains them.
    find_file
        Returns the path or URL of the file with the weights, or None.
    tag
        Returns the name of the published weights of a reference, which may leave it out.
    hint
        Returns what to do if that file is missing, for the end of an error message.
    """

    check: Callable[[Reference], None]
    build: Callable[[Reference, int | None], Built]
    publishes: bool = False
    trains: bool = False
    find_file: Callable[[Reference], str | None] = _file_behind_at
    tag: Callable[[Reference], str] = _named
    hint: Callable[[Reference], str] = _no_hint

    def weights_file(self, parsed: Reference) -> str | None:
        """Return the file with the weights, or None. Names of published weights have neither dots nor slashes."""
        if self.publishes and parsed.weights is not None and re.fullmatch(r"\w+", parsed.weights):
            return None
        return self.find_file(parsed)
