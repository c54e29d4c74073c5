"""The report is one page that loads nothing and shows the numbers of the results."""

import base64
import csv
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from netsim.errors import SettingsError
from netsim.report import figures, heatmaps, svg
from netsim.report.drawings import stem_of
from netsim.report.options import ReportOptions
from netsim.report.page import data_uri, file_uri, render_page, render_report, tables_of, write_files, write_report
from netsim.results.layers import LayerSimilarity, LayerSpec
from netsim.results.measured import Measured, MeasuredMatrix
from netsim.results.order import ordered
from netsim.results.results import Results
from netsim.similarity.uncertainty import Estimate, half_width
from support.pages import Page, page_of, svg_words
from support.results import make_gallery, make_results, renamed, with_inverted, with_summary


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64)


@pytest.fixture(scope="module")
def page(results) -> Page:
    return page_of(results)


def printed(value: float) -> float:
    return round(float(value), 3)


@pytest.fixture(scope="module")
def written(results, tmp_path_factory) -> dict[str, Path]:
    """A report with every figure."""
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    return write_report(results, make_gallery(results), folder, settings_yaml="a: 1")


def test_page_loads_nothing_and_runs_nothing(results):
    text = render_page(results, make_gallery(results), "a: 1")
    page = Page(text)
    assert not page.elements("script", "link", "iframe", "object", "embed", "base", "form")
    for attributes in (attributes for tag, attributes in page.tags if tag != "a"):
        for name in ("src", "srcset", "href", "xlink:href", "data", "poster", "background", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
        assert not any(name.startswith("on") for name in attributes)
    links = [attributes["href"] or "" for attributes in page.elements("a") if "download" not in attributes]
    known = ("#", "https://proceedings.mlr.press/", "https://arxiv.org/", "https://jmlr.org/")
    assert all(link.startswith(known) for link in links)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text


def test_every_table_and_text_is_saved_from_the_page(written):
    page = Page(written["report.html"].read_text(encoding="utf-8"))
    saved = {
        attributes["download"]: attributes["href"] or ""
        for attributes in page.elements("a")
        if "download" in attributes
    }
    assert set(saved) == {name for name in written if name.endswith((".csv", ".bib", ".tex"))} | {"caption.txt"}
    for name, href in saved.items():
        head, _, content = href.partition(";base64,")
        assert head == f"data:text/{'csv' if name.endswith('.csv') else 'plain'};charset=utf-8"
        assert base64.b64decode(content) == written[name].read_bytes()
    for name in ("caption.txt", "caption.tex", "references.bib"):
        assert written[name].read_text(encoding="utf-8").strip() in page.text


def test_a_table_too_large_for_a_page_lies_beside_it(monkeypatch):
    monkeypatch.setattr("netsim.report.page.EMBEDDED", 3)
    assert (file_uri("a.csv", b"1,2\n"), file_uri("b.csv", b"1,2")[:14]) == ("a.csv", "data:text/csv;")


def test_a_report_is_in_the_chosen_order_with_the_chosen_title_and_estimator(results):
    options = ReportOptions(order="name", title="Mine & <b>yours</b>", estimator="biased", limits=(0, 0.5))
    backwards = ordered(results, "mean")
    page = Page(render_report(backwards, make_gallery(results), options=options)["report.html"].decode())
    assert page.text.count("Mine & <b>yours</b>") == 2  # in the head and on the page
    assert next(t for t in page.tables if t[0][0].startswith("through"))[0][1:] == sorted(results.networks)
    checked = [attributes["id"] for attributes in page.elements("input") if "checked" in attributes]
    assert checked == ["show-biased"] and "0.00 to 0.50, in both. Values above 0.50" in page.text


def test_measures_and_layers_are_part_of_the_report_if_there_are_any(results, page):
    value = np.arange(9.0).reshape(3, 3) / 10
    matrix = MeasuredMatrix(value, value / 10, value / 100, value[..., None], Estimate(0.31, 0.02, 15), 0.01)
    measured = {"mine": Measured("mine", "Mine", "A 2020", matrix, matrix, Estimate(0, 0.01, 15))}
    spec = LayerSpec(("densenet", "resnext"), (("a",), ("b",)), "pooled")
    layers = {stem_of(spec): (spec, {"natural": LayerSimilarity(np.eye(1), np.zeros((1, 1)))})}
    options = ReportOptions(order="mean")
    files = render_report(results, make_gallery(results), measured=measured, layers=layers, options=options)
    with_both = Page(files["report.html"].decode())
    row = next(table for table in with_both.tables if table[0][0] == "measure")[1]
    assert row == ["Mine A 2020", "0.31 ± 0.02", "0.010", "0.31 ± 0.02", "0.010", "0.00 ± 0.01", "−0.021 to 0.021"]
    cells = {
        (r["set"], r["through"], r["observer"]): r for r in csv.DictReader(io.StringIO(files["measures.csv"].decode()))
    }
    assert float(cells["inverted", "mobilenet", "resnext"]["value"]) == 0.5
    assert f"{stem_of(spec)}.csv" in files and "Layers of densenet (rows) and resnext (columns)" in with_both.text
    assert not {"measures", "layers"} & {attributes.get("id") for _, attributes in page.tags}


def test_every_link_within_the_page_has_one_target(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes.get("href") or attributes.get("xlink:href") or "" for _, attributes in page.tags]
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)


