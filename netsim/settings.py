"""Settings of a sweep: one frozen, strict class for the YAML file, the form in the Prefect UI, and the store.

Settings are of three kinds. The protocol (`images`, `pairs` without `count` and `until`, `inversion` without its
tolerance) is shared by all values of a store; netsim/store/protocol.py digests it. Members (`networks`, `observers`,
`pairs.count`) are added to a store, and `pairs.until` says when enough are. The rest is presentation: names, groups,
order, `inversion.tolerance`. Settings that only say *where* a run executes (`cluster:`) are in
flows/clusters/settings.py, because they change no number.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from itertools import product
from pathlib import Path
from reprlib import Repr
from shlex import quote
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from netsim.errors import SettingsError, closest, nearest
from netsim.references import (
    IMAGE_SOURCES_HELP,
    NAME,
    NETWORK_FORMS,
    images_with_absolute_path,
    is_trained_here,
    network_name,
    with_absolute_paths,
    without_name,
)

# Raised when a change to the code, or to the default of a setting, alters stored numbers: old and new never mix.
ALGORITHM = 5

# Reasons why the inversion of an image ended: all iterations done, `stop_loss` reached, a value not finite. The store
# keeps the index.
STOP_REASONS = ("iterations", "loss", "nonfinite")


def complete_form(schema: dict[str, Any]) -> None:
    """Complete the JSON schema of settings, in place, with what the form in the Prefect UI shows of it.

    The form orders fields by `position`, because a server on PostgreSQL does not keep their order. It labels fields,
    and the alternatives of one, with their titles: these are the names that settings files and errors have.
    """
    for position, (name, field) in enumerate(schema["properties"].items()):
        field |= {"title": name, "position": -1 if "const" in field else position}  # the kind of a cluster comes first
        for option in field.get("anyOf", ()):
            if option.get("type") == "null":
                option["title"] = "null"
        if "const" in field:
            field["enum"] = [field["const"]]  # a choice instead of a text


class Settings(BaseModel):
    """Base class of all settings: immutable, and a misspelt key is an error instead of a default."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra=complete_form
    )


