"""Every figure of the page is a file in three formats, drawn once unless a width is chosen."""

import io

import numpy as np
import pytest
from PIL import Image

from netsim.errors import SettingsError
from netsim.report import drawings
from netsim.report.drawings import draw, figure_files, stem_of
from netsim.report.options import ReportOptions
from netsim.results.layers import LayerSimilarity, LayerSpec
from netsim.results.results import Results
from support.results import make_gallery, make_results

SPEC = LayerSpec(("densenet", "mobilenet"), (("a", "b"), ("c",)), "pooled")
LAYERS = {stem_of(SPEC): (SPEC, {"natural": LayerSimilarity(np.array([[0.5], [0.1]]), np.zeros((2, 1)))})}
NAMES = {"heatmaps", "heatmaps-biased", "losses", "gallery", stem_of(SPEC)}
NAMES |= {f"{kind}-{name}" for kind in ("clusters", "map") for name in ("natural", "inverted")}


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64)


def files_of(results: Results, **chosen) -> tuple[dict[str, bytes], list[str]]:
    options, notes = ReportOptions(**chosen), []
    drawn = draw(results, LAYERS, options)
    return figure_files(drawn, results, make_gallery(results), LAYERS, options, note=notes.append), notes


def test_every_figure_is_written_in_every_format_the_same_each_time(results, monkeypatch):
    saved = []
    monkeypatch.setattr(
        drawings, "to_svg", lambda figure, to_svg=drawings.to_svg: saved.append(figure) or to_svg(figure)
    )
    files, notes = files_of(results, title="A title")
    assert set(files) == {f"{name}.{kind}" for name in NAMES for kind in ("svg", "png", "pdf")} and not notes
    assert len(saved) == len({*map(id, saved)}) == len(NAMES)  # no figure is drawn twice
    assert all(
        content.startswith(b"%PDF") and b"A title" in content for name, content in files.items() if ".pdf" in name
    )
    assert files == files_of(results, title="A title")[0]


def test_a_chosen_width_is_that_of_every_figure_but_those_that_need_more(results):
    files, notes = files_of(results, width="8.5cm")
    widths = {name: Image.open(io.BytesIO(files[f"{name}.png"])).width / 300 * 2.54 for name in NAMES}
    assert {name: round(width, 1) for name, width in widths.items()} == dict.fromkeys(NAMES, 8.5)
    assert not notes
    files, notes = files_of(results, width="7cm")
    assert [note.partition(" is ")[0] for note in notes] == ["gallery"]
    assert "width must be at least 7.2 cm" in notes[0]


def test_heatmaps_that_need_more_are_refused(results):
    with pytest.raises(SettingsError, match=r"width must be at least \d\.\d cm for 3 columns"):
        files_of(results, width="3cm")
