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
from netsim.store.stages import AGGREGATE
from support.sweeps import unit_of


def test_files_of_a_report_are_those_of_its_record(finished):
    key = finished.sweep.id
    written = {f"report/{key}/{path.name}" for path in (Path(finished.url) / "report" / key).iterdir()}
    assert finished.record("report", key).files.keys() == written
    assert written >= {f"report/{key}/report.html", f"report/{key}/natural.csv"}


def test_settings_on_the_page_are_those_of_the_run(finished):
    key = finished.sweep.id
    page = html.unescape(finished.read_file(finished.record("report", key), f"report/{key}/report.html").decode())
    assert finished.settings.to_yaml().strip() in page


def test_matrices_in_the_store_are_those_of_the_results(finished):
    """Sets come in this order; a cell is (set, through, observer)."""
    key = finished.sweep.id
    record, results = finished.record("report", key), load_results(finished)
    assert record.arrays.keys() == {f"results/{key}/{kind}" for kind in (*MATRICES, "cka_unbiased_converged")}
    for kind, estimator in (("cka", "biased"), ("cka_unbiased", "unbiased")):
        stored = finished.read(record, f"results/{key}/{kind}")
        for index, set_kind in enumerate(("natural", "inverted")):
            np.testing.assert_array_equal(stored[index], results.cells(set_kind, estimator))


def test_a_report_requires_every_row(finished, tmp_path):
    shutil.copytree(finished.url, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    run.forget(*unit_of(run, AGGREGATE, "natural/vgg"))
    with pytest.raises(StoreError, match=r"1 of 6 shards of aggregate are missing, the first aggregate natural/vgg"):
        report.compute(run, run.sweep.id, 0)
