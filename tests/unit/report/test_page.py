"""The report says what `Results` says, loudly where a number should not be trusted, in one page that loads nothing."""

import base64
import csv
import dataclasses
import io
import itertools
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from PIL import Image

from netsim.errors import SettingsError
from netsim.report import figures, svg
from netsim.report.figures import gallery_figure
from netsim.report.page import data_uri, render_page, write_report
from netsim.report.svg import to_webp
from netsim.report.tables import row_and_column_means
from netsim.results import findings
from netsim.results.findings import (
    all_well,
    better_than_chance,
    biased_headline,
    headline,
    matrix_table,
    network_table,
    number,
    warnings,
)
from netsim.results.gallery import Gallery
from netsim.results.matrices import ESTIMATORS
from netsim.results.results import Loss, NetworkSummary, Results, similarity_dataset
from netsim.similarity.uncertainty import Estimate, half_width

NINE = ("densenet", "mobilenet", "resnext", "resnet18", "resnet50", "shufflenet", "vgg", "wrn2", "wrn4")


def make_matrix(rng, count: int, *, center: float, symmetric: bool) -> dict[str, np.ndarray]:
    """Plausible similarities, unbiased then biased: ones on the diagonal, biased above unbiased."""
    cka = np.clip(center + 0.25 * center * rng.standard_normal((count, count)), 0.01, 0.99)
    if symmetric:
        cka = (cka + cka.T) / 2
    unbiased = cka - 0.02 - 0.03 * (1 - cka)
    np.fill_diagonal(cka, 1)
    np.fill_diagonal(unbiased, 1)
    off = ~np.eye(count, dtype=bool)
    error, floor = 0.004 + 0.002 * rng.random((2, count, count))
    return {"cka": np.stack([unbiased, cka]), "se": np.stack([1.1 * error * off, error * off]), "floor": 10 * floor}


def make_estimates(matrices: dict[str, dict[str, np.ndarray]], names: tuple[str, ...]) -> dict[str, dict]:
    """Means, rows and row differences of such matrices, with errors of about their size."""
    off, means, rows = ~np.eye(len(names), dtype=bool), {}, {}
    for kind, matrix in matrices.items():
        for estimator, cells in zip(ESTIMATORS, matrix["cka"], strict=True):
            means[kind, estimator] = Estimate(float(cells[off].mean()), 0.0042, 15)
            rows[kind, estimator] = {
                name: Estimate(float(row[others].mean()), 0.005, 15)
                for name, row, others in zip(names, cells, off, strict=True)
            }
    for estimator, se in zip(ESTIMATORS, (0.0053, 0.0051), strict=True):
        difference = means["natural", estimator].value - means["inverted", estimator].value
        means["difference", estimator] = Estimate(difference, se, 15)
    biased = rows["inverted", "biased"]
    differences = {
        (one, other): Estimate(biased[one].value - biased[other].value, 0.006, 15)
        for one, other in itertools.combinations(names, 2)
    }
    return {"means": means, "rows": rows, "row_differences": differences}


def make_loss(rng, n: int, *, final: float) -> Loss:
    iterations = np.unique(np.geomspace(1, 401, 60).astype(int)) - 1
    start = float(rng.uniform(0.7, 1.1))
    history = final + (start - final) * np.exp(-iterations / rng.uniform(20, 60))
    return Loss(
        initial=start * rng.lognormal(0, 0.1, n),
        final=final * rng.lognormal(0, 0.3, n),
        distance=rng.uniform(2, 6, n),
        iterations=np.full(n, 400),
        stopped=0,
        stalled=0,
        nonfinite=0,
        history=history,
        history_iterations=iterations,
    )


