"""Units need existing units of earlier stages; a failed one blocks all that need it, and nothing else."""

from collections.abc import Iterable

import pytest

from netsim.errors import StoreError
from netsim.store import stages
from netsim.store.stages import (
    AGGREGATE,
    CHECK,
    DRAW,
    EMBED,
    INVERT,
    REPORT,
    STAGES,
    TRAIN,
    Unit,
    blocked_goals,
    blocks,
    require_finished,
    unit_label,
)
from netsim.store.sweeps import Sweep
from support.sweeps import new_run, tiny, unlisted

SWEEP = unlisted(tiny())
PHOTOGRAPHS = unlisted(tiny(images={"source": "folder:/nowhere", "size": 32}))
SETTINGS = tiny()


def goals(sweep: Sweep) -> list[Unit]:
    return [(stage.name, *goal) for stage in STAGES for goal in stage.every(sweep)]


def needs(sweep: Sweep, goal: Unit) -> list[Unit]:
    (stage,) = (stage for stage in STAGES if stage.name == goal[0])
    return list(stage.needs(sweep, *goal[1:]))


def needs_any_of(sweep: Sweep, goal: Unit, failed: Iterable[Unit]) -> bool:
    """Walk upstream from a goal until one of `failed` is met."""
    return goal in failed or any(needs_any_of(sweep, upstream, failed) for upstream in needs(sweep, goal))


@pytest.mark.parametrize("sweep", [SWEEP, PHOTOGRAPHS])
def test_every_goal_needs_existing_goals_of_earlier_stages(sweep):
    existing, order = goals(sweep), [stage.name for stage in STAGES]
    assert len(existing) == len(set(existing)) == sum(stage.total(sweep) for stage in STAGES)
    for goal in existing:
        for upstream in needs(sweep, goal):
            assert upstream in existing and order.index(upstream[0]) < order.index(goal[0])


def test_every_goal_is_needed_for_the_report():
    for goal in goals(PHOTOGRAPHS):
        assert needs_any_of(PHOTOGRAPHS, ("report", PHOTOGRAPHS.id, 0), {goal})


@pytest.mark.parametrize("sweep", [SWEEP, PHOTOGRAPHS])
@pytest.mark.parametrize(
    "failed",
    [
        [("train", "resnet18", 0)],
        [("train", "vgg", 0)],
        [("draw", "pairs", 1)],
        [("invert", "vgg", 2), ("embed", "natural", 3)],
    ],
)
def test_blocked_goals_are_all_that_need_a_failed_one_and_nothing_else(sweep, failed):
    needing = {goal for goal in goals(sweep) if needs_any_of(sweep, goal, failed)}
    units = [(stage, f"{name}/cohort" if stage == "embed" else name, shard) for stage, name, shard in failed]
    assert blocked_goals(sweep, units) == needing
    assert set(failed) <= needing


def test_a_network_that_cannot_be_trained_blocks_its_inversions_and_every_comparison():
    blocked = blocked_goals(SWEEP, [("train", "resnet18", 0)])
    counts = {stage.name: sum(goal[0] == stage.name for goal in blocked) for stage in STAGES}
    expected = {"check": 0, "train": 1, "draw": 0, "invert": 4, "embed": 20, "aggregate": 6, "control": 3, "report": 1}
    assert counts == expected
    assert {goal[1] for goal in blocked if goal[0] == "invert"} == {"resnet18"}


def test_nothing_is_blocked_when_nothing_failed():
    assert blocked_goals(SWEEP, []) == set()


def test_observers_look_and_are_not_inverted():
    sweep = unlisted(tiny(observers=["seer=small:vgg@none"]))
    counts = {stage.name: stage.total(sweep) - stage.total(SWEEP) for stage in STAGES}
    assert counts == dict.fromkeys(counts, 0) | {"train": 1} and "control" in counts
    assert ("train", "seer", 0) in needs(sweep, ("embed", "natural", 0))


def test_only_photographs_are_checked():
    assert CHECK.every(SWEEP) == [] and CHECK.every(PHOTOGRAPHS) == [("test", 0), ("train", 0)]
    assert needs(SWEEP, ("train", "vgg", 0)) == []
    assert needs(PHOTOGRAPHS, ("train", "vgg", 0)) == [("check", "test", 0), ("check", "train", 0)]
    assert needs(PHOTOGRAPHS, ("train", "resnet18", 0)) == [("check", "test", 0)]
    untrained = unlisted(tiny(images={"source": "folder:/nowhere"}, networks=["small:vgg@none", "small:resnet18@none"]))
    assert CHECK.every(untrained) == [("test", 0)]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_smaller_shards_are_advised_only_where_a_shard_is_one_of_pairs(stage):
    assert stage.time_limit_hint.startswith("give a longer walltime")
    assert ("pairs.shard_size" in stage.time_limit_hint) == (stage in (DRAW, INVERT, EMBED))


def test_blocks_have_each_missing_unit_once_in_order_and_one_name_each():
    missing = [("a", 0), ("a", 1), ("a", 3), ("b", 0), ("c", 7), ("c", 8)]
    cut = list(blocks(missing, 2))
    assert [(block.name, block.shards) for block in cut] == [("a", [0, 1]), ("a", [3]), ("b", [0]), ("c", [7, 8])]
    assert [(block.name, shard) for block in cut for shard in block.shards] == missing
    assert list(blocks([], 2)) == []


def test_units_without_a_record_are_missing_in_order(tmp_path):
    run = new_run(str(tmp_path), SETTINGS)
    run.commit("invert", "resnet18", 2, seconds=0)
    run.commit("invert", "a network of another run", 0, seconds=0)
    expected = [unit for unit in INVERT.every(run.sweep) if unit != ("resnet18", 2)]
    assert INVERT.missing(run) == expected and len(expected) == 11


def test_a_stage_of_many_records_is_listed_name_by_name_with_the_same_result(finished, monkeypatch):
    at_once = EMBED.done(finished)
    monkeypatch.setattr(stages, "MANY_RECORDS", 0)
    assert EMBED.done(finished) == at_once and set(at_once) == set(EMBED.every(finished.sweep))


def test_the_first_missing_unit_is_named(tmp_path, finished):
    units = require_finished(finished, STAGES)
    assert set(units) == {(stage.name, *unit) for stage in STAGES for unit in stage.units_done(finished)}
    run = new_run(str(tmp_path), SETTINGS)
    run.commit("draw", "pairs", 0, seconds=0)
    require_finished(run, [])
    with pytest.raises(
        StoreError, match=r"is not finished: 3 of 4 shards of draw are missing, the first draw pairs shard 1; "
    ):
        require_finished(run, [DRAW, AGGREGATE, REPORT])


def test_arrays_need_the_records_of_networks(tmp_path):
    run = new_run(str(tmp_path), SETTINGS)
    assert TRAIN.specs(run, ["vgg"]) == []
    with pytest.raises(StoreError, match=r"train \w+ shard 0 is not done"):
        EMBED.prepare(run, EMBED.missing(run))


def test_a_unit_is_spelled_out_for_people():
    assert unit_label(("invert", "vgg", 3)) == "invert vgg shard 3"
