"""Figures become small files, the same for the same figure."""

import io
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from netsim.report import heatmaps, svg
from netsim.results.results import Results
from support.pages import svg_words
from support.results import make_results


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64)


def test_svg_is_small_and_its_words_are_text():
    results = make_results(25, n=8)
    drawn = svg.to_svg(heatmaps.heatmaps(results))
    assert len(drawn.encode()) < 200_000
    words = svg_words(drawn)
    assert words.count("network_24") == 3
    assert len(words) > 2 * 25 * 25


def test_inline_svg_takes_the_colours_of_the_page_and_shares_no_id(results):
    drawn = {prefix: svg.inline(svg.to_svg(heatmaps.heatmaps(results)), prefix) for prefix in ("one", "two")}
    ids = [{e.get("id") for e in ElementTree.fromstring(svg).iter() if e.get("id")} for svg in drawn.values()]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert "currentColor" in drawn["one"]
    assert svg.INK not in drawn["one"]


def test_threads_that_draw_at_once_get_the_same_bytes(results):
    """Matplotlib's options of SVG are global: without a lock, ids would depend on what another thread sets."""
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: svg.to_svg(heatmaps.heatmaps(results)), range(8)))
    assert len(set(drawn)) == 1


def test_pixels_are_as_many_as_points_times_resolution(results):
    figure = heatmaps.heatmaps(results)
    width, height = figure.get_size_inches()
    for content, kind, dpi in ((svg.to_png(figure, dpi=144), "PNG", 144), (svg.to_webp(figure), "WEBP", 72)):
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == kind
            np.testing.assert_allclose(image.size, (width * dpi, height * dpi), atol=1)
    assert svg.to_png(figure) == svg.to_png(heatmaps.heatmaps(results))
