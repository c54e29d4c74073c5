"""How `make docs` builds the site: Sphinx, strictly, without a network.

Pages are Markdown as it is read in the repository, so two things are done to them while they are read: links that lead
out of docs/ become links to the page that shows the same text, and such a page gets that text (`<!-- text of FILE -->`,
or `<!-- text of FILE: HEADING -->` for one section).
"""

import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from netsim import __version__

ROOT = Path(__file__).parents[1]
PAGES = {
    "CHANGELOG.md": "docs/project/changelog.md",
    "CONTRIBUTING.md": "docs/project/contributing.md",
    "SECURITY.md": "docs/project/security.md",
    "README.md": "docs/index.md",
    "deploy/README.md": "docs/howto/clusters.md",
}
"""Pages of the repository that lie outside of docs/, and the page of the site that stands for each."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
TEXT = re.compile(r"<!-- text of ([\w./-]+)(?:: (.+?))? -->.*?<!-- end -->", re.DOTALL)
SHELL = re.compile(r"(#|\$|\.venv/|netsim |make |python|pip|prefect |dask |kubectl |docker |git |export |[A-Z_]+=)")
UNIQUE = re.compile(r"(\[?)R[0-9a-f]{8,}-(\d+)(\]?)")
YAML = re.compile(r"- |[\w-]+:( |$)")

project = "netsim"
author = "netsim authors"
project_copyright = "netsim authors, MIT licence"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc", "sphinx_design", "sphinx_copybutton"]

nb_execution_mode = "off"  # they are stored with what they show: tests/support/notebooks.py
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
default_role = "literal"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = "netsim"
html_static_path = ["_static"]
html_css_files = ["netsim.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "netsim"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "results/README": []}
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def section(text: str, heading: str) -> str:
    """Return what stands below a heading, without the heading. Raises ValueError if the text has no such heading."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"no heading {heading!r}")
    return found[1]


def relink(text: str, origin: str, page: str) -> str:
    """Rewrite the links of a text that lies at `origin` and is shown on `page`, both relative to the repository."""

    def replace(match: re.Match[str]) -> str:
        image, label, target, anchor = match.groups()
        place = os.path.normpath(os.path.join(os.path.dirname(origin), target))
        place = PAGES.get(place, place)
        if (ROOT / place).is_dir():
            return label
        if place == page and anchor:
            return f"{image}[{label}]({anchor})"
        return f"{image}[{label}]({os.path.relpath(place, os.path.dirname(page))}{anchor or ''})"

    return LINK.sub(replace, text)


def fill(page: str, text: str) -> str:
    """Return the text of a page with what it takes from files of the repository, and with links that stay inside."""

    def replace(match: re.Match[str]) -> str:
        taken = (ROOT / match[1]).read_text(encoding="utf-8")
        body = section(taken, match[2]) if match[2] else taken.partition("\n")[2]
        return relink(body, match[1], page)

    parts = []
    end = 0
    for match in TEXT.finditer(text):
        parts += [relink(text[end : match.start()], page, page), replace(match)]
        end = match.end()
    return "".join([*parts, relink(text[end:], page, page)])


def read_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Fill a page when Sphinx reads it."""
    source[0] = fill(f"docs/{name}.md", source[0])


def name_languages(app: Sphinx, document: nodes.document) -> None:
    """Name the language of indented code, which Markdown does not."""
    for block in document.findall(nodes.literal_block):
        if block.get("language", "none") in ("none", "default", "text"):
            lines = [line for line in block.astext().splitlines() if line.strip()]
            shell = any(SHELL.match(line) for line in lines)
            block["language"] = (
                "sh" if shell and not YAML.match(lines[0]) else "yaml" if YAML.match(lines[0]) else "text"
            )


def number_references(app: Sphinx, document: nodes.document) -> None:
    """Write the references of a docstring as [1] instead of by the unique names that numpydoc gives them."""
    for text in list(document.findall(nodes.Text)):
        if named := UNIQUE.fullmatch(text):
            text.parent.replace(text, nodes.Text(f"{named[1]}{named[2]}{named[3]}"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect what is done to pages."""
    app.connect("source-read", read_page)
    app.connect("doctree-read", name_languages)
    app.connect("doctree-read", number_references)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