@dataclass(frozen=True)
class Form:
    """Annotation that changes the JSON schema of a value, of which the Prefect UI makes its form."""

    change: Callable[[dict[str, Any]], dict[str, Any]]

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the changed schema, to pydantic."""
        return self.change(handler(core))


class ImageSettings(Settings):
    """The images: networks are trained on the `train` split, pairs are drawn from the `test` split."""

    source: str = Field(
        "fashion-mnist",
        description="Image set, by reference; PATH, FOLDER and FILE may be URLs, as in s3://bucket/images. "
        f"{IMAGE_SOURCES_HELP}.",
    )
    size: int | None = Field(
        None,
        gt=0,
        json_schema_extra={"unit": "pixels"},
        description="Height and width of the images in pixels; null: 224 for photographs, otherwise the stored size.",
    )
    unreadable: Literal["stop", "skip"] = Field(
        "stop", description="Action for photographs that cannot be decoded: stop the run, or skip and count them."
    )
    class_order: Literal["listed", "natural"] = Field(
        "listed",
        description="Order of the classes, which must be that of the networks' outputs: as the source lists them, "
        "folders sorted as text (1, 10, 2) like ImageFolder; or natural, with numbers in names as numbers (1, 2, 10).",
    )


class AdversarialSettings(Settings):
    """Adversarial training: every image is replaced by the worst that an attack finds near it (Madry et al. 2018)."""

    model_config = ConfigDict(title="attack")

    norm: Literal["l2", "linf"] = Field(
        "l2", description="Norm that distances from the image are measured by: L2, or the largest change of a pixel."
    )
    eps: float = Field(gt=0, description="Largest distance from the image, for pixels in [0, 1].")
    steps: int = Field(3, gt=0, description="Gradient steps of an attack; each costs as much as a training step.")
    step_size: float | None = Field(
        None, gt=0, description="Length of one step; null: 2 eps / steps, as Salman et al. 2020 train."
    )
    random_start: bool = Field(False, description="Start at a random point near the image, instead of the image.")

    @property
    def length(self) -> float:
        """Length of one step, for pixels in [0, 1]."""
        return 2 * self.eps / self.steps if self.step_size is None else self.step_size


TrainingPrecision = Literal["float32", "bfloat16"]


class TrainingSettings(Settings):
    """Training of networks that come without weights: SGD with momentum and one cycle of the learning rate."""

    epochs: int = Field(8, gt=0, json_schema_extra={"unit": "epochs"}, description="Passes over the training images.")
    batch_size: int = Field(128, gt=1, json_schema_extra={"unit": "images"}, description="Images per gradient step.")
    learning_rate: float = Field(0.2, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(1e-2, ge=0, description="L2 penalty on the weights.")
    rng_seed: int = Field(
        0, ge=0, lt=2**32, description="Random seed of the initial weights and of the order of the images."
    )
    augmentation: Literal["none", "mirror", "crop"] = Field(
        "mirror",
        description="Random change of each image: none, mirroring left to right, or also moving by up to an eighth of "
        "the side, as is usual for CIFAR.",
    )
    adversarial: AdversarialSettings | None = Field(
        None, description="Attack on the images, for a robust network; null: standard training."
    )
    precision: TrainingPrecision = Field(
        "float32",
        description="Precision of convolutions and products in training; weights are float32. bfloat16 is faster on "
        "GPUs and processors that have it, and slower on others.",
    )


class UntilSettings(Settings):
    """Rule by which a sweep stops before it has all of its pairs: at a width, or when two rows are told apart."""

    model_config = ConfigDict(title="rule")

    half_width: float | None = Field(
        None, gt=0, description="Stop when the 95 % interval reaches at most this far to either side."
    )
    of: str | None = Field(
        None,
        description="What half_width is of: the `mean` of the inverted matrix, all of its `rows`, or the row of the "
        "network of this name; null: mean.",
    )
    differ: Annotated[tuple[str, ...], Field(strict=False)] | None = Field(
        None, description="Stop when the means of the inverted rows of these two networks are known to differ."
    )
    delta: float | None = Field(
        None, gt=0, description="With `differ`: stop, too, when they are known to differ by less than this."
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.half_width is None) == (self.differ is None):
            raise ValueError(
                f"must have either half_width or differ, got {'neither' if self.differ is None else 'both'}; "
                "write {half_width: 0.02} or {differ: [a, b], delta: 0.02}"
            )
        for name, rule in (("of", "half_width"), ("delta", "differ")):
            if getattr(self, name) is not None and getattr(self, rule) is None:
                raise ValueError(f"{name} requires {rule}, got {brief(getattr(self, name))}; remove {name}")
        if self.differ is not None and len(set(self.differ)) + len(self.differ) != 4:
            raise ValueError(f"differ must be two different networks, got {brief(list(self.differ))}")
        return self

    @property
    def rows(self) -> tuple[str, ...]:
        """Networks whose rows the rule names."""
        return self.differ or ((self.of,) if self.of not in (None, *WHOLE_MATRIX) else ())


WHOLE_MATRIX = ("mean", "rows")
"""What `half_width` may be of, besides one row."""


class PairSettings(Settings):
    """The number of (seed, target) pairs, and how they are split into shards."""

    count: int = Field(
        512,
        ge=4,
        json_schema_extra={"unit": "pairs"},
        description="Number of (seed, target) pairs, a multiple of shard_size; no target occurs twice. With `until`, "
        "the most that are used.",
    )
    until: UntilSettings | None = Field(
        None, description="Stop before `count` pairs when the results are known: half_width, of; or differ, delta."
    )
    # The default does not depend on `count`: a store keeps its shard size when its pairs grow.
    shard_size: int = Field(
        32,
        ge=4,
        json_schema_extra={"unit": "pairs"},
        description="Pairs per shard, the unit of work, of resuming and of the jackknife standard error; "
        "errors and intervals need at least 8 shards.",
    )
    rng_seed: int = Field(
        0, ge=0, lt=2**32, description="Random seed of the pairs; pair k does not depend on how many pairs there are."
    )
    seed_labels: Literal["other", "any"] = Field(
        "other",
        description="Labels of seeds: other than the target's, as published, or any. With few classes, `other` lets "
        "the class of the seed tell that of the target.",
    )
    seed_draw: int = Field(
        0, ge=0, lt=2**32, description="Which draw of seeds: another number gives the same targets other seeds."
    )

    @property
    def shards(self) -> int:
        """The number of shards."""
        return self.count // self.shard_size

    @model_validator(mode="after")
    def _whole_shards(self) -> Self:
        below = self.count - self.count % self.shard_size
        if below != self.count:
            valid = " or ".join(str(n) for n in (below, below + self.shard_size) if n)
            raise ValueError(
                f"count must be a multiple of shard_size ({self.shard_size}), got {self.count}; use {valid}"
            )
        if self.shards < 2:
            raise ValueError(
                f"count must be at least {2 * self.shard_size}, two shards, got {self.count}; "
                "the standard error requires two shards, so raise count or lower shard_size"
            )
        if self.until is not None:
            self._require_a_look()
        return self

    def _require_a_look(self) -> None:
        """Raise ValueError for fewer shards than the first look of `until` has."""
        from netsim.similarity.uncertainty import ENOUGH_SHARDS  # loads numpy, which no command waits for

        if self.shards < ENOUGH_SHARDS:
            raise ValueError(
                f"until requires at least {ENOUGH_SHARDS} shards, the first look, got {self.shards}; raise count "
                f"({self.count}) or lower shard_size ({self.shard_size})"
            )


class InversionSettings(Settings):
    """Inversion; the default is the published recipe (Jones et al. 2022), 2000 steps of length 1/8, momentum 0.9."""

    preset: Literal["published", "fast"] = Field(
        "published",
        description="Update rule of the images: the published one, or `fast`, which reaches the same loss in two to "
        "five times fewer iterations.",
    )
    iterations: int = Field(
        2000, gt=0, json_schema_extra={"unit": "steps"}, description="Maximum number of gradient steps per image."
    )
    step_size: float = Field(
        0.125, gt=0, description="L2 length of one step, for pixels in [0, 1]; used by the preset `published` only."
    )
    momentum: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="Weight of earlier steps in the averaged descent direction; used by the preset `published` only.",
    )
    stop_loss: float | None = Field(
        None,
        gt=0,
        description="Relative loss at which the inversion of an image stops; null: run all iterations, as published.",
    )
    precision: Literal["float32", "tf32", "float16", "bfloat16", "auto"] = Field(
        "float32",
        description="Numeric precision of the network during inversion; tf32 is float32 with factors that a GPU rounds "
        "to 10 bits; `auto` measures once per network which one is fastest and changes no representation by more than "
        "1 %.",
    )
    batch_size: int | None = Field(
        None,
        gt=0,
        json_schema_extra={"unit": "images"},
        description="Images inverted at once, which changes rounding only; null: as many as fit into memory, at most "
        "32 (on a GPU: 256).",
    )
    stored_as: Literal["uint16", "float32"] = Field(
        "uint16",
        description="Stored type of inverted images: fixed point with steps of 1/65535, or floats of twice the size.",
    )
    tolerance: float = Field(
        0.1,
        gt=0,
        description="Final relative loss above which an image counts as not converged, and a network with more than "
        "5 % of such images.",
    )

    @model_validator(mode="after")
    def _only_published_has_step_and_momentum(self) -> Self:
        if self.preset != "published":
            for name in ("step_size", "momentum"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} requires the preset published, got {self.preset}, which sets its own; remove {name}"
                    )
        return self


@dataclass(frozen=True)
class Member:
    """A network of a sweep, as its settings name it.

    Attributes
    ----------
    name
        Name in results.
    reference
        `source:name[@weights]`.
    training
        How it is trained; None for a network that comes with weights.
    group
        Networks of one group are replicates of each other.
    """

    name: str
    reference: str
    training: TrainingSettings | None
    group: str


def _changes(_: Any) -> dict[str, Any]:
    """Return the form of some settings of the group `training`: a field for each, without its default."""
    fields = _form_fields(TrainingSettings)
    return {"type": "object", "title": "changes", "properties": fields, "additionalProperties": False}


def _grid(_: Any) -> dict[str, Any]:
    """Return the form of a grid: a list for each setting of `training` and of its `adversarial`; other keys may be."""
    settings = _form_fields(TrainingSettings) | _form_fields(AdversarialSettings)
    lists = {
        name: {
            "type": "array",
            "title": name,
            "description": field["description"],
            "position": position,
            "items": {key: field[key] for key in ("type", "enum", "anyOf") if key in field},
        }
        for position, (name, field) in enumerate(settings.items())
        if name != "adversarial"
    }
    return {"type": "object", "title": "values", "properties": lists, "additionalProperties": {"type": "array"}}


def _form_fields(model: type[Settings]) -> dict[str, Any]:
    schema = model.model_json_schema()
    return _inlined(schema["properties"], schema.get("$defs", {}))


def _inlined(schema: Any, models: Mapping[str, Any]) -> Any:
    """Return a JSON schema without defaults, and with the models that it refers to."""
    if isinstance(schema, list):
        return [_inlined(each, models) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(models[schema["$ref"].rpartition("/")[2]], models)
    return {key: _inlined(value, models) for key, value in schema.items() if key != "default"}


class NetworkSettings(Settings):
    """A network with settings of its own, or, with `grid`, several: one for each combination of the grid's values."""

    model_config = ConfigDict(title="mapping")

    reference: str = Field(description="The network, as `source:name[@weights]`; `{key}` is replaced by grid values.")
    name: str | None = Field(
        None, description="Name in results; null: that of the architecture, with the values of the grid."
    )
    training: Annotated[dict[str, Any], Form(_changes)] | None = Field(
        None, description="Changes to the group `training` for this network, as in {rng_seed: 1, epochs: 16}."
    )
    group: str | None = Field(
        None,
        description="Networks of one group are replicates; null: those of a grid that differ in `rng_seed` only.",
    )
    grid: Annotated[dict[str, Annotated[tuple[Any, ...], Field(strict=False)]], Form(_grid)] | None = Field(
        None,
        description="Values by key, of which every combination is a network: settings of `training` or of its "
        "`adversarial`, where an eps of 0 trains standard, and keys in `reference` or `name`.",
    )

    @model_serializer(mode="wrap")
    def _without_null(self, serialize: Any) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}

    def members(self, training: TrainingSettings) -> Iterator[Member]:
        """Yield the networks; `training` is what `self.training` changes. Raises ValueError for invalid settings."""
        combinations = list(self._combinations())
        names = [self._name(values) for values in combinations]
        self._require_keys_in_name(names)
        seen: dict[tuple[str, str], str] = {}
        for values, name in zip(combinations, names, strict=True):
            member = self._member(training, values, name)
            made_of = member.reference, repr(member.training)
            if self.grid and made_of in seen:
                raise ValueError(
                    f"the grid must make different networks, got {name} equal to {seen[made_of]}; "
                    "remove a value from the grid"
                )
            seen[made_of] = name
            yield member

    def _member(self, training: TrainingSettings, values: Mapping[str, Any], name: str) -> Member:
        """Return the network of some values of the grid."""
        reference = _filled(self.reference, values)
        changes = (self.training or {}) | {key: value for key, value in values.items() if key in _TRAINING}
        attack = {key: value for key, value in values.items() if key in _ATTACK}
        if attack:
            changes["adversarial"] = _attack(training, changes, attack)
        replicated = {key: value for key, value in values.items() if key != "rng_seed"}
        group = self.group or (self._label(replicated) if self.grid else name)
        return Member(name, without_name(reference), _training(training, changes, name, reference), group)

    def _name(self, values: Mapping[str, Any]) -> str:
        """Return the name of the network of some values of the grid."""
        return self._label(values) if self.name is None else _filled(self.name, values)

    def _label(self, values: Mapping[str, Any]) -> str:
        """Return the name of the architecture with those values of the grid that are not in it."""
        label = "".join(f"-{key}{value}" for key, value in values.items() if f"{{{key}}}" not in self.reference)
        return f"{network_name(_filled(self.reference, values))}{label}"

    def _require_keys_in_name(self, names: list[str]) -> None:
        """Raise ValueError if networks of the grid have one name, because a key is not in it."""
        twice = [name for name in names if names.count(name) > 1]
        lacking = [
            f"{{{key}}}"
            for key, values in (self.grid or {}).items()
            if len(values) > 1 and f"{{{key}}}" not in (self.name or "")
        ]
        if twice and lacking:
            example = "-".join([*([self.name] if self.name else []), *lacking])
            raise ValueError(
                f"networks of a grid must have different names, got {twice[0]!r} {names.count(twice[0])} times; "
                f"put {' and '.join(lacking)} into name, as in {example!r}"
            )

    def _combinations(self) -> Iterator[dict[str, Any]]:
        grid = self.grid or {}
        for key, values in grid.items():
            used = f"{{{key}}}" in f"{self.reference} {self.name or ''}"
            if key not in _TRAINING | _ATTACK and not used:
                known = nearest(key, _TRAINING | _ATTACK)
                raise ValueError(f"the grid's key {key!r} must be a setting of training or occur in reference{known}")
            if not values:
                raise ValueError(f"the grid must have a value for {key!r}, got none")
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise ValueError(f"the grid must have each value of {key!r} once, got {twice[0]} {len(twice)} times")
        for combination in product(*grid.values()):
            yield dict(zip(grid, combination, strict=True))


