"""Measures of a finished run: values are those of the function, errors come from resamples, and work resumes."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from netsim.errors import SettingsError, StoreError
from netsim.images import to_unit
from netsim.results.measured import HALVES, load_measured, measure_stage, measured_json
from netsim.settings import SweepSettings
from netsim.similarity.cka import linear_cka
from netsim.similarity.measures import Measure, leave_one_out, measure
from netsim.similarity.retraining import retrained_scores
from netsim.similarity.uncertainty import half_sampling, jackknife_se
from netsim.stages import inputs
from netsim.stages.measure import evaluate
from netsim.stages.work import compute_unit
from netsim.store.run import Run
from support.sweeps import new_run, unit_of
from tasks.prepare import prepare_measures


@measure(title="Unbiased CKA of half of the images", reference="this test", symmetric=False)
def plain(X: np.ndarray, Y: np.ndarray) -> float:
    return linear_cka(X, Y, "unbiased")


@measure(title="Share of first logits above 0 in both", reference="this test", takes="predictions", streams=True)
def positive(shards) -> tuple[float, np.ndarray]:
    return leave_one_out(lambda x, y: float(((x[:, 0] > 0) & (y[:, 0] > 0)).mean()), shards)


@measure(title="Defined one way only", reference="this test", symmetric=False)
def one_way(X: np.ndarray, Y: np.ndarray) -> float:
    return float("nan") if X[0, 0] < Y[0, 0] else 1.0


NAMES = [
    "unit.stages.test_measure:plain",
    "unit.stages.test_measure:positive",
    "unit.stages.test_measure:one_way",
    "stir",
    "retrained_agreement",
]


@pytest.fixture(scope="module")
def measured(finished, tmp_path_factory) -> Run:
    """Copy the finished run and compute four measures of it."""
    copy = tmp_path_factory.mktemp("measured") / "run"
    shutil.copytree(finished.url, copy)
    run = Run.open(copy)
    compute(run, NAMES)
    return run


def compute(run: Run, names: list[str]) -> None:
    stage = measure_stage(names)
    units = stage.missing(run)
    stage.prepare(run, units)
    for name, shard in units:
        compute_unit(run, stage, name, shard)


def represented(run: Run, set_name: str, name: str) -> np.ndarray:
    return run.array(f"representations/{set_name}/{name}")[...]


def test_values_are_those_of_the_function_on_all_images(measured):
    result, names = load_measured(measured)["unit.stages.test_measure:plain"], measured.settings.names
    for i, through in enumerate(names):
        for j, observer in enumerate(names):
            natural = plain(*(represented(measured, "natural", name) for name in (through, observer)))
            after = plain(*(represented(measured, f"inverted/{through}", name) for name in (through, observer)))
            assert result.natural.value[i, j] == pytest.approx(natural, abs=1e-12)
            assert result.inverted.value[i, j] == pytest.approx(after, abs=1e-12)


def test_an_undefined_cell_of_an_asymmetric_measure_is_not_filled_from_its_mirror(measured):
    result = load_measured(measured)["unit.stages.test_measure:one_way"]
    firsts = [represented(measured, "natural", name)[0, 0] for name in measured.settings.names]
    expected = [[np.nan if x < y else 1.0 for y in firsts] for x in firsts]
    np.testing.assert_array_equal(result.natural.value, expected)
    assert np.isnan(result.natural.value).any()


def test_predictions_are_the_logits_of_the_networks(measured):
    result = load_measured(measured)["unit.stages.test_measure:positive"]
    names = measured.settings.names
    images = to_unit(measured.array("images/target")[...])
    with torch.no_grad():
        above = [inputs.network(measured, name)(images)[:, 0].numpy() > 0 for name in names]
    expected = [[(a & b).mean() for b in above] for a in above]
    np.testing.assert_allclose(result.natural.value, expected, atol=1e-12)


@pytest.mark.parametrize(("name", "sets"), [("positive", 1), ("plain", 1), ("stir", 2)])
def test_a_row_reads_each_network_once_whatever_is_computed_of_it(finished, tmp_path, monkeypatch, name, sets):
    shutil.copytree(finished.url, tmp_path / "run")
    name = name if name == "stir" else f"unit.stages.test_measure:{name}"
    run = prepare_measures(Run.open(tmp_path / "run"), [name])
    stage = measure_stage([name])
    unit = stage.missing(run)[-1]
    stage.prepare(run, [unit])
    reads: list[tuple[str, int, str]] = []
    read = inputs.Represented.read

    def counted(self, shard, names=None):
        reads.extend((self._set, shard, each) for each in names)
        return read(self, shard, names)

    monkeypatch.setattr(inputs.Represented, "read", counted)
    compute_unit(run, stage, *unit)
    assert len(reads) == len(set(reads)) == sets * run.settings.pairs.shards * len(run.sweep.columns)


def test_stir_compares_one_network_on_two_sets(measured):
    result = load_measured(measured)["stir"]
    assert result.natural is None and result.difference is None
    for i, through in enumerate(measured.settings.names):
        for j, observer in enumerate(measured.settings.names):
            before = represented(measured, "natural", observer)
            after = represented(measured, f"inverted/{through}", observer)
            assert result.inverted.value[i, j] == pytest.approx(linear_cka(before, after, "unbiased"), abs=1e-10)


def test_classifiers_are_retrained_with_the_labels_of_targets_on_either_set(measured):
    result, names = load_measured(measured)["retrained_agreement"], measured.settings.names
    labels = measured.array("pairs/target_label")[...]

    def retrained(set_name, network):
        rows = represented(measured, set_name, network)
        return retrained_scores(rows.reshape(4, 8, -1), labels.reshape(4, 8)).argmax(axis=-1).ravel()

    for i, through in enumerate(names):
        for j, observer in enumerate(names):
            for matrix, set_name in ((result.natural, "natural"), (result.inverted, f"inverted/{through}")):
                expected = (retrained(set_name, through) == retrained(set_name, observer)).mean()
                assert matrix.value[i, j] == pytest.approx(expected, abs=1e-12)
    assert (result.natural.null < 0.6).all() and 0 < result.inverted.mean.se < 1 and result.inverted.mean.df == 3


def test_the_error_of_a_mean_resamples_all_cells_together(measured):
    result = load_measured(measured)["unit.stages.test_measure:positive"]
    names, cells = measured.settings.names, []
    images = to_unit(measured.array("images/target")[...])
    with torch.no_grad():
        above = [inputs.network(measured, name)(images)[:, 0].numpy() > 0 for name in names]
    for deleted in range(4):
        keep = np.repeat(np.arange(4) != deleted, 8)
        cells.append(
            np.mean([(a & b)[keep].mean() for i, a in enumerate(above) for j, b in enumerate(above) if i != j])
        )
    assert result.natural.mean.se == pytest.approx(jackknife_se(np.array(cells)), rel=1e-9)
    assert result.natural.mean.df == 3
    assert result.difference.value == pytest.approx(result.natural.mean.value - result.inverted.mean.value)


def test_half_sampling_of_a_mean_has_the_standard_error_of_a_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 1))
    mean = Measure("mean", "", "", lambda x, y: float(x.mean()), "representations", None, False, True)
    errors = []
    for rng_seed in range(30):
        result = evaluate(mean, [lambda: (values, values)], rng_seed=rng_seed)
        errors.append(half_sampling(result.value, result.resampled).se)
    assert len(result.resampled) == HALVES
    assert np.mean(errors) == pytest.approx(values.std(ddof=1) / np.sqrt(200), rel=0.1)


def test_null_values_of_unrelated_images_are_near_zero():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 6))
    cka = Measure("cka", "", "", partial(linear_cka, estimator="unbiased"), "representations", None, False, True)
    result = evaluate(cka, [lambda: (X, 2 * X)])
    assert result.value == pytest.approx(1)
    assert abs(result.null.mean()) < 0.05


@pytest.mark.parametrize("shard_size", [4, 20, 60])
def test_null_values_do_not_depend_on_the_shard_size(shard_size):
    """A permutation within shards of 4 would leave every fourth image in its place."""
    X = np.random.default_rng(0).integers(2, size=(1200, 1))
    same = partial(leave_one_out, lambda x, y: float((x == y).mean()))
    agree = Measure("agree", "", "", same, "representations", None, True, True)
    shards = [lambda part=part: (part, part) for part in X.reshape(-1, shard_size, 1)]
    result = evaluate(agree, shards)
    assert result.value == 1 and result.null.mean() == pytest.approx(0.5, abs=0.03)


def test_a_measure_gets_no_more_images_than_its_maximum():
    seen = []
    few = Measure("few", "", "", lambda x, y: seen.append(len(x)) or 0.0, "representations", 12, False, True)
    reads = []

    def shard(index: int):
        reads.append(index)
        return np.ones((5, 2)), np.ones((5, 2))

    evaluate(few, [partial(shard, index) for index in range(10)])
    assert seen[0] == 12 and reads == [0, 1, 2]


def cells_of(run: Run, name: str, through: str) -> int:
    """Count the cells that the unit of a natural row has."""
    goal = f"unit.stages.test_measure:{name}/natural/{through}"
    unit = unit_of(run, measure_stage([goal.partition("/")[0]]), goal)
    return len(run.read(run.record(*unit), f"measures/{unit[1]}/value"))


def test_symmetric_measures_are_computed_once_per_pair_and_others_both_ways(measured):
    assert [cells_of(measured, "positive", name) for name in measured.sweep.names] == [3, 2, 1]
    result = load_measured(measured)["unit.stages.test_measure:positive"].natural
    np.testing.assert_array_equal(result.value, result.value.T)
    assert [cells_of(measured, "plain", name) for name in measured.sweep.names] == [3, 3, 3]


def test_finished_rows_are_kept_and_an_incomplete_measure_is_not_shown(measured, finished, tmp_path):
    assert measure_stage(NAMES).missing(measured) == []
    shutil.copytree(finished.url, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    stage = measure_stage(["stir"])
    stage.prepare(run, stage.missing(run))
    compute_unit(run, stage, *stage.missing(run)[0])
    assert len(stage.missing(run)) == 2
    assert load_measured(run) == {}


def test_json_has_null_for_what_is_missing_and_no_nan(measured):
    printed = json.loads(json.dumps(measured_json(load_measured(measured)), allow_nan=False))
    assert set(printed) == set(NAMES)
    assert printed["stir"]["natural"] is None
    assert len(printed["unit.stages.test_measure:plain"]["inverted"]["mean"]["interval"]) == 2


def test_an_unknown_measure_and_an_unfinished_run_are_errors_before_any_work(finished, tmp_path):
    with pytest.raises(SettingsError, match="unknown measure 'stirr'; did you mean 'stir'"):
        prepare_measures(finished, ["stirr"])
    settings: SweepSettings = finished.settings
    unfinished = new_run(str(tmp_path / "run"), settings)
    missing = "not finished: 20 of 20 shards of embed are missing, the first embed natural shard 0; resume with `netsim"
    with pytest.raises(StoreError, match=missing):
        prepare_measures(unfinished, ["stir"])
