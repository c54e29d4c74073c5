"""Pages that are generated from code: every setting, and every command.

`make reference` writes docs/reference/settings.md and docs/reference/cli.md.
"""

import re
import textwrap
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from flows.cli.main import app
from flows.clusters.settings import KINDS
from netsim.settings import (
    AdversarialSettings,
    ImageSettings,
    InversionSettings,
    NetworkSettings,
    PairSettings,
    SweepSettings,
    TrainingSettings,
    UntilSettings,
)

ROOT = Path(__file__).parents[2]
WIDTH = 100
GROUPS: dict[str, tuple[str, type[BaseModel]]] = {
    "images": ("images.", ImageSettings),
    "networks and observers": ("", SweepSettings),
    "one network": ("networks[].", NetworkSettings),
    "training": ("training.", TrainingSettings),
    "training.adversarial": ("training.adversarial.", AdversarialSettings),
    "pairs": ("pairs.", PairSettings),
    "pairs.until": ("pairs.until.", UntilSettings),
    "inversion": ("inversion.", InversionSettings),
}
"""Title of each group of settings: the path of its settings, and the class that has them."""

SETTINGS = """# Settings

Every setting of a sweep, as it stands in a settings file, in the form of the Prefect UI, or behind
`--set`, as in `--set training.weight_decay=0.001`. This page is made from the code
(`netsim/settings.py`, `flows/clusters/settings.py`) by `make reference`.

Nothing but `networks` is required. `null` is what to write for "none"; an unknown key is an error.
`netsim plan FILE` checks a file without running it, and
[the store format](store.md) says which settings belong to a store and which only to a sweep.
"""

CLI = """# Command line

Every command of `netsim`, its arguments and its options, as `netsim COMMAND --help` has them. This
page is made from the code (`flows/cli`) by `make reference`.

Exit codes: 0 is success, 1 a run or store that failed, 2 invalid settings or an invalid command
line, 130 Ctrl-C. Networks are named by references, which [networks](../howto/networks.md) lists.
"""

SCALARS = {int: "whole number", float: "number", str: "text", bool: "true or false", dict: "mapping", tuple: "list"}
BOUNDS = {
    "gt": "above {}",
    "ge": "at least {}",
    "lt": "below {}",
    "le": "at most {}",
    "min_length": "at least {} of them",
}


def wrap(text: str, *, first: str = "", rest: str = "") -> str:
    """Wrap one paragraph."""
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def plain(value: Any) -> str:
    """Write a value as YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "[]" if value == () else f"{value:g}" if isinstance(value, float) else str(value)


def kinds(annotation: Any) -> Iterator[str]:
    """Yield the kinds of values that an annotation allows, without null."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from kinds(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from kinds(part)
    elif origin is Literal:
        yield " or ".join(f"`{plain(value)}`" for value in get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "group"
    elif annotation is not type(None):
        yield SCALARS[origin or annotation]


def bounds(field: FieldInfo) -> Iterator[str]:
    """Yield the bounds of a number, and the pattern of a text."""
    for constraint in field.metadata:
        for name, words in BOUNDS.items():
            if (bound := getattr(constraint, name, None)) is not None:
                yield words.format(plain(bound))


def setting(path: str, name: str, field: FieldInfo) -> str:
    """Describe one setting: kind, range, unit, default, description."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    parts = [" or ".join(dict.fromkeys(kinds(field.annotation))), *bounds(field)]
    parts += [f"unit: {extra['unit']}"] if "unit" in extra else []
    default = "required" if field.is_required() else f"default: `{plain(field.default)}`"
    if isinstance(field.default, BaseModel):
        default = "default: that of each of its settings"
    text = f"**`{path}{name}`** ({', '.join(parts)}; {default}). {field.description or ''}"
    return wrap(text, first="* ", rest="  ")


def group(title: str, path: str, model: type[BaseModel], *, skip: Iterable[str] = ()) -> str:
    """Describe the settings of a class."""
    summary = (model.__doc__ or "").strip().split("\n\n")[0]
    fields = {name: field for name, field in model.model_fields.items() if name not in skip}
    listed = "\n".join(setting(path, name, field) for name, field in fields.items())
    head = "" if model is SweepSettings else f"{wrap(summary)}\n\n"
    return f"## {title}\n\n{head}{listed}\n"


def settings_page() -> str:
    """Return the page of all settings."""
    groups = []
    for title, (path, model) in GROUPS.items():
        others = () if model is not SweepSettings else set(SweepSettings.model_fields) - {"networks", "observers"}
        groups.append(group(title, path, model, skip=others))
    for kind, model in KINDS.items():
        groups.append(group(f"cluster, kind {kind}", "cluster.", model, skip=("kind",)))
    return "\n".join([SETTINGS, *groups])


def documented_settings() -> set[str]:
    """Return the name of every setting there is."""
    models = [model for _, model in GROUPS.values()] + list(KINDS.values())
    return {name for model in models for name in model.model_fields}


def paragraphs(text: str) -> str:
    """Wrap a help text, paragraph by paragraph; lists and code stay as they are."""
    blocks = re.split(r"\n\s*\n", textwrap.dedent(text).strip().replace("\b\n", "").replace("\f", "\n\n"))
    return "\n\n".join(block(text) for text in blocks)


def block(text: str) -> str:
    """Wrap a paragraph, or each item of a list; code stays as it is."""
    if re.match(r" {4}|```", text):
        return text
    if not re.match(r"[*-] ", text):
        return wrap(text)
    items = re.split(r"\n(?=[*-] )", text)
    return "\n".join(wrap(item[2:], first="* ", rest="  ") for item in items)


def parameter(item: click.Parameter) -> str:
    """Describe an argument or an option."""
    help_text = getattr(item, "help", None) or ""
    names = "`, `".join([*item.opts, *item.secondary_opts])
    metavar = item.metavar or ("" if getattr(item, "is_flag", False) else item.type.name.upper())
    if isinstance(item, click.Argument):
        names, metavar = metavar or str(item.name).upper(), ""
    label = f"**`{names}{' ' + metavar if metavar else ''}`**"
    shown = getattr(item, "show_default", None)
    default = shown if isinstance(shown, str) else None
    if default is None and shown and item.default not in (None, False, ()) and not callable(item.default):
        default = f"`{plain(item.default)}`"
    required = " Required." if item.required else ""
    return wrap(f"{label}: {help_text}{required}{f' Default: {default}.' if default else ''}", first="* ", rest="  ")


def command(name: str, item: click.Command) -> str:
    """Describe one command."""
    context = click.Context(item, info_name=f"netsim {name}")
    usage = " ".join(item.collect_usage_pieces(context)).replace("{", "").replace("}", "")
    parameters = [p for p in item.params if "--help" not in p.opts and not getattr(p, "hidden", False)]
    listed = "\n".join(parameter(p) for p in parameters)
    about = paragraphs(item.help or "")
    return f"## netsim {name}\n\n    netsim {name} {usage}\n\n{about}\n\nArguments and options:\n\n{listed}\n"


def cli_page() -> str:
    """Return the page of all commands, in the order of `netsim --help`."""
    commands: dict[str, click.Command] = get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([CLI, *(command(name, item) for name, item in commands.items())])


PAGES = {"docs/reference/settings.md": settings_page, "docs/reference/cli.md": cli_page}


def main() -> None:
    """Write both pages."""
    for path, render in PAGES.items():
        (ROOT / path).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