_ATTACK = frozenset(AdversarialSettings.model_fields)
_TRAINING = frozenset(TrainingSettings.model_fields) - {"adversarial"}


def _attack(base: TrainingSettings, changes: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Merge the settings of an attack with a grid's; None for an eps of 0, which is no attack."""
    every = base.model_dump() | dict(changes)
    merged = (every["adversarial"] or {}) | dict(values)
    return None if merged.get("eps") == 0 else merged


def _filled(template: str, values: Mapping[str, Any]) -> str:
    """Replace each `{key}` by its value."""
    for key, value in values.items():
        template = template.replace(f"{{{key}}}", str(value))
    return template


def _training(base: TrainingSettings, changes: Mapping[str, Any], name: str, reference: str) -> TrainingSettings | None:
    """Merge the training of one network. Raises ValueError if it is invalid, or the network is not trained."""
    if not is_trained_here(without_name(reference)):
        if changes:
            raise ValueError(f"{name} must have no training of its own, got {dict(changes)}: it comes with weights")
        return None
    try:
        return TrainingSettings.model_validate(base.model_dump() | dict(changes))
    except ValidationError as error:
        raise ValueError(f"the training of {name}: {explain(error, TrainingSettings)}") from None


Networks = Annotated[tuple[Annotated[str, Field(title="reference")] | NetworkSettings, ...], Field(strict=False)]


class SweepSettings(Settings):
    """Everything that the numbers of a sweep depend on, and how they are shown."""

    images: ImageSettings = ImageSettings()
    networks: Annotated[Networks, Field(min_length=1)] = Field(
        description="Two or more networks to compare, each as `[name=]source:name[@weights]` with the sources "
        + ", ".join(NETWORK_FORMS)
        + ", or as a mapping with reference, name, training, group and grid."
    )
    observers: Networks = Field(
        (), description="Networks that only look: each is a column of both matrices, and is not inverted."
    )
    training: TrainingSettings = TrainingSettings()
    pairs: PairSettings = PairSettings()
    inversion: InversionSettings = InversionSettings()

    @model_validator(mode="after")
    def _names_are_valid_and_unique(self) -> Self:
        members = [*self.members, *self.observing]
        if len(self.members) < 2:
            raise ValueError(f"networks must be two or more, got {len(self.members)}")
        for member in members:
            if not NAME.fullmatch(member.name):
                raise ValueError(
                    "a network name must consist of letters, digits and '._-', "
                    f"got {member.name!r} in {member.reference!r}"
                )
        folded = [member.name.casefold() for member in members]  # names become files; some systems ignore case
        twice = [member for member in members if folded.count(member.name.casefold()) > 1]
        if twice:
            raise ValueError(
                f"network names must differ, got {twice[0].name!r} twice; rename one, as in "
                f"'other={twice[0].reference}'"
            )
        return self

    @model_validator(mode="after")
    def _until_names_rows(self) -> Self:
        rows = self.pairs.until.rows if self.pairs.until else ()
        groups = {member.name: member.group for member in self.members}
        for name in rows:
            if name not in groups:
                raise ValueError(f"pairs.until: no network {name!r} is inverted{nearest(name, groups)}")
        if len(rows) == 2 and len({groups[name] for name in rows}) == 1:
            raise ValueError(
                f"pairs.until.differ must be two networks of different groups, got {rows[0]} and {rows[1]} of "
                f"{groups[rows[0]]}: replicates are in no mean together"
            )
        return self

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The networks to invert and compare, in order."""
        return tuple(self._members(self.networks))

    @cached_property
    def observing(self) -> tuple[Member, ...]:
        """The networks that only look, in order."""
        return tuple(self._members(self.observers))

    def _members(self, networks: Iterable[str | NetworkSettings]) -> Iterator[Member]:
        for network in networks:
            single = NetworkSettings(reference=network) if isinstance(network, str) else network
            yield from single.members(self.training)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some settings changed, which are not validated."""
        copy = super().model_copy(update=update, deep=deep)
        for name in ("members", "observing"):  # pydantic copies what was computed from the settings before the change
            copy.__dict__.pop(name, None)
        return copy

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the networks to invert and compare, in order."""
        return tuple(member.name for member in self.members)

    def to_yaml(self) -> str:
        """Return a settings file with all settings, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_settings(source: str, overrides: Iterable[str] = ()) -> SweepSettings:
    """Load settings from a YAML file, from whose folder the paths in it start.

    Parameters
    ----------
    source
        Path of the file, or the name of one that comes with netsim, as in ``demo``.
    overrides
        Changes as ``key.key=value``, where the value is YAML.

    Raises
    ------
    SettingsError
        For a missing file, invalid YAML, an unknown key or an invalid value, in one or two lines.

    Examples
    --------
    >>> load_settings("demo", ["inversion.iterations=500"]).inversion.iterations
    500
    """
    values = read_settings(source, overrides)
    values.pop("cluster", None)  # where the sweep executes: flows/clusters/settings.py
    return parse_settings(values, origin=source)


def read_settings(source: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read settings like `load_settings`, but return them unvalidated, with the group `cluster` if there is one."""
    shipped = shipped_sweeps()
    if source in shipped and not Path(source).is_file() and not (Path(source) / "zarr.json").exists():
        values = _parse(shipped[source].read_text(encoding="utf-8"), source)
    else:
        values = read_file(source, others=shipped)
    for override in overrides:
        _override(values, override)
    return values


def locate(values: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Make the paths of images, weights and `python:` modules in unvalidated settings absolute: they start at `folder`.

    So the settings in a store mean the same in every process, wherever it works. What is no text stays as it is.
    """
    located = dict(values)
    if isinstance(images := values.get("images"), dict) and isinstance(images.get("source"), str):
        located["images"] = images | {"source": images_with_absolute_path(images["source"], folder)}
    for key in ("networks", "observers"):
        if isinstance(networks := values.get(key), list):
            located[key] = [_located_network(network, folder) for network in networks]
    return located


def _located_network(network: Any, folder: str) -> Any:
    if isinstance(network, dict) and isinstance(network.get("reference"), str):
        return network | {"reference": with_absolute_paths(network["reference"], folder)}
    return with_absolute_paths(network, folder) if isinstance(network, str) else network


def parse_settings(values: Mapping[str, Any], *, origin: str = "settings") -> SweepSettings:
    """Validate a mapping; `origin` is the file or form that error messages name.

    Raises
    ------
    SettingsError
        Naming the first invalid setting.
    """
    try:
        return SweepSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{origin}: {explain(error, SweepSettings)}") from None


MAIN_SETTINGS = {"images": "source", "pairs": "count", "inversion": "iterations", "training": "epochs"}
"""The setting that someone means who gives a group a single value."""

_short = Repr()
_short.maxlevel = 2
_short.maxstring = _short.maxother = 200


def brief(value: Any) -> str:
    """Return a value as text for an error message, in one short line: the aliases of YAML can make a page of a line."""
    return _short.repr(value)


PLAIN = {
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "string_type": "must be text",
    "too_short": "must not be empty",
}
"""Requirements in the words of YAML instead of Python's, by pydantic's type of the error."""

QUOTES = "'\""


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first error of validating `model` in one line: the setting, what it must be, and the value."""
    first = _plainest(error)
    keys = [str(part) for part in first["loc"] if part not in ("str", "NetworkSettings")]
    setting = ".".join(keys) or "settings"
    if first["type"] == "extra_forbidden":
        return f"no setting {setting!r}{nearest(keys[-1], _fields_at(model, keys[:-1]))}"
    if first["type"] == "missing":
        return f"the setting {setting!r} is missing"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{setting}: {message}" if keys else message
    if first["type"] == "invalid_key" or keys[-1:] == ["[key]"]:
        group = keys[:-1] if first["type"] == "invalid_key" else keys[:-2]
        return f"the keys of {'.'.join(group) or 'settings'} must be text, got {brief(first['input'])}"
    requirement = re.sub(r"^\w+ should ", "must ", PLAIN.get(first["type"], first["msg"]))
    single = first["type"] in ("dict_type", "model_type") and isinstance(first["input"], str | int | float)
    main = MAIN_SETTINGS.get(setting) if single else None
    hint = f". Write `{setting}: {{{main}: {brief(first['input']).strip(QUOTES)}}}`" if main else ""
    return f"{setting} {requirement}, got {brief(first['input'])}{hint}"


def _plainest(error: ValidationError) -> Any:
    """Return the error to tell: of a network that is a mapping, what is wrong in it, and not that it is no text."""
    errors = error.errors()
    if errors[0]["loc"][-1:] != ("str",):
        return errors[0]
    if isinstance(errors[0]["input"], Mapping):
        inside = [each for each in errors if "NetworkSettings" in each["loc"] and each["loc"][1] == errors[0]["loc"][1]]
        return min(inside, key=lambda each: each["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    return errors[0] | {"type": "network", "msg": "Input should be text or a mapping with `reference`"}


def _fields_at(model: Any, keys: list[str]) -> Iterable[str]:
    """Return the names of the settings in the group that `keys` lead to."""
    for key in keys:
        if key.isdigit():  # in a list of networks
            return NetworkSettings.model_fields
        annotation = model.model_fields[key].annotation
        groups = [part for part in (annotation, *get_args(annotation)) if hasattr(part, "model_fields")]
        model = groups[0] if groups else NetworkSettings
    return model.model_fields


def shipped_sweeps() -> dict[str, Any]:
    """Return the settings files that come with netsim, by name."""
    folder = files("deploy") / "sweeps"
    return {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def shipped_settings(name: str) -> SweepSettings:
    """Load the settings called `name` that come with netsim, even if the working directory has a file of that name."""
    return parse_settings(_parse(shipped_sweeps()[name].read_text(encoding="utf-8"), name), origin=name)


def read_file(source: str, *, others: Iterable[str] = (), kind: str = "settings") -> dict[str, Any]:
    """Read the mapping in a YAML file, from whose folder the paths in it start.

    Parameters
    ----------
    source
        Path of the file.
    others
        Names that could be given instead of a path.
    kind
        What the file holds, for messages.

    Raises
    ------
    SettingsError
        If there is no such file, or it holds no mapping.
    """
    path = Path(source)
    if (path / "zarr.json").exists():
        raise SettingsError(
            f"{source} is a run, not a {kind} file; resume it with `netsim run --store {quote(source)}`"
        )
    if not path.is_file():
        raise SettingsError(_no_file(source, list(others), kind))
    try:
        return locate(_parse(path.read_text(encoding="utf-8"), source), os.path.abspath(path.parent))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{source} must be UTF-8 text, got {error}; save it as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"cannot read {kind} from {source}: {error}") from None


def _no_file(source: str, others: list[str], kind: str) -> str:
    """Return the error message about a file that is missing, with the file beside it that was meant."""
    folder = Path(source).parent
    beside = [str(path) for suffix in ("yaml", "yml") for path in folder.glob(f"*.{suffix}")]
    meant = closest(source, [*beside, *others])
    tail = f"; did you mean {meant!r}?" if meant else nearest(source, others) if others else ""
    return f"no {kind} file {source!r}{', and no sweep of that name' if others else ''}{tail}"


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        values = _load_yaml(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SettingsError(
            f"{source} must hold a mapping of settings (`networks: [...]`), got {type(values).__name__}"
        )
    return values


class _Loader(yaml.SafeLoader):
    """A SafeLoader that reads 1e-3 as a number, as YAML 1.2 does; PyYAML, at YAML 1.1, reads it as text.

    A key that is given twice is an error: PyYAML would take the last. So are values of which PyYAML's own constructors
    end in errors that are not YAML's, such as 2024-13-45, and whole numbers of more than 64 bits, which nothing holds.

    Kept instead of a library: pydantic-settings loads YAML with PyYAML's own SafeLoader and takes overrides from a
    command line of its own only, and ruamel.yaml changes the meaning of other values (`yes`, `010`) in existing files.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping, and check that no key is given twice."""
        node = super().compose_mapping_node(anchor)
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for position, (tag, name) in enumerate(keys) if (tag, name) in keys[:position]), None)
        if twice is not None:
            raise yaml.MarkedYAMLError(None, None, f"the key {twice!r} is given twice", node.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value, or raise a YAMLError."""
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            raise _invalid(node, f"{brief(node.value)} is no valid {kind}") from None
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _invalid(node, "whole numbers must have at most 64 bits")
        return value


def _number_or_text(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Construct a number, but keep 24:00:00 as text, as YAML 1.2 does: to PyYAML it is 86400, in base 60."""
    if ":" in node.value:
        return loader.construct_scalar(node)
    whole = node.tag == "tag:yaml.org,2002:int"
    return loader.construct_yaml_int(node) if whole else loader.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number_or_text)

_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def _invalid(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(None, None, problem, node.start_mark)


def _load_yaml(text: str) -> Any:
    """Parse YAML; raise YAMLError for all that cannot be parsed."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def _override(values: dict[str, Any], override: str) -> None:
    """Apply `key.key=value` to nested settings in place."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SettingsError(f"--set must be key=value, got {brief(override)}; write `--set inversion.iterations=500`")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise SettingsError(f"--set {brief(override)}: {parent!r} is a single setting, not a group of settings")
    try:
        values[last] = _load_yaml(text)
    except yaml.YAMLError:
        raise SettingsError(f"--set {key}: the value must be valid YAML, got {brief(text)}") from None
