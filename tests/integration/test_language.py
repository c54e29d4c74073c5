"""Docstrings stand alone, functions stay short, and examples in docstrings run."""

import ast
import doctest
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from statistics import median, quantiles

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("netsim", "tasks", "flows") for path in (ROOT / folder).rglob("*.py"))
FRAGMENT = re.compile(r"(What|Of|The same|Whether|By|It|How|For|Where|When|Those|That)\b")
"""Openings that do not stand alone in `help()` or an IDE."""

PUBLIC = ("invert_images", "linear_cka", "load_network", "Preprocessing", "draw_pairs", "compare", "open_run", "run")
SECTIONS = ("Parameters", "Raises", "Examples")
Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def definitions(path: Path) -> Iterator[tuple[str, Definition]]:
    """Where each module, class and function of a file is, and its node."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Definition):
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", node


def test_docstrings_open_with_a_sentence_that_stands_alone():
    fragments = [
        f"{place}: {docstring.splitlines()[0]}"
        for path in FILES
        for place, node in definitions(path)
        if (docstring := ast.get_docstring(node)) and FRAGMENT.match(docstring)
    ]
    assert fragments == []


def test_functions_are_short():
    lengths = [
        node.end_lineno - node.body[0].end_lineno + 1 if ast.get_docstring(node) else node.end_lineno - node.lineno
        for path in FILES
        for _, node in definitions(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert median(lengths) <= 6
    assert quantiles(lengths, n=10)[-1] <= 18


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented_with_an_example(name):
    import netsim

    docstring = getattr(netsim, name).__doc__
    assert [section for section in SECTIONS if f"{section}\n" not in docstring] == []


MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in FILES
    if ">>> " in path.read_text() and path.name not in ("unpickle.py", "__main__.py")
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module):
    result = doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0 and result.failed == 0


VAGUE = {"found", "own", "said", "asked", "there", "here", "told", "says"}
"""Names that say nothing of what they hold."""


def test_no_local_or_parameter_has_a_name_that_says_nothing():
    vague = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path in FILES
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
        if (name := node.arg if isinstance(node, ast.arg) else getattr(node, "id", None)) in VAGUE
        and (isinstance(node, ast.arg) or isinstance(node.ctx, ast.Store))
    ]
    assert vague == []
