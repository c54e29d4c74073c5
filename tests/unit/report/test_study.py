"""The page of a study shows its tables, figures and marks, and its files hold the same numbers in full precision."""

import csv
import io
import math
import re

import numpy as np
import pytest

from netsim.report.study import cross_figure, curves_figure, measures_figure, render_study, write_study
from netsim.results.study import Study, cross_table, level_table, make_study
from support.results import make_results, with_eps, with_loss, with_summary
from unit.results.test_study import measure_of

LEVELS = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def study() -> Study:
    results = with_eps(make_results(9, n=64), *LEVELS, architectures=3)
    results = with_summary(results, "densenet", accuracy=0.5)  # a0, standard
    results = with_loss(results, "vgg", final=np.full(64, 0.2))  # a2, standard
    return make_study(results, {"agreement": measure_of(results)})


@pytest.fixture(scope="module")
def files(study) -> dict[str, bytes]:
    return render_study(study)


def lines_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def number_of(field: str) -> float:
    return float(field) if field else math.nan


def test_every_file_is_written_and_the_page_last(study, files, tmp_path):
    written = write_study(study, tmp_path / "out")
    assert list(written)[-1] == "study.html" and written.keys() == files.keys()
    assert {"curves.csv", "slopes.csv", "cross.csv", "asymmetry.csv", "networks.csv"} < written.keys()
    assert {f"{name}.{kind}" for name in ("curves", "cross", "measures") for kind in ("svg", "png")} < written.keys()
    assert all(path.read_bytes() == files[name] for name, path in written.items())
    assert files["curves.png"].startswith(b"\x89PNG") and files["curves.svg"].startswith(b"<?xml")
    assert render_study(study) == files


def test_curves_and_cross_read_back_as_the_very_numbers(study, files):
    lines = lines_of(files["curves.csv"])
    assert len(lines) == len(study.curves) * (1 + 3) * 3
    for line in lines:
        curve = study.curves[line["quantity"], line["set"]]
        means = curve.rows[line["architecture"]] if line["architecture"] else curve.same
        mean = means[curve.eps.index(float(line["eps"]))]
        read = [number_of(line[name]) for name in ("value", "se", "se_networks", "se_total")]
        expected = [mean.value, mean.images.se, mean.networks.se, mean.total.se]
        np.testing.assert_array_equal(read, expected)
    for line in lines_of(files["cross.csv"]):
        curve = study.curves[line["quantity"], line["set"]]
        k, other = (curve.eps.index(float(line[f"{name}_eps"])) for name in ("through", "observer"))
        np.testing.assert_array_equal(number_of(line["value"]), curve.cross[k][other].value)


def test_slopes_and_asymmetries_read_back_as_the_very_numbers(study, files):
    for line in lines_of(files["slopes.csv"]):
        curve = study.curves[line["quantity"], line["set"]]
        slope = curve.slopes[line["architecture"]] if line["architecture"] else curve.slope
        read = [number_of(line[name]) for name in ("value", "low_total", "high_total", "p_value")]
        np.testing.assert_array_equal(read, [slope.value, *slope.total.interval, slope.total.p_value])
    assert {line["set"] for line in lines_of(files["asymmetry.csv"])} == {"inverted"}
    for line in lines_of(files["asymmetry.csv"]):
        curve = study.curves[line["quantity"], line["set"]]
        each = curve.asymmetries[curve.eps.index(float(line["eps"])) - 1] if line["eps"] else curve.asymmetry
        assert number_of(line["value"]) == each.value and number_of(line["se_networks"]) == each.networks.se
    networks = {line["name"]: line for line in lines_of(files["networks.csv"])}
    assert networks["densenet"]["below_floor"] == "true" and networks["vgg"]["below_floor"] == "false"
    assert (networks["vgg"]["converged"], networks["vgg"]["architecture"], networks["vgg"]["eps"]) == (
        "false",
        "a2",
        "0.0",
    )


def test_the_page_shows_every_table_and_mark_and_loads_nothing(study, files):
    page = files["study.html"].decode()
    assert "<script" not in page and not re.search(r'(?:src|href)="http(?!s://(?:arxiv|proceedings))', page)
    assert "{{" not in page and "Content-Security-Policy" in page and "--page: #ffffff" in page
    for row in (*level_table(study), *cross_table(study)):
        assert all(f">{cell}</t" in page for cell in row.values())
    assert page.count('<td class="bad">') >= 8  # level, rows and cross of both sets, and two networks
    assert "densenet (50.0 %)" in page and "vgg (100.0 %)" in page and "netsim measure STORE jensen_shannon" in page
    for anchor in re.findall(r'<a href="#(\w+)">', page):
        assert f'<h2 id="{anchor}">' in page


def test_without_measures_the_page_says_so(files):
    study = make_study(with_eps(make_results(4, n=64), 0.0, 0.5, architectures=2))
    assert measures_figure(study) is None
    rendered = render_study(study)
    assert "measures.svg" not in rendered and b"were not measured" in rendered["study.html"]
    assert b"were not measured" not in files["study.html"]


def test_curves_are_drawn_with_their_intervals(study):
    natural, inverted = curves_figure(study).axes
    assert natural.get_title() == "Natural images" and inverted.get_xlabel() == "eps (l2) of both networks"
    curve = study.curves["cka", "inverted"]
    assert len(inverted.containers) == 4
    (mean, caps, _) = inverted.containers[-1]
    np.testing.assert_array_equal(mean.get_xdata(), LEVELS)
    np.testing.assert_array_equal(mean.get_ydata(), [each.value for each in curve.same])
    for cap, side in zip(caps, (0, 1), strict=True):
        intervals = [each.total.interval if np.isfinite(each.total.se) else each.images.interval for each in curve.same]
        np.testing.assert_allclose(cap.get_ydata().astype(float), [ends[side] for ends in intervals], rtol=1e-12)
    for container, row in zip(inverted.containers, curve.rows.values(), strict=False):
        np.testing.assert_array_equal(container[0].get_ydata(), [each.value for each in row])
    assert {text.get_text() for text in inverted.texts} == {"a0", "a1", "a2", "mean"}
    assert inverted.get_ylim()[0] <= 0 and inverted.get_ylim()[1] >= 1


def test_the_heatmap_across_eps_has_robust_rows_below_standard_ones(study):
    _, inverted, _ = cross_figure(study).axes
    values = [[each.value for each in row] for row in study.curves["cka", "inverted"].cross]
    np.testing.assert_array_equal(inverted.collections[0].get_array(), values)
    assert [label.get_text() for label in inverted.get_xticklabels()] == ["0", "0.5", "1"]
    assert inverted.get_ylim() == (2.5, -0.5) and inverted.get_xlabel() == "eps, observer"
