"""The notebooks of docs/, which are stored with their outputs: run in a real kernel, and compared with that.

`python -m support.notebooks`, or `make notebooks`, runs each in an empty folder and stores what it shows.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = tuple(sorted((ROOT / "docs").rglob("*.ipynb")))

SECONDS = 300
"""Most seconds that a cell may take."""

NUMBER = re.compile(r"[-−]?\d[\d.,]*(?:e[-+]?\d+)?")


def run(path: Path, environment: Mapping[str, str]) -> NotebookNode:
    """Run a notebook in a kernel with this environment; return it as it is stored, with what it shows."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        client = NotebookClient(notebook, timeout=SECONDS, record_timing=False)
        client.execute(cwd=folder, env=dict(environment))
        text = nbformat.writes(notebook).replace(f"{Path(folder).resolve()}/", "")
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def shown(notebook: NotebookNode) -> list[list[tuple[str, str]]]:
    """Return what each cell of code shows, as kind and text, without what another processor or hour changes.

    That is numbers, the widths of columns, and pictures.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[part for output in cell.outputs for part in _parts(output)] for cell in cells]


def _parts(output: NotebookNode) -> list[tuple[str, str]]:
    if output.output_type == "stream":
        return [(output.name, _comparable(output.text))]
    pictures = [kind for kind in output.data if kind.startswith("image/")]
    return [("text", _comparable(output.data["text/plain"]))] + [(kind, "") for kind in sorted(pictures)]


def _comparable(text: str) -> str:
    return " ".join(NUMBER.sub("#", text).split())


if __name__ == "__main__":
    for path in NOTEBOOKS:
        nbformat.write(run(path, os.environ), path)
        print(path.relative_to(ROOT))
