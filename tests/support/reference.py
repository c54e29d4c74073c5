"""Pages that are generated from code: every setting, and every command.

`make reference` writes docs/reference/settings.md and docs/reference/cli.md.
"""

import json
import re
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from typer.main import get_command

from flows.cli.main import app
from flows.cli.reference import Setting, list_settings

ROOT = Path(__file__).parents[2]
WIDTH = 100
SETTINGS = """# Settings

Every setting of a sweep, as it stands in a settings file, in the form of the Prefect UI, or behind
`--set`, as in `--set training.weight_decay=0.001`. This page is made from the code
(`netsim/settings.py`, `flows/clusters/settings.py`) by `make reference`;
`netsim settings` prints the same.

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


def setting(item: Setting) -> str:
    """Describe one setting: valid values, unit, default, description."""
    default = "required" if item.required else f"default: `{json.dumps(item.default)}`"
    unit = f"; unit: {item.unit}" if item.unit else ""
    return wrap(f"**`{item.name}`** ({item.range}{unit}; {default}). {item.description}", first="* ", rest="  ")


def settings_page() -> str:
    """Return the page of all settings."""
    groups = groupby(list_settings(), key=lambda item: item.group)
    parts = [f"## {title}\n\n" + "\n".join(map(setting, items)) + "\n" for title, items in groups]
    return "\n".join([SETTINGS, *parts])


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
