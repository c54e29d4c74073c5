"""Figures become small files, the same for the same figure."""

import xml.etree.ElementTree as ElementTree

import pytest

from netsim.report import figures, svg
from netsim.results.results import Results
from support.pages import svg_words
from support.results import make_results


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64)


def test_svg_is_small_and_its_words_are_text():
    results = make_results(25, n=8)
    drawn = svg.to_svg(figures.heatmaps(results))
    assert len(drawn.encode()) < 200_000
    words = svg_words(drawn)
    assert words.count("network_24") == 3
    assert len(words) > 2 * 25 * 25


def test_inline_svg_takes_the_colours_of_the_page_and_shares_no_id(results):
    drawn = {prefix: svg.to_inline_svg(figures.heatmaps(results), prefix) for prefix in ("one", "two")}
    ids = [{e.get("id") for e in ElementTree.fromstring(svg).iter() if e.get("id")} for svg in drawn.values()]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert "currentColor" in drawn["one"]
    assert svg.INK not in drawn["one"]
