"""Tables in a terminal keep every name and every digit, however narrow it is."""

import io
import itertools
from dataclasses import replace

import pytest

from flows.cli import console as terminal
from flows.cli import tables
from flows.cli.console import console
from netsim.results.compared import compare_sweeps
from netsim.results.findings import summary
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


def joined(text: str) -> str:
    """Undo the breaks of lines."""
    return " ".join(text.split())


def test_a_matrix_of_forty_networks_is_folded_and_numbered(output):
    results = make_results(40, n=64, observers=("seer",))
    tables.show_matrix("Natural CKA", results, "natural")
    text = output.getvalue()
    assert "…" not in text and "columns by number, 41 = seer" in joined(text)
    shown: dict[tuple[int, int], str] = {}
    for line in text.splitlines():
        numbers = line.split()
        if numbers and all(part.isdigit() for part in numbers):
            columns = [int(part) for part in numbers]
        elif len(numbers) > 2 and numbers[0].isdigit():
            row, name, *cells = numbers
            assert name == results.networks[int(row) - 1]
            shown |= {(int(row), column): cell for column, cell in zip(columns, cells, strict=True)}
    assert shown == {
        (row + 1, column + 1): f"{value:.2f}"
        for row, values in enumerate(results.cells("natural"))
        for column, value in enumerate(values)
    }
    assert max(map(len, text.splitlines())) <= console.width


def test_columns_have_names_where_they_fit(output):
    tables.show_results(make_results(3, n=64))
    header = output.getvalue().splitlines()[1 if console.width > 60 else 2]
    assert header.split() == ["densenet", "mobilenet", "resnext"]


def test_sentences_are_wrapped_at_words_and_keep_numbers_whole(output):
    results = make_results(9, n=64)
    tables.show_summary(summary(results))
    lines = output.getvalue().splitlines()
    assert joined(output.getvalue()) == joined(summary(results))
    assert max(map(len, lines)) <= console.width and len(lines) > len(summary(results).splitlines())
    assert not [line for line in lines if line.endswith(("±", "<", "=")) or line.strip().startswith(("±", "%"))]


def test_a_command_is_not_broken(output):
    command = (
        "`netsim run --store 'a folder with a long name and spaces in it, wider than a line of a narrow terminal'`"
    )
    terminal.say(f"one two three four five six seven eight nine ten {command} eleven")
    assert command in output.getvalue()


def test_every_line_of_the_networks_has_all_its_columns(output):
    results = make_results(3, n=64)
    tables.show_results(results)
    text = output.getvalue()
    assert "…" not in text
    for word in ("halfway", "converged", "fidelity", "distance", "iterations"):
        assert word in text
    assert "± " in text and "(images)" in text and "(networks)" in text
    assert "Asymmetry of the inverted matrix" in joined(text)


def test_studies_keep_every_level_and_every_mark(output):
    results = with_summary(with_eps(make_results(9, n=64), 0.0, 0.5, 1.0, architectures=3), "densenet", accuracy=0.5)
    study = make_study(results)
    tables.show_study(study)
    text = output.getvalue()
    assert "…" not in text and "densenet" in text and "50.0 %" in text
    for row in (*level_table(study), *architecture_table(study), *cross_table(study)):
        label, *cells = row.values()
        assert all(part in text for part in (*label.split(), *cells))  # a long label may take several lines
    assert f"{study_headline(study)}." in joined(text)
    assert "WARNING  Below the accuracy floor" in text and "netsim measure STORE agreement" in joined(text)


def test_comparisons_keep_errors_and_agreement(output, finished):
    tables.show_compared(compare_sweeps(finished, finished), "a", "b")
    text = output.getvalue()
    assert "…" not in text and "0.000 ± 0.000" in text
    assert "Correlation of A and B over cells" in joined(text) and "1.000" in text and "reliability" in text


def test_comparisons_of_other_seeds_say_whether_seeds_or_targets_help(output, finished):
    parts = seed_reliability([0.2, 0.21], [[0.1, 0.2, 0.3, 0.2], [0.12, 0.2, 0.29, 0.23]])
    seeds = dict.fromkeys(("", *finished.settings.names), parts)
    settings = {"pairs.seed_draw": (0, 1), "inversion.iterations": (5, 6)}
    tables.show_compared(replace(compare_sweeps(finished, finished), settings=settings, seeds=seeds), "a", "b")
    text = output.getvalue()
    assert "…" not in text and "paired: both are of the same targets, with other seeds" in joined(text)
    assert "Settings differ: pairs.seed_draw (0 and 1), inversion.iterations (5 and 6)." in joined(text)
    assert f"{parts.icc:.2f}" in text and text.count("shufflenet") > 3
    assert (
        f"leaves {parts.after_second_draw:.2f} of the variance of the mean; as many more targets leave 0.50"
        in joined(text)
    )


@pytest.mark.parametrize("room", [1, 7, 20, 100])
def test_blocks_have_every_column_once_in_order(room):
    widths = [5, 7, 3, 20, 5, 5]
    blocks = terminal.column_blocks(widths, room)
    assert list(itertools.chain(*blocks)) == list(range(6))
    assert all(len(block) == 1 or sum(widths[index] for index in block) <= room for block in blocks)
    assert terminal.column_blocks([], room) == []


def test_the_answer_of_a_sweep_that_stopped_is_printed(output):
    tables.show_results(with_verdict(make_results(3, n=64), half_width=0.1))
    assert "Known: inverted mean" in output.getvalue()


def test_short_labels_and_titles_stay_whole(output):
    table = terminal.table_of("inverted through", *(f"column {number}" for number in range(20)))
    table.add_column("state")
    table.add_row("vgg", *(f"{number}.123" for number in range(20)), "aggregate 3/12")
    terminal.show("a title", table)
    lines = output.getvalue().splitlines()
    assert any("aggregate 3/12" in line for line in lines) and any("inverted through" in line for line in lines)
    assert max(map(len, lines)) <= console.width
