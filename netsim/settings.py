"""Settings of a sweep: one frozen, strict class for the YAML file, the form in the Prefect UI, and the store.

`digest()` names the run. It covers every setting that is not at its default, and `ALGORITHM`, so a changed setting
never mixes with stored numbers, and a setting that a later netsim adds leaves the stores that are there as they are.
What only says *where* a run executes (`cluster:`) is not here: it changes no number.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from reprlib import Repr
from shlex import quote
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from netsim.errors import SettingsError, nearest
from netsim.references import IMAGE_SOURCES_HELP, NAME, NETWORK_FORMS, _is_named, network_name

ALGORITHM = 3
"""Raised when a change to the code, or of a setting's default, alters stored numbers: old and new never mix."""


class Settings(BaseModel):
    """Base of all settings: a misspelt key is an error, not a default, and nothing changes after it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ImageSettings(Settings):
    """Which images. Networks are trained on the `train` split; pairs are drawn from the `test` split."""

    source: str = Field(
        "fashion-mnist",
        description=f"where they lie, a path or a URL as in s3://bucket/images. {IMAGE_SOURCES_HELP}",
    )
    size: int | None = Field(
        None, gt=0, description="pixels a side; null: 224 for photographs, else what the images have"
    )
    unreadable: Literal["stop", "skip"] = Field(
        "stop", description="what photographs that cannot be decoded do: stop the run, or are left out and counted"
    )


class TrainingSettings(Settings):
    """How networks that come without weights are trained: SGD with momentum and one cycle of the learning rate."""

    epochs: int = Field(8, gt=0, description="passes over the training images")
    batch_size: int = Field(128, gt=1, description="images per gradient step")
    learning_rate: float = Field(0.2, gt=0, description="peak learning rate")
    weight_decay: float = Field(1e-2, ge=0, description="L2 penalty on the weights")
    rng_seed: int = Field(0, ge=0, lt=2**32, description="names the initial weights and the order of the images")


class PairSettings(Settings):
    """How many (seed, target) pairs, and how they are cut into shards."""

    count: int = Field(512, ge=4, description="pairs; every target is another image")
    shard_size: int = Field(
        32, ge=4, description="pairs per shard: the unit of work, of resuming, and of the jackknife"
    )
    rng_seed: int = Field(0, ge=0, lt=2**32, description="names the draw: pair k is the same in a longer run")

    @property
    def shards(self) -> int:
        return self.count // self.shard_size

    @model_validator(mode="after")
    def _whole_shards(self) -> Self:
        below = self.count - self.count % self.shard_size
        if below != self.count:
            fits = " or ".join(str(n) for n in (below, below + self.shard_size) if n)
            raise ValueError(f"count {self.count} is not a multiple of shard_size {self.shard_size}; {fits} is")
        if self.shards < 2:
            raise ValueError(
                f"count {self.count} makes one shard of {self.shard_size}; the standard error needs at least 2"
            )
        return self


STOP_REASONS = ("iterations", "loss", "nonfinite")
"""Why an image was finished: all iterations done, `stop_loss` reached, a value not finite. Stored by index."""


class InversionSettings(Settings):
    """The published recipe (Jones et al. 2022) is the default: 2000 constant steps of 1/8 with momentum 0.9."""

    preset: Literal["published", "fast"] = Field(
        "published", description="how images move; `fast` takes fewer steps to the same loss"
    )
    iterations: int = Field(2000, gt=0, description="gradient steps per image")
    step_size: float = Field(0.125, gt=0, description="L2 length of one step, pixels in [0, 1]; published only")
    momentum: float = Field(0.9, ge=0, lt=1, description="weight of the past in the averaged direction; published only")
    stop_loss: float | None = Field(
        None, gt=0, description="relative loss at which an image is finished; null: all iterations, as published"
    )
    precision: Literal["float32", "float16", "bfloat16", "auto"] = Field(
        "float32",
        description="of the network while images are inverted; `auto` tries what the device has, once for each network",
    )
    batch_size: int | None = Field(
        None,
        gt=0,
        description="images inverted at once, changes rounding only; null: what memory holds, at most 32 (GPU: 256)",
    )
    stored_as: Literal["uint16", "float32"] = Field(
        "uint16", description="of inverted images: fixed point with 65535 steps, or floats of twice the bytes"
    )
    tolerance: float = Field(
        0.1, gt=0, description="median final relative loss above which a network is 'not converged'"
    )

    @model_validator(mode="after")
    def _numbers_belong_to_the_preset(self) -> Self:
        if self.preset != "published":
            for name in ("step_size", "momentum"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} belongs to the preset published; {self.preset} sets its own, leave it out"
                    )
        return self


class SweepSettings(Settings):
    """Everything that a sweep's numbers depend on."""

    images: ImageSettings = ImageSettings()
    networks: Annotated[tuple[str, ...], Field(strict=False, min_length=2)] = Field(
        description="references `[name=]source:name[@weights]`, of the sources " + ", ".join(NETWORK_FORMS)
    )
    training: TrainingSettings = TrainingSettings()
    pairs: PairSettings = PairSettings()
    inversion: InversionSettings = InversionSettings()

    @model_validator(mode="after")
    def _names_are_names(self) -> Self:
        names = [network_name(reference) for reference in self.networks]
        for reference, name in zip(self.networks, names, strict=True):
            if not NAME.fullmatch(name):
                raise ValueError(f"network {reference!r} is called {name!r}; letters, digits and '._-' make a name")
        folded = [name.casefold() for name in names]  # names become files, and some file systems know no case
        twice = [name for name in names if folded.count(name.casefold()) > 1]
        if twice:
            raise ValueError(f"two networks are called {twice[0]!r}; give one another name: 'other={self.networks[0]}'")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(network_name(reference) for reference in self.networks)

    def reference(self, name: str) -> str:
        """The reference of the network called `name`, without the name it was given."""
        for reference in self.networks:
            if network_name(reference) == name:
                return reference.partition("=")[2] if _is_named(reference) else reference
        raise SettingsError(f"no network {name!r} in these settings{nearest(name, self.names)}")

    def digest(self) -> str:
        """16 hex digits that name the run: the same settings give the same digest on every machine."""
        content = {"algorithm": ALGORITHM, "settings": self.model_dump(mode="json", exclude_defaults=True)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_settings(source: str, overrides: Iterable[str] = ()) -> SweepSettings:
    """Settings from a YAML file, or the name of one that comes with netsim (`demo`), with `key.key=value` changes.

    Raises SettingsError, in a line or two: a missing file, broken YAML, an unknown key, a value that does not fit.
    """
    values = read_settings(source, overrides)
    values.pop("cluster", None)  # where the sweep executes: flows/clusters/settings.py
    return parse_settings(values, origin=source)


def read_settings(source: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The same as they stand there, not checked yet, with the group `cluster` if there is one."""
    values = _read_yaml(source)
    for override in overrides:
        _override(values, override)
    return values


def parse_settings(values: Mapping[str, Any], *, origin: str = "settings") -> SweepSettings:
    """The same from a mapping. Raises SettingsError naming the first thing that is wrong with it."""
    try:
        return SweepSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{origin}: {explain(error, SweepSettings)}") from None


def explain(error: ValidationError, of: type[BaseModel]) -> str:
    """The first fault of a value that should be such a model, in one line: where, what came, what fits."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return f"no setting {'.'.join(place)!r}{nearest(place[-1], _fields_at(of, place[:-1]))}"
    if first["type"] == "missing":
        return f"the setting {'.'.join(place)!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{'.'.join(place)}: {message}".removeprefix(": ")
    return f"{'.'.join(place)}: got {_brief.repr(first['input'])}; {message[0].lower()}{message[1:]}"


_brief = Repr()  # aliases of YAML make a page of a line
_brief.maxlevel = 2
_brief.maxstring = _brief.maxother = 200


def _fields_at(model: Any, place: list[str]) -> Iterable[str]:
    for part in place:
        model = model.model_fields[part].annotation
    return model.model_fields


def shipped_sweeps() -> dict[str, Any]:
    """The settings files that come with netsim, by name."""
    folder = files("deploy") / "sweeps"
    return {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def shipped_settings(name: str) -> SweepSettings:
    """The settings called `name` that come with netsim, whatever lies in the working directory."""
    return parse_settings(_parse(shipped_sweeps()[name].read_text(), name), origin=name)


def _read_yaml(source: str) -> dict[str, Any]:
    path, shipped = Path(source), shipped_sweeps()
    if (path / "zarr.json").exists():
        raise SettingsError(
            f"{source} is a run, not a settings file; `netsim run --store {quote(source)}` goes on with it"
        )
    if not path.is_file():
        if source not in shipped:
            raise SettingsError(f"no settings file {source!r}, and no sweep of that name{nearest(source, shipped)}")
        return _parse(shipped[source].read_text(), source)
    try:
        return _parse(path.read_text(), source)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read settings from {source}: {error}") from None


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise SettingsError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{source} holds {type(values).__name__}, not settings (`networks: [...]` and so on)")
    return values


class _Loader(yaml.SafeLoader):
    """PyYAML takes 1e-3 for text, as YAML 1.1 did; YAML 1.2 and everybody who types it mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SettingsError(f"--set {override!r} is not key=value, as in `--set inversion.iterations=500`")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise SettingsError(f"--set {override!r}: {parent!r} is a value, not a group of settings")
    try:
        values[last] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise SettingsError(f"--set {override!r}: {text!r} is not a YAML value") from None
