"""The documentation names only what exists: files, modules, pages and their headings, commands and their options.

Settings on a page are parsed, examples in Python are compiled and their imports made, pages of reference are those that
the code makes, and every page is in the navigation of the site. `make docs` builds it.
"""

import ast
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

import netsim
from flows.cli.main import app
from flows.cli.reference import list_settings
from flows.clusters.settings import parse_cluster
from netsim.settings import SweepSettings, parse_settings
from support import reference
from support.documentation import FENCED, INDENTED, INLINE, PAGES, ROOT, blocks, page_text, python_blocks

FOLDERS = "netsim|tasks|flows|tests|docs|deploy|benchmarks"
PATH = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/(?:[\w.-]+/)*(?:[\w.-]+\.(?:py|md|ya?ml|json|j2|png|env))?")
MODULE = re.compile(r"(?<![\w./:-])(?:netsim|tasks|flows|benchmarks)(?:\.[A-Za-z_]\w*)+(?![\w-])")
LINK = re.compile(r"\]\((?![a-z]+:)([^)#]*)(?:#([^)]*))?\)")
EVENTS = re.compile(r"netsim\.(?:shards|run)\b")
"""Names of Prefect events begin like those of modules."""


def paths(text: str) -> set[str]:
    """Return the paths that `text` names, without those of a placeholder such as formats/NAME.py."""
    return {path.rstrip("/") for path in PATH.findall(text) if Path(path).stem != "NAME"}


def modules(text: str) -> set[str]:
    """Return the dotted names that `text` has: netsim.store.run, netsim.open_run."""
    names = {name for name in MODULE.findall(text) if not EVENTS.match(name)}
    return {name for name in names if name.rpartition(".")[2] not in ("md", "py", "yaml")}


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
    assert anchors("# One\n## Two `words`, three\n") == {"one", "two-words-three"}
    assert [exists(name) for name in ("netsim.errors.NetsimError", "netsim.errors.Missing", "netsim.missing")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_path_on_a_page_exists(page):
    assert [path for path in sorted(paths(page_text(page))) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_module_on_a_page_exists(page):
    assert [name for name in sorted(modules(page_text(page))) if not exists(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    broken = []
    for target, anchor in LINK.findall(page_text(page)):
        file = (ROOT / page).parent / target if target else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(f"{target}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("page", ["README.md", "docs/project/design.md", "docs/reference/store.md"])
def test_a_page_of_the_project_names_many_places(page):
    """A pattern that sees nothing would let everything pass."""
    assert len(paths(page_text(page))) >= 1


def settings_blocks(text: str) -> Iterator[dict]:
    """Yield the settings in each block that is a settings file or a part of one."""
    groups = {*SweepSettings.model_fields, "cluster"}
    for block in blocks(text):
        lines = [line for line in block.splitlines() if line.strip() and not line.startswith(("#", "-"))]
        if "<<'EOF'" in block:
            lines = block.partition("<<'EOF'\n")[2].partition("\nEOF")[0].splitlines()
        first = re.match(r"(\w+):", lines[0]) if lines else None
        if first and first[1] in groups:
            for alternatives in one_each(lines):
                yield yaml.safe_load("\n".join(alternatives))


def one_each(lines: list[str]) -> Iterator[list[str]]:
    """Yield the block, or, where it has one setting several times, each of its lines: they are alternatives."""
    keys = [line.partition(":")[0] for line in lines if not line[0].isspace() and ":" in line]
    if len(keys) == len(set(keys)):
        yield lines
    else:
        yield from ([line] for line in lines)


def validate(values: dict) -> None:
    """Parse settings that may be a part of a file."""
    values = dict(values)
    if "cluster" in values:
        parse_cluster(values.pop("cluster"))
    if values:
        parse_settings({"networks": ["small:resnet18", "small:vgg"]} | values)


SET = re.compile(r"--set (?!KEY)([\w.]+)=([^\s`'\"]+)")


def test_every_way_to_write_settings_is_seen():
    fenced = "```yaml\npairs: {count: 64}\npairs: {count: 128}\n```\n"
    page = f"# a\n\n    # b.yaml\n    images: {{size: 3}}\n\n{fenced}\n    netsim run b\n"
    assert list(settings_blocks(page)) == [{"pairs": {"count": 64}}, {"pairs": {"count": 128}}, {"images": {"size": 3}}]
    with pytest.raises(ValueError, match="sise"):
        validate({"images": {"sise": 3}})
    assert SET.findall("--set a.b=3 --set KEY=VALUE") == [("a.b", "3")]


@pytest.mark.parametrize("page", PAGES)
def test_settings_on_a_page_are_valid(page):
    text = page_text(page)
    for values in settings_blocks(text):
        validate(values)
    for key, value in SET.findall(text):
        group, name = key.split(".")
        validate({group: {name: yaml.safe_load(value)}})


def test_pages_have_settings():
    """A pattern that sees nothing would let everything pass."""
    found = [values for page in PAGES for values in settings_blocks(page_text(page))]
    assert len(found) >= 10
    assert {"cluster", "images", "networks", "pairs"} <= {key for values in found for key in values}


@pytest.mark.parametrize("page", PAGES)
def test_examples_in_python_compile_and_import_what_exists(page):
    for block in python_blocks(page_text(page)):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                assert all(exists(alias.name) for alias in node.names), block
            elif isinstance(node, ast.ImportFrom):
                assert all(exists(f"{node.module}.{alias.name}") for alias in node.names), block


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_on_a_page_exists(page):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page_text(page)
    code = [*blocks(text), *(code.replace("\n", " ") for code in INLINE.findall(text))]
    used = {target for part in code for target in re.findall(r"(?:^|&& )make ([a-z][a-z0-9-]*)", part, re.MULTILINE)}
    assert used - targets == set()


@pytest.mark.parametrize("path", reference.PAGES)
def test_a_page_made_from_code_is_what_the_code_makes(path):
    assert (ROOT / path).read_text(encoding="utf-8") == reference.PAGES[path](), "run `make reference`"


def test_every_setting_and_every_command_has_its_place_in_the_reference():
    settings = (ROOT / "docs/reference/settings.md").read_text()
    names = {setting.name for setting in list_settings()}
    assert {"training.weight_decay", "training.learning_rate", "pairs.rng_seed"} <= names
    assert {name for name in names if f"**`{name}`**" not in settings} == set()
    commands_page = (ROOT / "docs/reference/cli.md").read_text()
    known = get_command(app).commands
    assert {name for name in known if f"## netsim {name}\n" not in commands_page} == set()


def test_every_public_name_is_in_the_reference_of_python():
    page = (ROOT / "docs/reference/api.md").read_text()
    assert [name for name in netsim.__all__ if f":: netsim.{name}\n" not in page] == []


TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_page_is_in_the_navigation_of_the_site_once():
    listed = []
    for page in (ROOT / "docs").rglob("*.md"):
        for tree in TOCTREE.findall(page.read_text()):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed += [(page.parent / name).resolve().relative_to(ROOT / "docs").as_posix() for name in names]
    pages = {page.removeprefix("docs/").rpartition(".")[0] for page in PAGES if page.startswith("docs/")}
    assert sorted(listed) == sorted(pages - {"index"})


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_a_page_are_at_most_100_characters(page):
    """Rows of tables cannot be broken, and the README shows what commands print as it is."""
    text = page_text(page)
    lines = INDENTED.sub("", FENCED.sub("", text)).splitlines() if page == "README.md" else text.splitlines()
    assert [f"{n}: {line}" for n, line in enumerate(lines, 1) if len(line) > 100 and not line.startswith("|")] == []
