"""The protocol of a store: what all of its values share. Another protocol is another store."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import ValidationInfo, field_validator

from netsim.settings import ALGORITHM, InversionSettings, PairSettings, Settings, SweepSettings

PRESENTATION = ("tolerance",)
"""Settings of `inversion` that alter neither pixels nor losses."""


class Protocol(Settings):
    """Everything that a stored value depends on besides its networks and its pair.

    Attributes
    ----------
    algorithm
        `netsim.settings.ALGORITHM` of the code that computes the values.
    images
        Content hash of the test images, as listed: it covers their classes and their size.
    pairs
        `rng_seed`, `shard_size`, `seed_labels` and `seed_draw`.
    inversion
        All settings of the inversion that alter pixels or losses.
    """

    algorithm: int
    images: str
    pairs: dict[str, Any]
    inversion: dict[str, Any]

    @field_validator("pairs", "inversion")
    @classmethod
    def _complete(cls, values: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Add the defaults of settings that a store was made before."""
        model = PairSettings if info.field_name == "pairs" else InversionSettings
        known = {key: field.default for key, field in model.model_fields.items() if key not in ("count", *PRESENTATION)}
        return known | values

    @classmethod
    def of(cls, settings: SweepSettings, images: str) -> Self:
        """Select what belongs to the protocol; `images` is the content hash of the test images."""
        inversion = settings.inversion.model_dump(mode="json")
        return cls(
            algorithm=ALGORITHM,
            images=images,
            pairs=settings.pairs.model_dump(mode="json", exclude={"count", "until"}),
            inversion={key: value for key, value in inversion.items() if key not in PRESENTATION},
        )

    def digest(self) -> str:
        """Return 16 hex digits that name the protocol, the same on every machine.

        Only settings that are not at their default count: one that a later netsim adds leaves existing stores valid.
        """
        content = {
            "algorithm": self.algorithm,
            "images": self.images,
            "pairs": _changed(self.pairs, PairSettings),
            "inversion": _changed(self.inversion, InversionSettings),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: "Protocol") -> list[str]:
        """Describe what differs, as in ``inversion.iterations is 100 there and 200 here``; `self` is there."""
        return [
            "the images are others" if key == "images" else f"{key} is {stored!r} there and {given!r} here"
            for key, (stored, given) in self.changes(other).items()
        ]

    def changes(self, other: "Protocol") -> dict[str, tuple[Any, Any]]:
        """Map each setting that differs to both values, as in ``{"inversion.iterations": (100, 200)}``."""
        one, two = (flatten(protocol.model_dump(mode="json")) for protocol in (self, other))
        keys = [key for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]
        return {key: (one.get(key), two.get(key)) for key in keys}


def _changed(values: Mapping[str, Any], model: type[Settings]) -> dict[str, Any]:
    """Select the settings that are not at their default."""
    return {key: value for key, value in values.items() if value != model.model_fields[key].default}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: `{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