def test_whatever_a_name_says_it_is_text(results):
    evil = "<script>alert('$x$')</script>"
    odd = renamed(results, "resnext", evil)
    odd = dataclasses.replace(with_summary(odd, evil, reference='"><img src=x onerror=y>'), provenance={"<b>": "&amp;"})
    gallery = dataclasses.replace(make_gallery(odd), seed_labels=['" onload="x'] * 4)
    page = Page(render_page(odd, gallery, "</pre><script>"))
    assert not page.elements("script", "b")
    assert all((attributes["src"] or "").startswith("data:image/") for attributes in page.elements("img"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(evil) > 5
    for figure, count in ((heatmaps.heatmaps(odd), 3), (figures.loss_curves(odd), 1)):
        assert svg_words(svg.to_svg(figure)).count(evil) == count  # `$` starts no formula
    for said in ('"><img src=x onerror=y>', "<b>", "&amp;", '" onload="x', "</pre><script>"):
        assert said in page.text


def test_tables_of_the_page_hold_the_numbers_of_the_results(results, page):
    matrices = [table for table in page.tables if table[0][0].startswith("through")]
    expected = [
        (*(results.cells(kind, estimator, kind=key) for key in ("cka", "se")), floor)
        for kind in ("natural", "inverted")
        for estimator, floor in (("unbiased", None), ("biased", results.floor(kind)))
    ]
    for table, (values, errors, floors) in zip(matrices, expected, strict=True):
        assert table[0][1:] == list(results.networks)
        for row, (name, *cells) in enumerate(table[1:]):
            assert name == results.networks[row]
            for column, cell in enumerate(cells):
                shown = [float(found.replace("−", "-")) for found in re.findall(r"−?\d\.\d+", cell)]
                half = half_width(errors, results.df)[row, column]
                low, high = values[row, column] - half, values[row, column] + half
                other = [errors[row, column], low, high, *([] if floors is None else [floors[row, column]])]
                assert shown == [printed(v) for v in (values[row, column], *(other if row != column else []))]


def test_network_table_says_who_and_how_it_went(results, page):
    table = next(table for table in page.tables if table[0][0] == "network")
    rows, columns = results.rows["inverted", "unbiased"], results.columns["inverted", "unbiased"]
    for name, line in zip(results.networks, table[1:], strict=True):
        summary, loss = results.summaries[name], results.loss[name]
        assert line[0] == f"{name} {summary.reference}, trained here"
        assert line[1:4] == [f"{summary.parameters:,}", f"{summary.width:,}", f"{100 * summary.accuracy:.1f} %"]
        assert line[4:7] == [f"{np.median(loss.initial):.3f}", f"{loss.halfway:.3f}", f"{loss.median:.3f}"]
        assert line[7:10] == [f"{np.quantile(loss.final, 0.9):.3f}", "0.00 %", "yes"]
        unreached, fidelity = (
            results.controls.values[kind][results.networks.index(name), results.networks.index(name)]
            for kind in ("unreached", "seen_target")
        )
        assert line[10:12] == [f"{unreached:.3f}", f"{fidelity:.3f}"]
        assert line[12:15] == [f"{np.median(loss.distance):.2f}", "0", "0"]
        assert line[15:17] == [f"{rows[name].value:.3f}", f"{columns[name].value:.3f}"]
        assert summary.weights_hash.startswith(line[17])
    hashes = {summary.weights_hash for summary in results.summaries.values()}
    assert hashes <= {a.get("title") for a in page.elements("code")}


@pytest.fixture(scope="module")
def observed() -> Results:
    """Results with two networks that only look."""
    return make_results(3, n=64, observers=("seer", "judge"))


def test_networks_that_only_look_are_columns_of_every_matrix(observed):
    matrices = [table for table in page_of(observed).tables if table[0][0].startswith("through")]
    assert len(matrices) == 4
    for table, kind in zip(matrices, ("natural", "natural", "inverted", "inverted"), strict=True):
        assert table[0][1:] == [*observed.networks, "seer", "judge"]
        assert [row[0] for row in table[1:]] == list(observed.networks)
        estimator = "biased" if "floor" in table[1][5] else "unbiased"
        shown = [[float(cell.split()[0].replace("−", "-")) for cell in row[1:]] for row in table[1:]]
        np.testing.assert_allclose(shown, observed.cells(kind, estimator), atol=5e-4)


def test_networks_that_only_look_have_a_table_of_what_they_are_and_see(observed, page):
    table = next(table for table in page_of(observed).tables if table[0][0] == "observer")
    assert [line[0] for line in table[1:]] == ["seer small:seer", "judge small:judge"]
    for name, line in zip(observed.observers, table[1:], strict=True):
        summary = observed.summaries[name]
        assert line[1:4] == [f"{summary.parameters:,}", f"{summary.width:,}", f"{100 * summary.accuracy:.1f} %"]
        for kind, text in (("natural", line[4]), ("inverted", line[5])):
            mean = observed.columns[kind, "unbiased"][name]
            assert text.split() == [f"{mean.value:.3f}", *"{:.3f} to {:.3f}".format(*mean.interval).split()]
        assert summary.weights_hash.startswith(line[6])
    assert not [table for table in page.tables if table[0][0] == "observer"]  # the run of `page` has none


def test_networks_that_only_look_are_in_no_gallery_no_loss_curve_and_no_mean_of_a_row(observed):
    page = page_of(observed)
    for first in ("network", "pair", "inverted through"):
        table = next(table for table in page.tables if table[0][0] == first)
        assert not {"seer", "judge"} & {cell.split()[0] for row in table for cell in row if cell.split()}
    assert "mean of 6 cells" in page.text
    plots = [attributes["aria-label"] or "" for attributes in page.elements("div") if attributes.get("role") == "img"]
    assert [("3 by 5 networks" in label) for label in plots] == [*[True] * 6, *[False] * 5]


def test_means_stand_beside_each_other_with_errors_and_floor(results, page):
    table = next(table for table in page.tables if table[0][0] == "images")
    floor = [np.mean(results.floor(kind)[~np.eye(3, dtype=bool)]) for kind in ("natural", "inverted")]
    lines = [
        (results.means[kind, "unbiased"], results.means[kind, "biased"], text)
        for kind, text in (("natural", f"{floor[0]:.2f}"), ("inverted", f"{floor[1]:.2f}"), ("difference", ""))
    ]
    for line, (unbiased, biased, floor_text) in zip(table[1:], lines, strict=True):
        cells = [(f"{m.value:.3f} ± {m.se:.3f}", "{:.3f} to {:.3f}".format(*m.interval)) for m in (unbiased, biased)]
        assert line[1:] == [*cells[0], *cells[1], floor_text]
        if line[0] != "natural − inverted":  # the digits of the sentence and of the figure
            assert f"imilarity {cells[0][0]} (images)" in page.text or f"after inversion {cells[0][0]}" in page.text
            assert page.text.count(f"mean {cells[0][0]}") >= 1


def test_undefined_values_are_a_dash_on_the_page_and_in_the_figure_and_empty_in_the_table(results):
    undefined = with_inverted(results, 1, 2, np.nan)
    page = page_of(undefined)
    matrices = [table for table in page.tables if table[0][0].startswith("through")]
    assert [matrix[2][3].partition(" ")[0] for matrix in matrices].count("–") == 1
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
    panel = heatmaps.heatmaps(undefined).axes[1]
    assert [text.get_text() for text in panel.texts if text.get_position() == (2, 1)] == ["–"]
    inverted = tables_of(undefined, {}, {})["inverted.csv"].decode()
    cell = list(csv.DictReader(io.StringIO(inverted)))[5]
    assert (cell["through"], cell["observer"], cell["cka_unbiased"]) == ("mobilenet", "resnext", "")


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 24)])
def test_gallery_shows_the_very_pixels(results, shape):
    gallery = make_gallery(results, pairs=2, shape=shape)
    page = Page(render_page(results, gallery))
    sources = [attributes["src"] for attributes in page.elements("img")]
    arrays = [gallery.seed, gallery.target, *(np.round(255 * gallery.inverted[name]) for name in results.networks)]
    expected = [array[pair] for pair in range(2) for array in arrays]
    for source, image in zip(sources, expected, strict=True):
        shown = imread(io.BytesIO(base64.b64decode((source or "").partition("base64,")[2])))[..., :3]
        np.testing.assert_array_equal(np.round(255 * shown.transpose(2, 0, 1)), np.broadcast_to(image, (3, *shape[1:])))
    alts = [attributes["alt"] for attributes in page.elements("img")]
    assert alts[0] == "seed of pair 0: Ankle boot"
    assert alts[-1] == "pair 3 inverted through resnext"


