"""`netsim settings`: the reference of every setting, generated from the models that check them."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from flows.cli.options import Debug, Json
from netsim.errors import SettingsError, nearest

TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "null",
}
"""Types in words, by their names in a JSON schema."""

BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
"""Signs of bounds, by their names in a JSON schema."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes
    ----------
    name
        Its place in a settings file, as in `inversion.iterations`, or `networks[].group` of a mapping in a list.
    group
        Title of the group that it belongs to.
    range
        Type and valid values, in words.
    default
        Meaningless if `required`.
    unit
        Unit of a number; "" for text, and for numbers without one.
    """

    name: str
    group: str
    range: str
    required: bool
    default: Any
    unit: str
    description: str


def list_settings() -> list[Setting]:
    """List every setting of a settings file, by group, in the order of the models."""
    from flows.clusters.settings import KINDS
    from netsim.settings import SweepSettings

    settings = list(_settings(SweepSettings, "", ""))
    for kind, model in KINDS.items():
        settings += _settings(model, "cluster.", f"cluster of kind {kind}")
    groups = list(dict.fromkeys(setting.group for setting in settings))
    return sorted(settings, key=lambda setting: groups.index(setting.group))


def _settings(model: type[BaseModel], prefix: str, group: str) -> Iterator[Setting]:
    schema = model.model_json_schema()
    yield from _properties(schema, schema.get("$defs", {}), prefix, group)


def _properties(schema: dict[str, Any], models: dict[str, Any], prefix: str, group: str) -> Iterator[Setting]:
    """Yield the settings of a model, given by its JSON schema, and of the models in it."""
    for key, field in schema["properties"].items():
        options = [*field.get("anyOf", [field]), *field.get("allOf", [])]
        options += [part for option in options for part in option.get("items", {}).get("anyOf", [])]
        inner = [models[option["$ref"].rpartition("/")[2]] for option in options if "$ref" in option]
        name = f"{prefix}{key}"
        if not inner or "description" in field:
            yield Setting(
                name=name,
                group=group or (prefix.rstrip(".") or "networks and observers"),
                range=_range(field),
                required=key in schema.get("required", []),
                default=field.get("default"),
                unit=field.get("unit", ""),
                description=field.get("description", ""),
            )
        for each in inner if name != "observers" else []:  # like networks
            below = f"{name}[]." if field.get("type") == "array" else f"{name}."
            yield from _properties(each, models, below, group)


def _range(field: dict[str, Any]) -> str:
    """Describe type and valid values of a field."""
    return " or ".join(dict.fromkeys(_option(option) for option in field.get("anyOf", [field])))


def _option(option: dict[str, Any]) -> str:
    if "const" in option:
        return str(option["const"])
    if "enum" in option:
        return ", ".join(map(str, option["enum"]))
    bounds = [f"{sign} {option[bound]:,}" for bound, sign in BOUNDS.items() if bound in option]
    return " ".join([TYPES[option.get("type", "object")], *([", ".join(bounds)] if bounds else [])])


def settings(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Settings or groups, such as `inversion`.", show_default="all"),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the reference of every setting: default, valid values, unit and meaning.

    For example:

    * `netsim settings`
    * `netsim settings inversion pairs.count`
    """
    from flows.cli import console

    known = list_settings()
    for name in names or []:
        if not any(_is_in(setting, name) for setting in known):
            groups = {setting.name.partition(".")[0] for setting in known} | {setting.name for setting in known}
            raise SettingsError(f"NAME must be a setting or a group of them, got {name!r}{nearest(name, groups)}")
    shown = [setting for setting in known if not names or any(_is_in(setting, name) for name in names)]
    if as_json:
        print(json.dumps([asdict(setting) for setting in shown], indent=2))
        return
    group = ""
    for setting in shown:
        if setting.group != group:
            console.say(f"{setting.group}:", "bold")
            group = setting.group
        default = "required" if setting.required else f"default {json.dumps(setting.default)}"
        unit = f", in {setting.unit}" if setting.unit else ""
        console.say(f"  {setting.name}  ({default}; {setting.range}{unit})")
        if setting.description:
            console.say(f"      {setting.description}", indent=6)


def _is_in(setting: Setting, name: str) -> bool:
    return setting.name == name or setting.name.startswith((f"{name}.", f"{name}[]."))