def make_results(count: int = 9, n: int = 512, rng_seed: int = 0) -> Results:
    rng = np.random.default_rng([rng_seed, count])
    names = NINE[:count] + tuple(f"network_{index:02d}" for index in range(9, count))
    matrices = {
        "natural": make_matrix(rng, count, center=0.75, symmetric=True),
        "inverted": make_matrix(rng, count, center=0.18, symmetric=False),
    }
    stacked = {key: np.stack([matrix[key] for matrix in matrices.values()], axis=1) for key in ("cka", "se")}
    floor = np.stack([matrix["floor"] for matrix in matrices.values()])
    summaries = {
        name: NetworkSummary(
            name=name,
            reference=f"small:{name}",
            accuracy=float(rng.uniform(0.86, 0.92)),
            parameters=int(rng.integers(20_000, 900_000)),
            width=int(rng.choice([64, 128, 256])),
            weights_hash=rng.bytes(32).hex(),
            trained_here=True,
        )
        for name in names
    }
    return Results(
        networks=names,
        n=n,
        shards=16,
        similarity=similarity_dataset(
            names, **stacked, floor=floor, undefined=np.full_like(stacked["cka"], "", str), df=15
        ),
        **make_estimates(matrices, names),
        loss={name: make_loss(rng, n, final=float(rng.uniform(0.01, 0.03))) for name in names},
        summaries=summaries,
        tolerance=0.05,
        preset="published",
        chance=0.1,
        provenance={"settings digest": "0f3a" * 16, "torch": "2.14.1", "device": "cpu", "created": "2025-01-02 03:04"},
    )


def make_gallery(results: Results, *, pairs: int = 4, shape: tuple[int, int, int] = (1, 28, 28)) -> Gallery:
    """Blobs: the target's blob is what an inverted image keeps a trace of."""
    rng = np.random.default_rng(7)
    channels, height, width = shape
    y, x = np.mgrid[:height, :width] / height

    def blobs() -> np.ndarray:
        cx, cy, r = rng.uniform(0.3, 0.7, (3, pairs, channels, 1, 1))
        return np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (0.15 * r) ** 1.2)

    seed, target = blobs(), blobs()
    inverted = {
        name: np.clip(seed + 0.15 * target + 0.08 * rng.standard_normal(seed.shape), 0, 1) for name in results.networks
    }
    labels = ["Ankle boot", "T-shirt/top", "Bag", "Dress", "Coat", "Sandal", "Shirt", "Sneaker"]
    return Gallery(
        pairs=np.arange(pairs) * 3,
        seed=np.round(255 * seed).astype(np.uint8),
        target=np.round(255 * target).astype(np.uint8),
        inverted=inverted,
        seed_labels=[labels[index % 8] for index in range(pairs)],
        target_labels=[labels[(index + 3) % 8] for index in range(pairs)],
    )


class Page(HTMLParser):
    """What a browser would load, open and show."""

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
        return [attributes for tag, attributes in self.tags if tag in names]


def page_of(results: Results, **gallery) -> Page:
    return Page(render_page(results, make_gallery(results, **gallery), "iterations: 400\n"))


def warned(page: Page) -> bool:
    return any(attributes.get("class") == "warning" for attributes in page.elements("section"))


def with_loss(results: Results, name: str, **changes) -> Results:
    return dataclasses.replace(results, loss={**results.loss, name: dataclasses.replace(results.loss[name], **changes)})


def with_summary(results: Results, name: str, **changes) -> Results:
    summaries = {**results.summaries, name: dataclasses.replace(results.summaries[name], **changes)}
    return dataclasses.replace(results, summaries=summaries)


def with_inverted(results: Results, row: int, column: int, value: float) -> Results:
    similarity = results.similarity.copy(deep=True)
    similarity.cka.loc["unbiased", "inverted", results.networks[row], results.networks[column]] = value
    return dataclasses.replace(results, similarity=similarity)