def test_large_images_are_compressed_and_stay_close():
    y, x = np.mgrid[:224, :224] / 223
    image = np.stack([x, y, 1 - x])
    kind, _, content = data_uri(image).partition(";base64,")
    shown = imread(io.BytesIO(base64.b64decode(content)), format="jpeg") / 255
    assert kind == "data:image/jpeg"
    assert len(content) < 40_000
    assert np.abs(shown.transpose(2, 0, 1) - image).max() < 0.03


def test_images_no_screen_can_show_leave_a_sentence(results):
    page = page_of(results, shape=(4, 8, 8))
    assert not page.elements("img")
    assert "images have 4 channels" in page.text


def test_same_results_give_the_same_bytes(results, written):
    again = render_report(results, make_gallery(results), "a: 1", figures=True)
    assert again == {name: path.read_bytes() for name, path in written.items()}
    assert list(again)[-1] == "report.html" and len(again) == 43
    assert again["heatmaps.png"].startswith(b"\x89PNG")
    assert again["heatmaps.svg"].startswith(b"<?xml")
    few = render_report(results, make_gallery(results), "a: 1")  # as a flow writes into the store
    assert {name for name in again if name not in few} == {
        name
        for name in again
        if name.endswith((".svg", ".png", ".pdf")) and name not in ("heatmaps.svg", "heatmaps.png")
    }
    assert few == {name: again[name] for name in few}


