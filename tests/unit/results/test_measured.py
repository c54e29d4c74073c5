"""Measured matrices are read as rows were stored, mirrored if symmetric, with errors of means over shared images."""

import shutil

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
from netsim.settings import SweepSettings
from netsim.similarity.measures import find_measure
from netsim.stages.work import StageResult, commit
from netsim.store.layout import rows
from netsim.store.metadata import MeasureMetadata
from netsim.store.run import Run
from support.sweeps import tiny

Values = dict[str, np.ndarray]


@pytest.fixture
def run(finished, tmp_path) -> Run:
    shutil.copytree(finished.url, tmp_path / "run")
    return Run.open(tmp_path / "run")


def row_values(rng: np.random.Generator, settings: SweepSettings, resamples: int) -> Values:
    """Return made-up values of one row."""
    m = len(settings.names)
    return {"value": rng.random(m), "resampled": rng.random((m, resamples)), "null": rng.random((m, NULLS))}


def store(run: Run, name: str, only: str = "", **metadata) -> dict[str, Values]:
    """Commit made-up values of each row of a measure, or of those whose name starts with `only`."""
    measure, stage, rng, stored = find_measure(name), measure_stage([name]), np.random.default_rng(0), {}
    stage.prepare(run)
    facts = MeasureMetadata(title="made up", source="this test", streams=measure.streams, **metadata)
    for row in rows_of(measure, rows(run.settings)):
        if row.startswith(only):
            resamples = run.settings.pairs.shards if measure.streams else HALVES
            stored[row] = row_values(rng, run.settings, resamples)
            arrays = {f"measures/{name}/{row}/{kind}": values for kind, values in stored[row].items()}
            commit(run, stage, f"{name}/{row}", 0, StageResult(arrays, metadata=facts), 1.0)
    return stored


def stacked(stored: dict[str, Values], kind: str, names: tuple[str, ...], *, natural: bool) -> np.ndarray:
    return np.stack([stored[f"natural/{name}" if natural else f"inverted/{name}"][kind] for name in names])


def test_rows_are_stacked_in_the_order_of_the_networks(run):
    stored = store(run, "procrustes", symmetric=False)
    matrix, names = load_measured(run)["procrustes"], run.settings.names
    np.testing.assert_array_equal(matrix.natural.value, stacked(stored, "value", names, natural=True))
    np.testing.assert_array_equal(matrix.inverted.value, stacked(stored, "value", names, natural=False))
    null = stacked(stored, "null", names, natural=False).mean(axis=-1)
    np.testing.assert_array_equal(matrix.inverted.null, null)
    assert matrix.inverted.null_mean == pytest.approx(null[~np.eye(3, dtype=bool)].mean())
    assert (matrix.title, matrix.source) == ("made up", "this test")


def test_the_difference_is_paired_by_resample(run):
    """Its error is that of the differences, not the sum of both errors."""
    stored, names = store(run, "procrustes", symmetric=False), run.settings.names
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


def test_cells_of_a_symmetric_measure_are_read_from_the_row_that_has_them(run):
    stage, rng, names = measure_stage(["procrustes"]), np.random.default_rng(0), run.settings.names
    stage.prepare(run)
    facts = MeasureMetadata(title="made up", source="this test", streams=False, symmetric=True)
    upper = {}
    for row in rows(run.settings):
        values, (set_name, name) = row_values(rng, run.settings, HALVES), row.split("/")
        for array in values.values() if set_name == "natural" else ():
            array[: names.index(name)] = np.nan
        upper[row] = values["value"]
        arrays = {f"measures/procrustes/{row}/{kind}": array for kind, array in values.items()}
        commit(run, stage, f"procrustes/{row}", 0, StageResult(arrays, metadata=facts), 1.0)
    matrix = load_measured(run)["procrustes"].natural
    for i in range(3):
        for j in range(3):
            first, second = sorted((i, j))
            assert matrix.value[i, j] == upper[f"natural/{names[first]}"][second]
    np.testing.assert_array_equal(matrix.se, matrix.se.T)
    assert np.isfinite(matrix.se).all() and np.isfinite(matrix.null).all()


def test_a_measure_with_half_of_its_rows_is_not_shown(run):
    store(run, "procrustes", only="inverted/")
    assert load_measured(run)["procrustes"].natural is None
    partial_rows = store(run, "procrustes", only="natural/vgg")
    assert list(partial_rows) == ["natural/vgg"] and load_measured(run) == {}


def test_a_measure_of_two_sets_has_no_natural_row():
    settings = tiny()
    assert rows_of(find_measure("stir"), rows(settings)) == [f"inverted/{name}" for name in settings.names]
    assert rows_of(find_measure("procrustes"), rows(settings)) == list(rows(settings))


def test_arrays_have_a_resample_per_shard_if_the_measure_streams_and_halves_otherwise():
    settings = tiny()
    for name, count in (("stir", settings.pairs.shards), ("procrustes", HALVES)):
        measure = find_measure(name)
        assert measure.streams == (name == "stir")
        specs = {spec.path: spec.shape for spec in measure_arrays(settings, name, measure, "inverted/vgg")}
        assert specs == {
            f"measures/{name}/inverted/vgg/value": (3,),
            f"measures/{name}/inverted/vgg/resampled": (3, count),
            f"measures/{name}/inverted/vgg/null": (3, NULLS),
        }


def test_the_stage_has_a_unit_per_measure_and_row():
    settings = tiny()
    units = measure_stage(["stir", "procrustes"]).shards(settings)
    assert set(units.values()) == {1}
    assert list(units) == [f"stir/inverted/{name}" for name in settings.names] + [
        f"procrustes/{row}" for row in rows(settings)
    ]
    with pytest.raises(SettingsError, match="unknown measure 'stirr'; did you mean 'stir'"):
        measure_stage(["stirr"])


def test_values_made_from_other_representations_are_refused(run):
    store(run, "stir", made_from="0" * 64)
    with pytest.raises(StoreError, match=r"measure stir/inverted/vgg .* was computed from other values than the store"):
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