def renamed(results: Results, old: str, new: str) -> Results:
    """The same results, one network under another name."""

    def swap(mapping):
        return {new if name == old else name: value for name, value in mapping.items()}

    summaries = swap(results.summaries)
    summaries[new] = dataclasses.replace(summaries[new], name=new)
    names = tuple(new if name == old else name for name in results.networks)
    return dataclasses.replace(
        results,
        networks=names,
        similarity=results.similarity.assign_coords(through=list(names), observer=list(names)),
        rows={key: swap(rows) for key, rows in results.rows.items()},
        row_differences={
            tuple(new if name == old else name for name in pair): value
            for pair, value in results.row_differences.items()
        },
        loss=swap(results.loss),
        summaries=summaries,
    )


def svg_words(svg: str) -> list[str | None]:
    return [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def printed(value: float) -> float:
    return round(float(value), 3)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64)


@pytest.fixture(scope="module")
def page(results) -> Page:
    return page_of(results)


# ---- the page


def test_page_loads_nothing_and_runs_nothing(results):
    text = render_page(results, make_gallery(results), "a: 1")
    page = Page(text)
    assert not page.elements("script", "link", "iframe", "object", "embed", "base", "form")
    for attributes in (attributes for tag, attributes in page.tags if tag != "a"):
        for name in ("src", "srcset", "href", "xlink:href", "data", "poster", "background", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
        assert not any(name.startswith("on") for name in attributes)
    links = [attributes["href"] or "" for attributes in page.elements("a")]
    known = ("#", "https://proceedings.mlr.press/", "https://arxiv.org/", "https://jmlr.org/")
    assert all(link.startswith(known) for link in links)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text


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
    for figure, count in ((figures.heatmaps(odd), 3), (figures.loss_curves(odd), 1)):
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
                other = [low, high, *([] if floors is None else [floors[row, column]])]
                assert shown == [printed(v) for v in (values[row, column], *(other if row != column else []))]


def test_network_table_says_who_and_how_it_went(results, page):
    table = next(table for table in page.tables if table[0][0] == "network")
    rows, columns = row_and_column_means(results.cells("inverted"))
    for index, (name, line) in enumerate(zip(results.networks, table[1:], strict=True)):
        summary, loss = results.summaries[name], results.loss[name]
        assert line[0] == f"{name} {summary.reference}, trained here"
        assert line[1:4] == [f"{summary.parameters:,}", f"{summary.width:,}", f"{100 * summary.accuracy:.1f} %"]
        assert line[4:7] == [f"{np.median(loss.initial):.3f}", f"{loss.median:.4f}", "yes"]
        assert line[7:10] == [f"{np.median(loss.distance):.2f}", "0", "0"]
        assert line[10:12] == [f"{rows[index]:.3f}", f"{columns[index]:.3f}"]
        assert summary.weights_hash.startswith(line[12])
    hashes = {summary.weights_hash for summary in results.summaries.values()}
    assert hashes <= {a.get("title") for a in page.elements("code")}


def test_means_stand_beside_each_other_with_errors_and_floor(results, page):
    table = next(table for table in page.tables if table[0][0] == "images")
    floor = [np.mean(results.floor(kind)[~np.eye(3, dtype=bool)]) for kind in ("natural", "inverted")]
    lines = [
        (results.means[kind, "unbiased"], results.means[kind, "biased"], text)
        for kind, text in (("natural", f"{floor[0]:.4f}"), ("inverted", f"{floor[1]:.4f}"), ("difference", ""))
    ]
    for line, (unbiased, biased, floor_text) in zip(table[1:], lines, strict=True):
        assert line[1:] == [f"{m.value:.4f} ± {m.se:.4f}" for m in (unbiased, biased)] + [floor_text]


def test_headline_is_the_finding_in_one_sentence(results):
    means = {
        ("natural", "unbiased"): Estimate(0.874, 0.011, 15),
        ("natural", "biased"): Estimate(0.9, 0.01, 15),
        ("inverted", "unbiased"): Estimate(-0.0041, 0.012, 15),
        ("inverted", "biased"): Estimate(0.05, 0.02, 15),
        ("difference", "unbiased"): Estimate(0.878, 0.014, 15),
        ("difference", "biased"): Estimate(0.85, 0.02, 15),
    }
    floor = results.similarity.floor.copy(data=np.repeat([[[0.02]], [[0.04]]], 9, axis=2).reshape(2, 3, 3))
    changed = dataclasses.replace(results, means=means, similarity=results.similarity.assign(floor=floor), n=1512)
    assert headline(changed) == (
        "Natural similarity 0.87 ± 0.01; after inversion 0.00 ± 0.01; difference 0.88 ± 0.01 "
        "(unbiased CKA, mean of 6 cells, n = 1,512 images in 16 shards)"
    )
    assert biased_headline(changed) == (
        "Natural similarity 0.90 ± 0.01; after inversion 0.05 ± 0.02; difference 0.85 ± 0.02 "
        "(biased CKA; independent representations would give 0.02 and 0.04 on natural and inverted images)"
    )
    assert "Natural similarity 0.87 ± 0.01; after inversion 0.00 ± 0.01" in page_of(changed).text


def test_intervals_and_the_paired_test_stand_under_the_headline(results, page):
    said = findings.intervals(results)
    low, high = results.means["difference", "unbiased"].interval
    assert f"difference {low:.3f} to {high:.3f}, p < 0.001 (paired; t with 15 degrees of freedom" in said
    assert said in page.text
    assert findings.probability(Estimate(0.01, 0.01, 15)) == "= 0.333"
    assert findings.probability(Estimate(np.nan, np.nan, 15)) == "= –"


def test_rows_are_held_against_each_other_on_the_page_and_in_the_tables(results, page, tmp_path):
    table = next(table for table in page.tables if table[0][0] == "inverted through")
    assert table[0][2:] == ["− mobilenet", "− resnext"]
    for row, (name, mean, *cells) in enumerate(table[1:]):
        assert name == results.networks[row]
        assert mean.startswith(f"{results.rows['inverted', 'unbiased'][name].value:.3f}")
        assert [bool(cell) for cell in cells] == [other > row for other in (1, 2)]
    written = write_report(results, make_gallery(results), tmp_path)
    lines = list(csv.DictReader(written["row_differences.csv"].open(newline="")))
    assert [(line["through"], line["minus"]) for line in lines] == list(results.row_differences)
    first = results.row_differences["densenet", "mobilenet"]
    assert [float(lines[0][key]) for key in ("mean", "se", "low", "high", "p_value")] == [
        first.value, first.se, *first.interval, first.p_value,
    ]  # fmt: skip
    rows = list(csv.DictReader(written["rows.csv"].open(newline="")))
    assert [(row["set"], row["through"]) for row in rows] == [
        (kind, name) for kind in ("natural", "inverted") for name in results.networks
    ]
    assert float(rows[4]["mean"]) == results.rows["inverted", "unbiased"][results.networks[1]].value


def test_undefined_values_are_a_dash_on_the_page_and_in_the_figure_and_empty_in_the_table(results, tmp_path):
    undefined = with_inverted(results, 1, 2, np.nan)
    page = page_of(undefined)
    assert page.tables[-4][2][3].startswith("–")
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
    panel = figures.heatmaps(undefined).axes[1]
    assert [text.get_text() for text in panel.texts if text.get_position() == (2, 1)] == ["–"]
    written = write_report(undefined, make_gallery(undefined), tmp_path)
    cell = list(csv.DictReader(written["inverted.csv"].open(newline="")))[5]
    assert (cell["through"], cell["observer"], cell["cka_unbiased"]) == ("mobilenet", "resnext", "")


# ---- warnings


def test_nothing_is_warned_of_when_all_went_well(results, page):
    assert warnings(results) == []
    assert not warned(page)


def test_warning_names_the_networks_that_have_not_converged_and_only_those(results):
    late = with_loss(results, "mobilenet", final=np.full(64, 0.2))
    [warning] = warnings(late)
    assert "mobilenet (0.200)" in warning
    assert "densenet" not in warning
    assert "0.05" in warning
    page = page_of(late)
    assert warned(page)
    assert warning in page.text
    table = next(table for table in page.tables if table[0][0] == "network")
    assert [line[6] for line in table[1:]] == ["yes", "NO", "yes"]
    assert warnings(with_loss(results, "mobilenet", final=np.full(64, np.nan)))


def test_an_accuracy_without_meaning_is_no_reason_to_doubt(results):
    """Of a network that tells other classes apart than the images have."""
    unknown = with_summary(results, "densenet", accuracy=np.nan)
    assert warnings(unknown) == []
    assert "clearly better than chance; no image" in all_well(results) and "chance" not in all_well(unknown)
    assert "Accuracy of densenet is not reported: it was trained on other classes." in all_well(unknown)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda results: with_loss(results, "densenet", stalled=3), "densenet (3 of 64)"),
        (lambda results: with_loss(results, "densenet", nonfinite=2), "densenet (2 of 64)"),
        (lambda results: with_summary(results, "densenet", accuracy=0.12), "densenet (12.0 %)"),
        (lambda results: with_summary(results, "densenet", other_size=384), "densenet (384 pixels a side)"),
        (lambda results: dataclasses.replace(results, preset="fast"), "Compare only with runs of the same preset"),
        (lambda results: with_inverted(results, 0, 1, np.nan), "1 of 9 unbiased values of the inverted matrix"),
    ],
)
def test_every_other_reason_to_doubt_is_warned_of(results, change, said):
    [warning] = warnings(change(results))
    assert said in warning
    assert warned(page_of(change(results)))


