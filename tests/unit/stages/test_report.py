"""The report is written into the store: a page, tables, and both matrices as arrays."""

import html
import shutil
from pathlib import Path

import numpy as np
import pytest

from netsim.errors import StoreError
from netsim.results.results import load_results
from netsim.stages import report
from netsim.store.layout import MATRICES
from netsim.store.run import Run


def test_files_of_a_report_are_those_of_its_record(finished):
    record = finished.record("report", "report")
    written = {f"report/{path.name}" for path in (Path(finished.url) / "report").iterdir()}
    assert record.files.keys() == written >= {"report/report.html", "report/natural.csv"}


def test_settings_on_the_page_are_those_of_the_run(finished):
    page = html.unescape(finished.read_file(finished.record("report", "report"), "report/report.html").decode())
    assert finished.settings.to_yaml().strip() in page


def test_matrices_in_the_store_are_those_of_the_results(finished):
    """Sets come in this order; a cell is (set, through, observer)."""
    record, results = finished.record("report", "report"), load_results(finished)
    assert record.arrays.keys() == {f"results/{kind}" for kind in MATRICES}
    for kind, estimator in (("cka", "biased"), ("cka_unbiased", "unbiased")):
        stored = finished.read(record, f"results/{kind}")
        for index, set_kind in enumerate(("natural", "inverted")):
            np.testing.assert_array_equal(stored[index], results.cells(set_kind, estimator))


def test_a_report_requires_every_row(finished, tmp_path):
    shutil.copytree(finished.url, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    run.forget("aggregate", "natural/vgg", 0)
    with pytest.raises(StoreError, match=r"1 of 6 shards of aggregate are missing, the first aggregate natural/vgg"):
        report.compute(run, "report", 0)
