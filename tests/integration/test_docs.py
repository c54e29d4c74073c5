"""The documentation names only what exists: files, modules, pages and their headings, commands and their options."""

import pkgutil
import re
from pathlib import Path

import pytest
from typer.main import get_command

from flows.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = (
    *("README.md", "SECURITY.md", "CONTRIBUTING.md", "deploy/README.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
)
FOLDERS = "netsim|tasks|flows|tests|docs|deploy|benchmarks"
PATH = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/(?:[\w.-]+/)*(?:[\w.-]+\.(?:py|md|ya?ml|json|j2|png|env))?")
MODULE = re.compile(r"(?<![\w./:-])(?:netsim|tasks|flows|benchmarks)(?:\.[A-Za-z_]\w*)+(?![\w-])")
LINK = re.compile(r"\]\((?![a-z]+:)([^)#]*)(?:#([^)]*))?\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4,}\S.*$", re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
COMMAND = re.compile(r"(?:^\s*|&& |[A-Z_]+=\S* )(?:\.venv/bin/)?netsim ([a-z]\w*)([^#|&]*)")
OPTION = re.compile(r"(?<!\S)(--?[a-z][\w-]*)")
EVENTS = re.compile(r"netsim\.(?:shards|run)\b")
"""Names of Prefect events begin like those of modules."""


def paths(text: str) -> set[str]:
    """Return the paths that `text` names, without those of a placeholder such as formats/NAME.py."""
    return {path.rstrip("/") for path in PATH.findall(text) if Path(path).stem != "NAME"}


def modules(text: str) -> set[str]:
    """Return the dotted names that `text` has: netsim.store.run, netsim.open_run."""
    names = {name for name in MODULE.findall(text) if not EVENTS.match(name)}
    return {name for name in names if name.rpartition(".")[2] not in ("md", "py", "yaml")}


def commands(text: str) -> set[tuple[str, str]]:
    """Return each command of netsim that code in `text` has, with each of its options; without one, with ""."""
    blocks = [*FENCED.findall(text), *INDENTED.findall(FENCED.sub("", text))]
    prose = INDENTED.sub("", FENCED.sub("", text))
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [code.replace("\n", " ") for code in INLINE.findall(prose)]
    used = [match.groups() for line in lines for match in COMMAND.finditer(line)]
    return {(command, option) for command, rest in used for option in ["", *OPTION.findall(rest)]}


def known_commands() -> dict[str, set[str]]:
    """Map each command of netsim to its options, with ""."""
    group = get_command(app)
    return {
        name: {"", "--help", *(option for parameter in command.params for option in parameter.opts)}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def exists(name: str) -> bool:
    """Tell whether a dotted name is a module or lies in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_every_way_to_name_a_file_or_a_module_is_seen():
    text = (
        "see `netsim/a/b.py`, (tests/unit/), netsim/NAME.py, ../netsim/c.py; `netsim.a.b`, netsim.d. https://x/netsim/e"
    )
    assert paths(text) == {"netsim/a/b.py", "tests/unit"}
    assert modules(text) == {"netsim.a.b", "netsim.d"}
    code = "`netsim\nplan a --store b`, netsim is\n```sh\nA=. netsim add -o c # --d\nkubectl -n netsim get\n```\n"
    assert commands(f"{code}    .venv/bin/netsim list | head --e\n") == {
        ("plan", ""),
        ("plan", "--store"),
        ("add", ""),
        ("add", "-o"),
        ("list", ""),
    }
    assert anchors("# One\n## Two `words`, three\n") == {"one", "two-words-three"}
    assert [exists(name) for name in ("netsim.errors.NetsimError", "netsim.errors.Missing", "netsim.missing")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_path_on_a_page_exists(page):
    assert [path for path in sorted(paths((ROOT / page).read_text())) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_module_on_a_page_exists(page):
    assert [name for name in sorted(modules((ROOT / page).read_text())) if not exists(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_on_a_page_exists(page):
    known = known_commands()
    used = commands((ROOT / page).read_text())
    assert sorted((command, option) for command, option in used if option not in known.get(command, ())) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    broken = []
    for target, anchor in LINK.findall((ROOT / page).read_text()):
        file = (ROOT / page).parent / target if target else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(f"{target}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("page", ["README.md", "docs/design.md", "docs/store.md"])
def test_a_page_of_the_project_names_many_places(page):
    """A pattern that sees nothing would let everything pass."""
    assert len(paths((ROOT / page).read_text())) >= 1


def test_the_readme_shows_most_commands():
    used = {command for command, _ in commands((ROOT / "README.md").read_text())}
    assert len(used & known_commands().keys()) >= 10