def test_better_than_chance_fits_two_classes_and_a_thousand():
    assert not better_than_chance(0.52, 1 / 2)
    assert better_than_chance(0.6, 1 / 2)
    assert not better_than_chance(0.12, 1 / 10)
    assert better_than_chance(0.3, 1 / 10)
    assert not better_than_chance(0.0013, 1 / 1000)
    assert better_than_chance(0.05, 1 / 1000)


# ---- gallery


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


# ---- figures


def test_both_heatmaps_have_one_colour_scale(results):
    for estimator in ("unbiased", "biased"):
        natural, inverted, bar = figures.heatmaps(results, estimator).axes
        assert [axes.collections[0].get_clim() for axes in (natural, inverted, bar)] == [(0, 1)] * 3
        assert len({axes.collections[0].get_cmap().name for axes in (natural, inverted, bar)}) == 1


def test_rows_are_through_from_the_top_and_columns_observer(results):
    for estimator in ("unbiased", "biased"):
        values = results.cells("inverted", estimator)
        natural, inverted, _ = figures.heatmaps(results, estimator).axes
        assert inverted.get_ylim() == (2.5, -0.5)
        assert (natural.get_ylabel(), inverted.get_xlabel()) == ("through", "observer")
        assert [label.get_text() for label in natural.get_yticklabels()] == list(results.networks)
        shown = {text.get_position(): text.get_text() for text in inverted.texts}
        cells = itertools.product(range(3), range(3))
        assert all(shown[column, row] == f"{values[row, column]:.2f}" for row, column in cells)
        np.testing.assert_array_equal(inverted.collections[0].get_array(), values)


