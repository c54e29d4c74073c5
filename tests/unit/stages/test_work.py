"""Stages run in any order that their inputs allow, write while they compute, and commit before they fail."""

import time

import numpy as np
import pytest
import xarray as xr

from netsim.errors import DataError, NetworkError, SettingsError, StoreError
from netsim.planning import preflight
from netsim.planning.resolve import resolve
from netsim.results.results import load_results
from netsim.stages import work
from netsim.stages.work import compute_unit
from netsim.storage.stopwatch import count_waiting
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, STAGES, Stage
from support.sweeps import new_run, tiny, unit_of
from unit.stages.examples import similarity_of


def test_no_stage_of_a_finished_run_has_a_unit_missing(finished):
    assert {stage.name: stage.missing(finished) for stage in STAGES} == {
        name: [] for name in ("check", "train", "draw", "invert", "embed", "aggregate", "control", "report")
    }


def test_the_order_of_units_does_not_change_a_bit(finished, tmp_path):
    run = new_run(str(tmp_path), finished.settings)
    for stage in STAGES:
        units = stage.missing(run)
        stage.prepare(run, units)
        for name, shard in reversed(units):
            compute_unit(run, stage, name, shard)
    for name, values in similarity_of(finished).items():
        np.testing.assert_array_equal(similarity_of(run)[name], values)


COMPUTING, WRITING = 0.15, 0.08
"""Seconds that a shard takes."""


def recorded(monkeypatch, run: Run, events: list[str], *, fail_on: int | None = None) -> Stage:
    """Make a stage of four shards that notes in `events` when it computes, and when it starts and ends writing."""

    def compute(run: Run, name: str, shard: int) -> work.StageResult:
        events.append(f"compute {shard}")
        if shard == fail_on:
            raise NetworkError("not finite")
        time.sleep(COMPUTING)
        return work.StageResult(files={f"report/{shard}": b"x"}, obsolete=(f"old/{shard}",))

    commit = work.commit

    def noted_commit(run: Run, stage: Stage, name: str, shard: int, result: work.StageResult, seconds: float) -> Record:
        events.append(f"write {shard}")
        time.sleep(WRITING)
        record = commit(run, stage, name, shard, result, seconds)
        events.append(f"written {shard}")
        return record

    monkeypatch.setattr(work, "commit", noted_commit)
    return Stage("noted", "Noted", lambda sweep: {"a": 4}, compute=compute)


def test_a_shard_is_written_while_the_next_is_computed(tmp_path, monkeypatch):
    run, events = new_run(str(tmp_path), tiny()), []
    run.files.put("old/2", b"a checkpoint")
    stage = recorded(monkeypatch, run, events)
    compute_unit(run, stage, "a", 1)
    events.clear()
    with count_waiting() as waited:
        records = list(work.work_through(run, stage, "a", range(4)))
    assert [record.shard for record in records] == [0, 2, 3] and stage.missing(run) == []
    assert sorted(events) == sorted(
        f"{what} {shard}" for shard in (0, 2, 3) for what in ("compute", "write", "written")
    )
    for shard, following in ((0, 2), (2, 3)):
        assert events.index(f"compute {following}") < events.index(f"written {shard}")
    assert run.files.get_or_none("old/2") is None and all(record.seconds >= COMPUTING for record in records)
    assert WRITING <= waited.seconds < 3 * WRITING  # the last one


def test_shards_computed_before_an_error_are_committed(tmp_path, monkeypatch):
    run, events = new_run(str(tmp_path), tiny()), []
    with pytest.raises(NetworkError):
        list(work.work_through(run, recorded(monkeypatch, run, events, fail_on=2), "a", range(4)))
    assert set(run.done("noted")) == {("a", 0), ("a", 1)}


def test_the_seconds_of_a_single_shard_are_reported(tmp_path, monkeypatch):
    run, durations = new_run(str(tmp_path), tiny()), []
    (record,) = work.work_through(run, recorded(monkeypatch, run, []), "a", [1], on_duration=durations.append)
    assert [round(seconds, 3) for seconds in durations] == [record.seconds] and durations[0] >= COMPUTING


def test_a_write_that_fails_ends_the_work(tmp_path, monkeypatch):
    run = new_run(str(tmp_path), tiny())
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(StoreError):
        list(work.work_through(run, recorded(monkeypatch, run, []), "a", range(4)))
    assert run.done("noted") == {}


def test_xarray_opens_a_whole_run_without_netsim(finished):
    """Every group, with names of dimensions and coordinates; images in [0, 1]."""
    tree = xr.open_datatree(finished.url, engine="zarr", consolidated=False)
    results = load_results(finished)
    cells = tree[f"results/{finished.sweep.id}"].cka_unbiased
    assert cells.dims == ("set", "through", "observer")
    assert float(cells.sel(set="inverted", through="resnet18", observer="vgg")) == results.cells("inverted")[1, 0]
    assert tree["pairs"].seed_label[9] != tree["pairs"].target_label[9]
    inverted = tree["inverted/vgg"]
    assert inverted.history.sel(iteration=5).shape == (32,)
    final = inverted.losses.sel(quantity="final_loss")
    np.testing.assert_array_equal(final, results.loss["vgg"].final)
    for image in (inverted.image, tree["images"].seed, tree["images"].target):
        assert 0 <= image.min() < 0.2 and 0.8 < image.max() <= 1
    assert tree["representations/natural"].vgg.dims == ("pair", "feature_vgg")
    _, unit, _ = unit_of(finished, AGGREGATE, "inverted/vgg")
    moments = tree[f"similarity/{unit}"].moments
    assert moments.sel(model_pair="vgg shufflenet", moment="square").shape == (5,)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"networks": ["small:vgg", "small:resnet81"]}, SettingsError, "did you mean 'resnet18'"),
        ({"networks": ["small:vgg", "smal:resnet18"]}, SettingsError, "did you mean 'small'"),
        ({"images": {"source": "fashion-mnits"}}, SettingsError, "did you mean 'fashion-mnist'"),
        ({"pairs": {"count": 4096}}, DataError, "4096"),
        ({"networks": ["small:vgg", "torchvision:resnet18@none"]}, NetworkError, "resnet18"),  # three channels
    ],
)
def test_what_would_fail_during_a_run_fails_before_it(changes, error, message):
    with pytest.raises(error, match=message):
        preflight.preflight(resolve(tiny(**changes), "runs/none"))
