"""Networks with equal weights are one network: they are found by their hashes, and no mean includes their cells."""

import numpy as np
import pytest

from netsim.results.as_json import to_json
from netsim.results.findings import warnings
from netsim.results.measured import load_measured, measure_stage
from netsim.results.results import load_results
from netsim.results.twins import counted_cells, counted_mean, twin_groups
from netsim.stages.work import compute_unit
from netsim.store.run import Run
from support.sweeps import new_run, run_all, tiny


def test_groups_are_in_the_order_of_the_networks_and_have_more_than_one():
    assert twin_groups("abcde", "xyxzy") == (("a", "c"), ("b", "e"))
    assert twin_groups("abc", "xxx") == (("a", "b", "c"),)
    assert twin_groups("abc", "xyz") == twin_groups("", "") == ()


def test_cells_count_unless_both_weights_are_equal():
    np.testing.assert_array_equal(counted_cells("xyz"), ~np.eye(3, dtype=bool))
    assert not counted_cells("xx").any()
    mask = counted_cells("xyx")
    assert mask[0].tolist() == [False, True, False] and (mask == mask.T).all()


def test_a_mean_is_over_counted_cells_and_nan_without_any():
    values = np.arange(18.0).reshape(3, 3, 2)
    mask = counted_cells("xyx")
    np.testing.assert_array_equal(counted_mean(values, mask), values[mask].mean(axis=0))
    assert np.isnan(counted_mean(values, np.zeros((3, 3), dtype=bool))).tolist() == [True, True]
    assert np.isnan(counted_mean(values[0, :, 0], np.zeros(3, dtype=bool)))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A finished run of a network twice, and of another."""
    settings = tiny(networks=["a=small:vgg@none", "small:resnet18@none", "b=small:vgg@none"])
    run = new_run(str(tmp_path_factory.mktemp("twins") / "run"), settings)
    run_all(run)
    return run


def test_a_network_that_is_in_a_run_twice_is_named_and_changes_no_mean(run):
    results = load_results(run)
    assert results.twins == (("a", "b"),)
    assert results.cells("natural")[0, 2] == pytest.approx(1, abs=1e-9)
    assert warnings(results)[0].startswith("Equal weights: a and b are both the same network.")
    for set_name in ("natural", "inverted"):
        cells = results.cells(set_name)
        assert results.means[set_name, "unbiased"].value == pytest.approx(cells[[0, 1, 1, 2], [1, 0, 2, 1]].mean())
        assert results.rows[set_name, "unbiased"]["a"].value == cells[0, 1]
    difference = results.cells("natural") - results.cells("inverted")
    expected = difference[[0, 1, 1, 2], [1, 0, 2, 1]].mean()
    assert results.means["difference", "unbiased"].value == pytest.approx(expected)
    assert set(results.row_differences) == {("a", "resnet18"), ("resnet18", "b")}
    assert to_json(results)["twins"][0]["left_out_of_means"] == [["a", "b"], ["b", "a"]]


def test_means_of_other_measures_leave_twins_out_too(run):
    stage = measure_stage(["agreement"])
    units = stage.missing(run)
    stage.prepare(run, units)
    for name, shard in units:
        compute_unit(run, stage, name, shard)
    measured = load_measured(run)["agreement"]
    for matrix in (measured.natural, measured.inverted):
        assert matrix.mean.value == pytest.approx(matrix.value[[0, 1, 1, 2], [1, 0, 2, 1]].mean())
        assert matrix.null_mean == pytest.approx(matrix.null[[0, 1, 1, 2], [1, 0, 2, 1]].mean())