def test_numbers_stand_out_from_every_cell():
    for value in (*np.linspace(0, 1, 201), np.nan):
        cell = to_rgb(figures.UNDEFINED) if np.isnan(value) else figures.COLORS(value)[:3]
        dark, light = sorted(figures.luminance(color) + 0.05 for color in (cell, to_rgb(figures.ink_on(value))))
        assert light / dark > 4.5


def test_lines_stand_out_from_the_light_page_and_the_dark_one():
    template = (Path(figures.__file__).parent / "templates" / "report.html.j2").read_text()
    pages = re.findall(r"--page: (#[0-9a-f]{6})", template)
    assert len(pages) == 2
    for line, page in itertools.product(figures.LINES, pages):
        dark, light = sorted(figures.luminance(to_rgb(color)) + 0.05 for color in (line, page))
        assert light / dark >= 3, (line, page)


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


def test_loss_curves_draw_the_history_and_the_tolerance(results):
    axes = figures.loss_curves(results).axes[0]
    assert axes.get_yscale() == "log"
    for name, line in zip(results.networks, axes.lines, strict=False):
        np.testing.assert_array_equal(line.get_xdata(), results.loss[name].history_iterations)
        np.testing.assert_array_equal(line.get_ydata(), results.loss[name].history)
    assert any(np.all(np.asarray(line.get_ydata()) == results.tolerance) for line in axes.lines)
    assert {text.get_text() for text in axes.texts} == {*results.networks, "tolerance 0.05"}


