"""The pages of the documentation, and the code on them: blocks, examples in Python, and commands of a shell."""

import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple

import nbformat

from support.notebooks import NOTEBOOKS

ROOT = Path(__file__).parents[2]
PAGES = (
    *("README.md", "SECURITY.md", "CONTRIBUTING.md", "deploy/README.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
    *(path.relative_to(ROOT).as_posix() for path in NOTEBOOKS),
)

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4,}\S.*$", re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
HEREDOC = re.compile(r" <<'EOF'\n.*?^EOF$", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Za-z_]+=")
ENDS = {"|", "||", "&&", "&", ";", ">", ">>", "<"}


class Command(NamedTuple):
    """A command on a page: its words, without variables before it, and the line that it stands in."""

    words: list[str]
    line: str


def page_text(page: str) -> str:
    """Read a page; the cells of a notebook are text and examples in Python."""
    if not page.endswith(".ipynb"):
        return (ROOT / page).read_text(encoding="utf-8")
    cells = nbformat.read(ROOT / page, as_version=4).cells
    return "\n\n".join(
        cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```" for cell in cells
    )


def blocks(text: str) -> list[str]:
    """Return each block of code of a page, fenced or indented, without its fence and indentation."""
    fenced = [block.partition("\n")[2].removesuffix("```") for block in FENCED.findall(text)]
    prose = FENCED.sub("", text)
    indented = re.findall(r"(?:^ {4,}\S.*\n)+", prose, re.MULTILINE)
    return [textwrap.dedent(block) for block in [*fenced, *indented]]


def python_blocks(text: str) -> list[str]:
    """Return each example in Python."""
    return [block.partition("\n")[2].removesuffix("```") for block in FENCED.findall(text) if block[3:9] == "python"]


def inline_code(text: str) -> list[str]:
    """Return each piece of code in the prose, in one line."""
    return [code.replace("\n", " ") for code in INLINE.findall(INDENTED.sub("", FENCED.sub("", text)))]


def commands(code: str, *programs: str) -> list[Command]:
    """Return each command of these programs in a block of code or a line."""
    lines = HEREDOC.sub("", code).replace("\\\n", " ").splitlines()
    return [Command(words, line.strip()) for line in lines for words in _commands_of_line(line) if words[0] in programs]


def _commands_of_line(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.wordchars += "@,:[]?*!+%#{}$^"
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:  # a lonely quote: no command
        return []
    if "#" in words:
        words = words[: words.index("#")]
    parts: list[list[str]] = [[]]
    for word in words:
        if word in ENDS:
            parts.append([])
        elif parts[-1] or not ASSIGNMENT.match(word):
            parts[-1].append(word.removeprefix(".venv/bin/"))
    return [part for part in parts if part]
