"""Measured matrices are read as rows were stored, mirrored if symmetric, with errors of means over shared images."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from netsim.errors import SettingsError, StoreError
from netsim.results.measured import (
    HALVES,
    NULLS,
    load_measured,
    measure_arrays,
    measure_stage,
    measured_json,
    rows_of,
)
from netsim.similarity.measures import find_measure
from netsim.similarity.uncertainty import jackknife_se
from netsim.stages.work import StageResult, commit
from netsim.store.documents import create_arrays
from netsim.store.layout import RowUnit, row_parts, row_unit, rows
from netsim.store.metadata import MeasureMetadata
from netsim.store.run import Run

Values = dict[str, np.ndarray]
Pair = tuple[str, str, str]
"""Set, and the two networks of a cell."""


@pytest.fixture
def run(finished, tmp_path) -> Run:
    shutil.copytree(finished.url, tmp_path / "run")
    return Run.open(tmp_path / "run")


def store(run: Run, name: str, only: str = "", *, symmetric: bool = False, **metadata) -> dict[Pair, Values]:
    """Commit made-up values of each row of a measure, or of those that begin with `only`; return them by cell."""
    measure, rng, cells = replace(find_measure(name), symmetric=symmetric), np.random.default_rng(0), {}
    kind, two_sets = rows_of(measure), measure.takes == "two sets"
    facts = MeasureMetadata(
        title="made up", source="this test", streams=measure.streams, symmetric=symmetric, two_sets=two_sets, **metadata
    )
    resamples = run.sweep.shards if measure.streams else HALVES
    for unit, _ in kind.missing(run, {}):
        row, pairs = RowUnit.parse(unit).row, kind.of_unit(run, unit)
        if not row.startswith(only):
            continue
        shapes = {"value": (), "resampled": (resamples,), "null": (NULLS,)}
        values = {each: rng.random((len(pairs), *shape)) for each, shape in shapes.items()}
        run.keep_cohorts([RowUnit.parse(unit).cohort])
        create_arrays(run, measure_arrays(run, f"{name}/{unit}", measure))
        arrays = {f"measures/{name}/{unit}/{each}": array for each, array in values.items()}
        commit(run, measure_stage([name]), f"{name}/{unit}", 0, StageResult(arrays, metadata=facts), 1.0)
        set_name = row_parts(row)[0]
        cells |= {(set_name, *pair): {k: v[at] for k, v in values.items()} for at, pair in enumerate(pairs)}
    return cells


def stacked(cells: dict[Pair, Values], kind: str, names: tuple[str, ...], *, natural: bool) -> np.ndarray:
    sets = {x: "natural" if natural else f"inverted/{x}" for x in names}
    return np.array([[cells[sets[x], x, y][kind] for y in names] for x in names])


def test_means_of_measures_without_a_known_value_of_unrelated_rows_are_not_tested(run):
    store(run, "procrustes")
    store(run, "stir")
    printed = measured_json(load_measured(run))
    for matrix in ("natural", "inverted"):
        assert "p_value" not in printed["procrustes"][matrix]["mean"]
        assert printed["procrustes"][matrix]["mean"]["interval_of"] == "expected value at this n"
    assert printed["procrustes"]["difference"]["p_value"] <= 1 and printed["stir"]["inverted"]["mean"]["p_value"] <= 1


def test_rows_are_stacked_in_the_order_of_the_networks(run):
    stored = store(run, "procrustes")
    matrix, names = load_measured(run)["procrustes"], run.settings.names
    np.testing.assert_array_equal(matrix.natural.value, stacked(stored, "value", names, natural=True))
    np.testing.assert_array_equal(matrix.inverted.value, stacked(stored, "value", names, natural=False))
    null = stacked(stored, "null", names, natural=False).mean(axis=-1)
    np.testing.assert_array_equal(matrix.inverted.null, null)
    assert matrix.inverted.null_mean == pytest.approx(null[~np.eye(3, dtype=bool)].mean())
    assert (matrix.title, matrix.source) == ("made up", "this test")


def test_the_difference_is_paired_by_resample(run):
    """Its error is that of the differences, not the sum of both errors."""
    stored, names = store(run, "procrustes"), run.settings.names
    off = ~np.eye(3, dtype=bool)
    before, after = (
        stacked(stored, "resampled", names, natural=natural)[off].mean(axis=0) for natural in (True, False)
    )
    streams = find_measure("procrustes").streams
    count, differences = len(before), before - after
    value = stacked(stored, "value", names, natural=True)[off].mean()
    value -= stacked(stored, "value", names, natural=False)[off].mean()
    spread = ((differences - differences.mean()) ** 2).sum()
    expected = (count - 1) / count * spread if streams else spread / (count - 1)
    difference = load_measured(run)["procrustes"].difference
    assert difference.value == pytest.approx(value)
    assert difference.se == pytest.approx(np.sqrt(expected))
    assert difference.df == count - 1


@pytest.mark.parametrize("name", ["procrustes", "agreement"])
def test_the_jackknife_of_replicates_gives_the_errors_of_cells_and_of_their_mean(run, name):
    """Whether the measure is resampled by halves or without each shard."""
    store(run, name)
    matrix = load_measured(run)[name].inverted
    np.testing.assert_allclose(jackknife_se(np.moveaxis(matrix.replicates, -1, 0)), matrix.se, rtol=1e-9)
    off = ~np.eye(3, dtype=bool)
    assert jackknife_se(matrix.replicates[off].mean(axis=0)) == pytest.approx(matrix.mean.se, rel=1e-9)


def test_cells_of_a_symmetric_measure_are_computed_once_and_read_for_both_sides(run):
    cells, names = store(run, "procrustes", symmetric=True), run.settings.names
    matrix = load_measured(run)["procrustes"].natural
    for i, x in enumerate(names):
        for j, y in enumerate(names):
            (one,) = [cell for cell in (("natural", x, y), ("natural", y, x)) if cell in cells][:1]
            assert matrix.value[i, j] == cells[one]["value"]
    assert len([cell for cell in cells if cell[0] == "natural"]) == 6
    np.testing.assert_array_equal(matrix.se, matrix.se.T)
    assert np.isfinite(matrix.se).all() and np.isfinite(matrix.null).all()


def test_a_measure_with_half_of_its_rows_is_not_shown(run):
    store(run, "procrustes", only="inverted/")
    assert load_measured(run)["procrustes"].natural is None
    assert {cell[1] for cell in store(run, "procrustes", only="natural/vgg")} == {"vgg"}
    assert load_measured(run) == {}


def test_a_measure_of_two_sets_has_no_natural_row(run):
    inverted = [f"inverted/{name}" for name in run.sweep.names]
    assert rows_of(find_measure("stir")).of(run.sweep) == inverted
    assert rows_of(find_measure("procrustes")).of(run.sweep) == rows(run.sweep)


def test_arrays_have_a_resample_per_shard_if_the_measure_streams_and_halves_otherwise(run):
    unit = row_unit("inverted/vgg", run.name_cohort(["vgg", "resnet18"]), run.sweep.shards)
    for name, count in (("stir", run.sweep.shards), ("procrustes", HALVES)):
        measure = find_measure(name)
        assert measure.streams == (name == "stir")
        specs = {spec.path: spec.shape for spec in measure_arrays(run, f"{name}/{unit}", measure)}
        assert specs == {
            f"measures/{name}/{unit}/value": (2,),
            f"measures/{name}/{unit}/resampled": (2, count),
            f"measures/{name}/{unit}/null": (2, NULLS),
        }


def test_the_stage_has_a_goal_per_measure_and_row_and_a_unit_for_each_that_is_missing(run):
    stage = measure_stage(["stir", "procrustes"])
    goals = [*(f"stir/inverted/{name}" for name in run.sweep.names), *(f"procrustes/{row}" for row in rows(run.sweep))]
    assert stage.shards(run.sweep) == dict.fromkeys(goals, 1)
    assert sorted(stage.goal(name) for name, _ in stage.missing(run)) == sorted(goals)
    store(run, "stir")
    assert {name.partition("/")[0] for name, _ in stage.missing(run)} == {"procrustes"}
    assert {name for name, _ in stage.done(run)} == {f"stir/inverted/{name}" for name in run.sweep.names}
    with pytest.raises(SettingsError, match="unknown measure 'stirr'; did you mean 'stir'"):
        measure_stage(["stirr"])


def test_values_made_from_other_representations_are_refused(run):
    store(run, "stir", made_from="0" * 64)
    with pytest.raises(StoreError, match=r"measure stir/inverted/\w+/.* was computed from other values than the store"):
        load_measured(run)


def test_undefined_values_are_none_in_json(run):
    store(run, "stir")
    measured = load_measured(run)
    measured["stir"].inverted.value[0, 1] = np.nan
    printed = measured_json(measured)["stir"]
    assert list(printed) == ["title", "source", "natural", "inverted", "difference"]
    assert printed["natural"] is None and printed["difference"] is None
    assert list(printed["inverted"]) == ["value", "se", "null", "mean", "null_mean"]
    assert printed["inverted"]["value"][0][1] is None
    assert printed["inverted"]["value"][1][0] == measured["stir"].inverted.value[1, 0]