def test_a_report_that_cannot_be_rendered_leaves_the_old_one_as_it_was(results, written):
    before = {path: path.read_bytes() for path in written.values()}
    other = make_results(4, n=64)
    with pytest.raises(ValueError, match="longer"):
        write_report(other, dataclasses.replace(make_gallery(other), seed_labels=[]), written["report.html"].parent)
    assert {path: path.read_bytes() for path in written["report.html"].parent.iterdir()} == before


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left_lying_about(results, tmp_path):
    (tmp_path / "natural.csv").mkdir()
    with pytest.raises(SettingsError, match=re.escape(str(tmp_path))):
        write_files(tmp_path, tables_of(results, {}, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["natural.csv"]
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="choose another folder"):
        write_files(tmp_path / "file", {"a": b""})
    for url in ("s3://bucket/report", "memory://report"):
        with pytest.raises(SettingsError, match=f"^--output must be a folder of this machine, got {url}; copy it"):
            write_files(url, {"a": b""})


def test_asymmetry_clusters_and_maps_are_on_the_page(results, page):
    asymmetry, names = results.inference.asymmetry, results.networks
    table = next(table for table in page.tables if table[0][:2] == ["row", "column"])
    assert [tuple(line[:2]) for line in table[1:]] == [(names[i], names[j]) for i, j in asymmetry.largest(9)]
    assert len(table) == 4
    rows = next(table for table in page.tables if "row − column" in table[0])
    for line, each in zip(rows[1:], asymmetry.networks, strict=True):
        assert float(line[1].split()[0].replace("−", "-")) == pytest.approx(each.value, abs=6e-4)
    labels = [a.get("aria-label") or "" for a in page.elements("div") if a.get("role") == "img"]
    assert [label.split(",")[0].split(".")[0] for label in labels if label.startswith(("Clusters", "Map"))] == [
        "Clusters of networks on natural images",
        "Map of networks on natural images",
        "Clusters of networks on inverted images",
        "Map of networks on inverted images",
    ]


def test_two_networks_have_neither_clusters_nor_a_map():
    assert "Clusters and maps need three networks" in page_of(make_results(2, n=64)).text


def test_only_the_largest_asymmetries_of_many_networks_are_on_the_page():
    page = page_of(make_results(12, n=64))
    table = next(table for table in page.tables if table[0][:2] == ["row", "column"])
    assert len(table) == 37 and "the 36 largest of 66 pairs" in page.text