def test_losses_without_a_logarithm_leave_the_others_drawn(results):
    history = results.loss["densenet"].history
    odd = with_loss(results, "densenet", history=np.where(np.arange(len(history)) % 2, 0.0, history))
    odd = with_loss(odd, "mobilenet", history=np.full(len(history), np.nan))
    words = {text.get_text() for text in figures.loss_curves(odd).axes[0].texts}
    assert words == {"densenet", "resnext", "tolerance 0.05"}
    assert "<svg" in svg.to_svg(figures.loss_curves(odd))


def test_spread_places_are_the_nearest_that_do_not_overlap(rng):
    grid = np.linspace(0, 1, 41)
    apart = np.array([p for p in itertools.combinations(grid, 3) if min(p[1] - p[0], p[2] - p[1]) >= 0.2 - 1e-12])
    for wanted in np.sort(np.round(rng.random((50, 3)) * 40) / 40):
        found = figures.spread(wanted, gap=0.2)
        assert (np.diff(found) >= 0.2 - 1e-12).all()
        assert 0 <= found.min() <= found.max() <= 1 + 1e-12
        assert ((found - wanted) ** 2).sum() <= ((apart - wanted) ** 2).sum(axis=1).min() + 1e-12


def test_numbers_are_written_as_a_reader_expects():
    assert [findings.number(v, 2) for v in (0.125, -0.014, -0.001, np.nan, np.inf)] == [
        "0.12",
        "−0.01",
        "0.00",
        "–",
        "–",
    ]
    assert findings.with_error(Estimate(0.0312, 0.0021, 15)) == "0.031 ± 0.002"
    assert findings.with_error(Estimate(np.nan, np.nan, 15)) == "– ± –"


def test_row_and_column_means_leave_out_the_diagonal(rng):
    values = rng.random((4, 4))
    rows, columns = row_and_column_means(values)
    for index in range(4):
        others = [other for other in range(4) if other != index]
        assert rows[index] == pytest.approx(np.mean([values[index, other] for other in others]))
        assert columns[index] == pytest.approx(np.mean([values[other, index] for other in others]))


# ---- files


def test_tables_read_back_as_the_very_numbers(results, tmp_path):
    written = write_report(results, make_gallery(results), tmp_path / "new" / "folder")
    for kind in ("natural", "inverted"):
        lines = list(csv.DictReader(written[f"{kind}.csv"].open(newline="")))
        cells = list(itertools.product(results.networks, results.networks))
        assert [(line["through"], line["observer"]) for line in lines] == cells
        expected = {"cka": ("biased", "cka"), "cka_se": ("biased", "se")}
        expected |= {"cka_unbiased": ("unbiased", "cka"), "cka_unbiased_se": ("unbiased", "se")}
        cells = {column: results.cells(kind, estimator, kind=key) for column, (estimator, key) in expected.items()}
        for column, values in (cells | {"floor": results.floor(kind)}).items():
            np.testing.assert_array_equal([float(line[column]) for line in lines], values.ravel())
        assert {line["n"] for line in lines} == {"64"}
    losses = list(csv.DictReader(written["losses.csv"].open(newline="")))
    assert [(line["through"], int(line["pair"])) for line in losses] == [
        (m, k) for m in results.networks for k in range(64)
    ]
    for column, name in (("initial_loss", "initial"), ("final_loss", "final"), ("distance", "distance")):
        expected = np.concatenate([getattr(results.loss[network], name) for network in results.networks])
        np.testing.assert_array_equal([float(line[column]) for line in losses], expected)
    networks = list(csv.DictReader(written["networks.csv"].open(newline="")))
    assert [line["weights_hash"] for line in networks] == [
        results.summaries[name].weights_hash for name in results.networks
    ]
    assert [line["converged"] for line in networks] == ["true"] * 3


