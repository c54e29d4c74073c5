"""A report page and its figures, parsed as a browser would."""

import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

from netsim.report.page import render_page
from netsim.results.results import Results
from support.results import make_gallery


class Page(HTMLParser):
    """The tags, tables and text of a page, as a browser would load and show them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True
        elif tag == "small":
            self.handle_data(" ")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.tables[-1][-1][-1] += data

    def elements(self, *names: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element with one of these names."""
        return [attributes for tag, attributes in self.tags if tag in names]


def page_of(results: Results, **gallery) -> Page:
    """Render the page of results with a made-up gallery, and parse it."""
    return Page(render_page(results, make_gallery(results, **gallery), "iterations: 400\n"))


def warned(page: Page) -> bool:
    """Return True if the page has a warning."""
    return any(attributes.get("class") == "warning" for attributes in page.elements("section"))


def svg_words(svg: str) -> list[str | None]:
    """Return the texts of an SVG, in order."""
    return [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
