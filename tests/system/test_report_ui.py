"""The page of a report in a headless Chromium: accessible, readable on a phone, and complete without its folder.

`make ui` runs it; it requires Debian's chromium. The browser reaches nothing but the file.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from netsim.report.drawings import stem_of
from netsim.report.page import write_report
from netsim.report.study import write_study
from netsim.results.layers import LayerSimilarity, LayerSpec
from netsim.results.measured import Measured, MeasuredMatrix
from netsim.results.study import make_study
from netsim.similarity.uncertainty import Estimate
from support.results import make_gallery, make_results, with_eps, with_loss
from system.test_ui import CHROMIUM, QUIET

pytestmark = [pytest.mark.ui, pytest.mark.timeout(300)]

WIDE, PHONE = 1400, 390


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything that one can have: observers, a warning, measures, layers."""
    results = make_results(11, n=64, observers=("seer",))
    results = with_loss(results, "vgg", final=results.loss["vgg"].final + 1)
    cells = np.random.default_rng(0).random((11, 12))
    matrix = MeasuredMatrix(cells, cells / 10, cells / 100, cells[..., None], Estimate(0.3, 0.02, 15), 0.01)
    measured = {"mine": Measured("mine", "Mine", "A 2020", matrix, matrix, Estimate(0.0, 0.01, 15))}
    spec = LayerSpec(("vgg", "wrn2"), (tuple(f"features.{k}" for k in range(17)), ("a", "b")), "pooled")
    layers = {
        stem_of(spec): (spec, {name: LayerSimilarity(*np.zeros((2, 17, 2))) for name in ("natural", "inverted/vgg")})
    }
    written = write_report(results, make_gallery(results), tmp_path_factory.mktemp("report"), settings_yaml="a: 1\n",
                           measured=measured, layers=layers)  # fmt: skip
    return written["report.html"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of robustness."""
    results = with_eps(make_results(6, n=64), 0.0, 1.0, architectures=3)
    return write_study(make_study(results, {}, floor=0), tmp_path_factory.mktemp("study"))["study.html"]


def opened(browser: Browser, page: Path, width: int, scheme: Any = "light") -> Page:
    """Open a page in a window of this width, alone in its folder."""
    shown = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    ).new_page()
    shown.goto(page.as_uri())
    return shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("kind", ["report", "study"])
def test_axe_finds_nothing_to_mend(browser, request, kind, width, scheme):
    page = opened(browser, request.getfixturevalue(kind), width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    violations = Axe().run(page).response["violations"]
    assert [(each["impact"], each["id"], each["nodes"][0]["target"]) for each in violations] == []


def test_both_matrices_are_on_the_screen_of_a_phone_one_below_the_other(browser, report):
    page = opened(browser, report, PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
    natural, inverted = (each.bounding_box() for each in page.locator(".unbiased .apart").all())
    assert inverted["y"] >= natural["y"] + natural["height"]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= PHONE for box in (natural, inverted))
    assert not page.locator(".unbiased .whole").is_visible()
    page.get_by_text("biased", exact=True).click()
    assert page.locator(".biased .apart").first.is_visible() and not page.locator(".unbiased .apart").first.is_visible()


@pytest.mark.parametrize(("width", "panel"), [(WIDE, ".whole"), (PHONE, ".apart >> nth=1")])
def test_a_cell_that_is_pointed_at_tells_its_error(browser, report, width, panel):
    """The cell in the middle of the inverted matrix; on a phone it is seen through a window."""
    page = opened(browser, report, width)
    svg = page.locator(f".unbiased {panel}").locator("svg").first
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    share = 0.72 if panel == ".whole" else 0.5
    title = """([x, y]) => {
        const hit = document.elementFromPoint(x, y);
        const inside = hit.localName === "use" ? document.querySelector(hit.getAttribute("href")) : hit;
        return [hit.localName, inside.querySelector("title")?.textContent];
    }"""
    _, text = page.evaluate(title, [box["x"] + share * box["width"], box["y"] + 0.4 * box["height"]])
    assert (" → " in text and " ± " in text) or text.endswith(": 1.000")


def test_the_page_alone_has_every_table(browser, report, tmp_path):
    alone = tmp_path / "alone.html"
    alone.write_bytes(report.read_bytes())
    page = opened(browser, alone, WIDE)
    links = page.locator("a[download]").all()
    assert len(links) > 15
    for link in (links[0], page.get_by_text("losses.csv").last, links[-1]):
        with page.expect_download() as download:
            link.click()
        saved, name = Path(download.value.path()), download.value.suggested_filename
        assert saved.read_bytes() == (report.parent / name).read_bytes()


def test_a_printed_page_has_both_matrices_beside_each_other_and_no_controls(browser, report):
    page = opened(browser, report, WIDE)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 900})  # A4 without margins
    assert page.locator(".unbiased .whole").is_visible() and not page.locator(".unbiased .apart").first.is_visible()
    assert not page.locator("nav").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_many_networks_are_seen_by_scrolling_their_matrix_and_not_the_page(browser, tmp_path):
    results = replace(make_results(25, n=16), classes=1000)
    page = opened(browser, write_report(results, make_gallery(results), tmp_path)["report.html"], PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
    panel = page.locator(".unbiased .apart").first
    assert panel.evaluate("each => each.scrollWidth") > PHONE
