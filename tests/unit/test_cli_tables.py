"""Tables in a terminal keep every name and every digit, however narrow it is."""

import io
import itertools
from dataclasses import replace

import pytest

from flows.cli import tables
from flows.cli.console import console
from netsim.results.compared import compare_sweeps
from netsim.results.study import architecture_table, cross_table, level_table, make_study, study_headline
from netsim.statistics.reliability import seed_reliability
from support.results import make_results, with_eps, with_summary, with_verdict


@pytest.fixture(params=[60, 80, 120])
def output(request, monkeypatch) -> io.StringIO:
    """What is printed, to a terminal of some characters a line."""
    stream = io.StringIO()
    monkeypatch.setattr(console, "_file", stream)  # `file` would be left at the stdout of this test
    monkeypatch.setattr(console, "width", request.param)
    return stream


def test_matrices_are_printed_in_blocks_that_fit(output):
    results = make_results(25, n=64)
    tables.show_results(results)
    text = output.getvalue()
    assert "…" not in text
    blocks = text.split("Networks and their inversions")[0].split("largest standard error")[1:]
    assert len(blocks) > 2
    shown: dict[str, list[str]] = {}
    for block in blocks[: len(blocks) // 2]:
        for line in block.splitlines():
            name, *cells = line.split() or [""]
            if name in results.networks and len(cells) and cells[0][-1].isdigit() and "." in cells[0]:
                shown.setdefault(name, []).extend(cells)
                assert len(line.rstrip()) <= console.width
    cells = results.cells("natural")
    for name, row in zip(results.networks, cells, strict=True):
        assert shown[name] == [f"{value:.2f}" for value in row]


def test_every_line_of_the_networks_has_all_its_columns(output):
    results = make_results(3, n=64)
    tables.show_results(results)
    text = output.getvalue()
    assert "…" not in text
    for word in ("halfway", "converged", "fidelity", "distance", "iterations"):
        assert word in text
    assert "± " in text and "(images)" in text and "(networks)" in text
    assert "Asymmetry of the inverted matrix" in text


def test_studies_keep_every_level_and_every_mark(output):
    results = with_summary(with_eps(make_results(9, n=64), 0.0, 0.5, 1.0, architectures=3), "densenet", accuracy=0.5)
    study = make_study(results)
    tables.show_study(study)
    text = output.getvalue()
    assert "…" not in text and "densenet" in text and "50.0 %" in text
    for row in (*level_table(study), *architecture_table(study), *cross_table(study)):
        assert all(cell in text for cell in row.values())
    assert f"{study_headline(study)}." in text.replace("\n", "")
    assert "WARNING  Below the accuracy floor" in text and "netsim measure STORE agreement" in text


def test_comparisons_keep_errors_and_agreement(output, finished):
    tables.show_compared(compare_sweeps(finished, finished), "a", "b")
    text = output.getvalue()
    assert "…" not in text and "0.000 ± 0.000" in text
    assert "Correlation of A and B over cells" in text and "1.000" in text and "reliability" in text


def test_comparisons_of_other_seeds_say_whether_seeds_or_targets_help(output, finished):
    parts = seed_reliability([0.2, 0.21], [[0.1, 0.2, 0.3, 0.2], [0.12, 0.2, 0.29, 0.23]])
    seeds = dict.fromkeys(("", *finished.settings.names), parts)
    settings = {"pairs.seed_draw": (0, 1), "inversion.iterations": (5, 6)}
    tables.show_compared(replace(compare_sweeps(finished, finished), settings=settings, seeds=seeds), "a", "b")
    text = output.getvalue()
    assert "…" not in text and "paired: both are of the same targets, with other seeds" in text
    assert "Settings differ: pairs.seed_draw (0 and 1), inversion.iterations (5 and 6)." in text
    assert f"{parts.icc:.2f}" in text and text.count("shufflenet") > 3
    assert f"leaves {parts.after_second_draw:.2f} of the variance of the mean; as many more targets leave 0.50" in text


@pytest.mark.parametrize("room", [1, 7, 20, 100])
def test_blocks_have_every_column_once_in_order(room):
    widths = [5, 7, 3, 20, 5, 5]
    blocks = tables.column_blocks(widths, room)
    assert list(itertools.chain(*blocks)) == list(range(6))
    assert all(len(block) == 1 or sum(widths[index] for index in block) <= room for block in blocks)
    assert tables.column_blocks([], room) == []


def test_the_answer_of_a_sweep_that_stopped_is_printed(output):
    tables.show_results(with_verdict(make_results(3, n=64), half_width=0.1))
    assert "Known: inverted mean" in output.getvalue()
