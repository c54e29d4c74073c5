"""Progress, rate and time left follow from the times of commits."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from blake3 import blake3

from netsim.networks.load import load_network
from netsim.networks.training import _state
from netsim.settings import parse_settings
from netsim.store.layout import checkpoint_path
from netsim.store.metadata import CheckedSplit, CheckMetadata, UnreadableImage
from netsim.store.records import commit_path
from netsim.store.run import Run
from netsim.store.stages import DRAW, INVERT, STAGES, TRAIN
from netsim.store.status import RECENT, stage_status, status, unreadable, unreadable_counts
from support.sweeps import new_run, tiny, unlisted
from unit.store.definitions import SETTINGS

NOON = 1_700_000_000.0


@pytest.fixture
def run(tmp_path) -> Run:
    """Create a run of ten shards of pairs."""
    settings = parse_settings(SETTINGS.model_dump(mode="json") | {"pairs": {"count": 40, "shard_size": 4}})
    return new_run(str(tmp_path), settings)


def commit_at(run: Run, times: Sequence[float], *, stage: str = "draw", name: str = "pairs") -> None:
    """Commit shards 0, 1, 2, ... of a stage at these times."""
    for shard, when in enumerate(times):
        run.commit(stage, name, shard, seconds=0)
        os.utime(Path(run.url) / commit_path(stage, name, shard), (when, when))


def test_the_rate_is_shards_per_second_between_the_first_and_the_last_commit(run):
    commit_at(run, [NOON, NOON + 7, NOON + 40, NOON + 20])
    draw = stage_status(run, DRAW)
    assert (draw.done, draw.total, draw.finished) == (4, 10, False)
    assert draw.rate == pytest.approx(3 / 40)
    assert draw.seconds_left == pytest.approx(6 / (3 / 40))


def test_commits_before_a_pause_do_not_count_for_the_rate(run):
    commit_at(run, [NOON - RECENT - 51, NOON - RECENT - 1, NOON - 20, NOON - 10, NOON])
    assert stage_status(run, DRAW).rate == pytest.approx(2 / 20)


@pytest.mark.parametrize("times", [[], [NOON], [NOON, NOON], [NOON - RECENT - 1, NOON]])
def test_there_is_no_rate_without_two_recent_commits_at_different_times(run, times):
    commit_at(run, times)
    draw = stage_status(run, DRAW)
    assert draw.done == len(times) and draw.rate is None and draw.seconds_left is None


def test_a_finished_stage_has_no_time_left(run):
    commit_at(run, [NOON + shard for shard in range(10)])
    draw = stage_status(run, DRAW)
    assert draw.finished and draw.rate == 1 and draw.seconds_left == 0


def test_progress_is_counted_by_name(run):
    commit_at(run, [NOON, NOON], stage="invert", name="vgg")
    invert = stage_status(run, INVERT)
    assert invert.by_name == {"vgg": (2, 10), "resnet18": (0, 10)}
    assert (invert.done, invert.total) == (2, 20)


def test_records_of_units_that_the_run_does_not_have_are_not_counted(run):
    run.commit("draw", "pairs", 10, seconds=0)
    run.commit("invert", "a network of another run", 0, seconds=0)
    assert stage_status(run, DRAW).done == 0 and stage_status(run, INVERT).done == 0


def test_status_lists_the_stages_that_have_units(run, finished):
    assert [stage.name for stage in status(run)] == [
        "train",
        "draw",
        "invert",
        "embed",
        "aggregate",
        "control",
        "report",
    ]
    assert all(stage.finished for stage in status(finished)) and not any(stage.finished for stage in status(run))
    with_photographs = run.settings.model_dump(mode="json") | {"images": {"source": "folder:/nowhere", "size": 32}}
    photographs = Run.create(f"{run.url}/photographs", unlisted(parse_settings(with_photographs)))
    assert [stage.name for stage in status(photographs)] == [stage.name for stage in STAGES]


def test_unreadable_images_are_those_of_the_check(tmp_path, finished):
    changes = {"images": {"source": "folder:/nowhere", "size": 32}}
    settings = parse_settings(SETTINGS.model_dump(mode="json") | changes)
    run = Run.create(str(tmp_path / "run"), unlisted(settings))
    assert unreadable(run) == {} and unreadable(finished) == {}
    fault = UnreadableImage(index=3, name="ant/1.png", why="truncated")
    test = CheckedSplit(listed=12, listed_hash="a", unreadable=[fault], images_hash="b")
    run.commit("check", "test", 0, facts=CheckMetadata(**dict(test)).to_json(), seconds=0)
    assert unreadable(run) == {"test": test}
    assert unreadable_counts(run) == {"test": (1, 12)}


def test_the_keys_of_json_are_those_that_programs_know(run):
    assert list(stage_status(run, DRAW).to_json()) == ["name", "says", "done", "total", "by_name", "rate", "epochs"]


def test_the_epochs_of_a_training_are_those_of_its_checkpoint(tmp_path):
    run = new_run(str(tmp_path), tiny(training={"epochs": 7}))
    assert stage_status(run, TRAIN).epochs == {"vgg": (0, 7)}  # the others are not trained
    network = load_network("small:vgg@none")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    state = _state(network, optimizer, epochs_done=3)
    run.files.put(checkpoint_path("vgg"), blake3(state).digest() + state)
    assert stage_status(run, TRAIN).epochs == {"vgg": (3, 7)}
    run.commit("train", "vgg", 0, seconds=0)
    assert stage_status(run, TRAIN).epochs == {"vgg": (7, 7)}
    assert stage_status(run, INVERT).epochs == {}


@pytest.mark.parametrize(
    "content", [b"", b"short", b"x" * 100, blake3(b"").digest() + (2).to_bytes(8, "little") + b"{}"]
)
def test_a_damaged_checkpoint_has_no_epochs(tmp_path, content):
    run = new_run(str(tmp_path), tiny(training={"epochs": 7}))
    run.files.put(checkpoint_path("vgg"), content)
    assert stage_status(run, TRAIN).epochs == {"vgg": (0, 7)}
