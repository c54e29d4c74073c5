"""The page shows one drawing as a whole and by panel, and cells tell their errors."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from netsim.report.drawings import Drawing
from netsim.report.heatmaps import NUMBERED, heatmaps
from netsim.report.panels import Panels, panels_of
from netsim.results.findings import number
from netsim.results.results import Results
from support.results import make_results, renamed

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64, observers=("seer",))


def take_apart(results: Results) -> Panels:
    drawing = Drawing(heatmaps(results, "biased"))
    return panels_of(drawing.figure, drawing.svg, results, "biased")


def test_every_cell_tells_its_value_its_error_and_its_interval(results):
    root = ElementTree.fromstring(take_apart(results).whole)
    covers = [path for path in root.iter(f"{SVG}path") if path.find(f"{SVG}title") is not None]
    titles = [path.findtext(f"{SVG}title") for path in covers]
    values, se, low, high = (results.cells("inverted", "biased", kind=kind) for kind in ("cka", "se", "low", "high"))
    cells = [(row, column) for row in range(3) for column in range(4)]
    assert len(titles) == 24 and titles[0] == "densenet → densenet: 1.000"
    for title, (row, column) in zip(titles[12:], cells, strict=True):
        name = f"{results.networks[row]} → {results.everyone[column]}: {number(values[row, column])}"
        interval = f"{number(low[row, column])} to {number(high[row, column])}"
        assert title == (name if row == column else f"{name} ± {number(se[row, column])} ({interval})")
    corners = [[float(part) for part in re.findall(r"[\d.]+", path.get("d"))] for path in covers]
    assert len({(x, y) for x, y, *_ in corners}) == 24 and len({round(side, 3) for _, _, side, *_ in corners}) == 1


def test_windows_together_show_each_panel_once_and_draw_nothing_again(results):
    panels = take_apart(results)
    assert len(panels.whole) > 20 * max(map(len, panels.apart.values()))
    natural, inverted = (
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
        for svg in panels.apart.values()
    )
    assert [len(list(each.iter(f"{SVG}use"))) for each in (natural, inverted)] == [1, 2]
    (whole,) = re.findall(r'<g id="(heatmaps-biased-whole)">', panels.whole)
    assert {use.get("href") for each in (natural, inverted) for use in each.iter(f"{SVG}use")} == {f"#{whole}"}
    total = 72 * heatmaps(results).get_size_inches()[0]
    assert max(panels.widths.values()) < 0.7 * total < sum(panels.widths.values())


def test_names_are_text_and_very_many_cells_tell_nothing():
    odd = renamed(make_results(3, n=64), "densenet", "</title><script>")
    assert "<script>" not in take_apart(odd).whole
    assert "<title>" not in take_apart(make_results(NUMBERED + 1, n=64)).whole