def test_same_results_give_the_same_bytes(results, tmp_path):
    contents = []
    for folder in ("one", "two"):
        written = write_report(results, make_gallery(results), tmp_path / folder, settings_yaml="a: 1")
        contents.append({name: Path(path).read_bytes() for name, path in written.items()})
    assert contents[0] == contents[1]
    assert contents[0]["heatmaps.png"].startswith(b"\x89PNG")
    assert contents[0]["heatmaps.svg"].startswith(b"<?xml")


def test_a_report_that_cannot_be_rendered_leaves_the_old_one_as_it_was(results, tmp_path):
    written = write_report(results, make_gallery(results), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = make_results(4, n=64)
    with pytest.raises(IndexError):
        write_report(other, dataclasses.replace(make_gallery(other), seed_labels=[]), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert written["report.html"].name in before
    assert len(before) == 9


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left_lying_about(results, tmp_path):
    (tmp_path / "natural.csv").mkdir()
    with pytest.raises(SettingsError, match=re.escape(str(tmp_path))):
        write_report(results, make_gallery(results), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["natural.csv"]
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="choose another folder"):
        write_report(results, make_gallery(results), tmp_path / "file")


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 224, 224)])
def test_the_gallery_as_one_picture_is_small_and_has_every_image(shape):
    """Artifacts in the UI come with the page that lists them. 11 columns and 4 rows of tiles, and room for names."""
    picture = to_webp(gallery_figure(make_gallery(make_results(count=9), shape=shape)))
    with Image.open(io.BytesIO(picture)) as image:
        width, height = image.size
    assert width > 11 * 58 and height > 4 * 58 and len(picture) < 150_000


def test_the_tiles_of_the_gallery_are_the_images(results):
    """Those of 28 pixels twice as large, those of 224 a quarter as large."""
    gallery = make_gallery(results, shape=(1, 28, 28))
    (axes,) = gallery_figure(gallery).axes
    pixels = axes.get_images()[0].get_array()
    np.testing.assert_array_equal(pixels[58 : 58 + 56 : 2, 58 : 58 + 56 : 2, 0], gallery.target[1, 0])
    large = make_gallery(results, shape=(3, 224, 224))
    pixels = gallery_figure(large).axes[0].get_images()[0].get_array()
    means = large.seed[0].reshape(3, 56, 4, 56, 4).mean(axis=(2, 4)).transpose(1, 2, 0)
    np.testing.assert_allclose(pixels[:56, :56], means, atol=1)
    assert gallery_figure(make_gallery(results, shape=(2, 28, 28))) is None


def test_tables_of_the_ui_hold_the_numbers_of_the_results(results):
    rows = network_table(results)
    assert [row["network"] for row in rows] == list(results.networks)
    for row in rows:
        loss = results.loss[row["network"]]
        assert (row["initial loss"], row["final loss"]) == (number(np.median(loss.initial)), number(loss.median))
        assert row["converged"] == ("yes" if loss.median <= results.tolerance else "NO")
    cell = matrix_table(results, "inverted")[2][results.networks[1]]
    assert cell.startswith(f"{number(results.cells('inverted')[2, 1])} [")
