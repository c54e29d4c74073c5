"""Units need existing units of earlier stages; a failed one blocks all that need it, and nothing else."""

from collections.abc import Iterable

import pytest

from netsim.errors import StoreError
from netsim.settings import SweepSettings
from netsim.store import stages
from netsim.store.run import Run
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
    blocked_units,
    blocks,
    dependencies,
    require_finished,
    unit_label,
)
from support.sweeps import tiny

SETTINGS = tiny()
PHOTOGRAPHS = tiny(images={"source": "folder:/nowhere", "size": 32})


def units(settings: SweepSettings) -> list[Unit]:
    return [(stage.name, *unit) for stage in STAGES for unit in stage.every(settings)]


def needs(settings: SweepSettings, unit: Unit) -> list[Unit]:
    (stage,) = (stage for stage in STAGES if stage.name == unit[0])
    return list(stage.needs(settings, *unit[1:]))


def needs_any_of(settings: SweepSettings, unit: Unit, failed: Iterable[Unit]) -> bool:
    """Walk upstream from a unit until one of `failed` is met."""
    return unit in failed or any(needs_any_of(settings, upstream, failed) for upstream in needs(settings, unit))


@pytest.mark.parametrize("settings", [SETTINGS, PHOTOGRAPHS])
def test_every_unit_needs_existing_units_of_earlier_stages(settings):
    existing, order = units(settings), [stage.name for stage in STAGES]
    assert len(existing) == len(set(existing)) == sum(stage.total(settings) for stage in STAGES)
    for unit in existing:
        for upstream in needs(settings, unit):
            assert upstream in existing and order.index(upstream[0]) < order.index(unit[0])


def test_every_unit_is_needed_for_the_report():
    for unit in units(PHOTOGRAPHS):
        assert needs_any_of(PHOTOGRAPHS, ("report", "report", 0), {unit})


def test_dependencies_of_every_unit_exist_and_are_needs_that_hold_values():
    """Weights have hashes of their own in records, and a check stores no values."""
    existing = units(SETTINGS)
    for unit in existing:
        upstream = dependencies(SETTINGS, unit)
        assert set(upstream) <= set(existing) and len(upstream) == len(set(upstream))
        assert upstream == [needed for needed in needs(SETTINGS, unit) if needed[0] not in ("check", "train")]


def test_layers_and_measures_depend_on_what_they_represent_and_compare():
    existing = set(units(SETTINGS))
    assert dependencies(SETTINGS, ("layers", "key/natural", 2)) == [("draw", "pairs", 2)]
    assert dependencies(SETTINGS, ("layers", "key/inverted/vgg", 2)) == [("invert", "vgg", 2)]
    natural, inverted = ([("embed", name, shard) for shard in range(4)] for name in ("natural", "inverted/vgg"))
    assert dependencies(SETTINGS, ("measure", "rsa/natural/vgg", 0)) == natural
    assert dependencies(SETTINGS, ("measure", "rsa/inverted/vgg", 0)) == natural + inverted
    assert {*natural, *inverted} <= existing


@pytest.mark.parametrize("settings", [SETTINGS, PHOTOGRAPHS])
@pytest.mark.parametrize(
    "failed",
    [
        [("train", "resnet18", 0)],
        [("train", "vgg", 0)],
        [("draw", "pairs", 1)],
        [("invert", "vgg", 2), ("embed", "natural", 3)],
        [("report", "report", 0)],
    ],
)
def test_blocked_units_are_all_that_need_a_failed_one_and_nothing_else(settings, failed):
    needing = {unit for unit in units(settings) if needs_any_of(settings, unit, failed)}
    assert blocked_units(settings, failed) == needing
    assert set(failed) <= needing


def test_a_network_that_cannot_be_trained_blocks_its_inversions_and_every_comparison():
    blocked = blocked_units(SETTINGS, [("train", "resnet18", 0)])
    counts = {stage.name: sum(unit[0] == stage.name for unit in blocked) for stage in STAGES}
    assert counts == {"check": 0, "train": 1, "draw": 0, "invert": 4, "embed": 16, "aggregate": 6, "report": 1}
    assert {unit[1] for unit in blocked if unit[0] == "invert"} == {"resnet18"}


def test_nothing_is_blocked_when_nothing_failed():
    assert blocked_units(SETTINGS, []) == set()


def test_only_photographs_are_checked():
    assert CHECK.every(SETTINGS) == [] and CHECK.every(PHOTOGRAPHS) == [("images", 0)]
    assert needs(SETTINGS, ("train", "vgg", 0)) == []
    assert needs(PHOTOGRAPHS, ("train", "vgg", 0)) == [("check", "images", 0)]


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
    run = Run.create(str(tmp_path), SETTINGS)
    run.commit("invert", "resnet18", 2, seconds=0)
    run.commit("invert", "a network of another run", 0, seconds=0)
    expected = [unit for unit in INVERT.every(SETTINGS) if unit != ("resnet18", 2)]
    assert INVERT.missing(run) == expected and len(expected) == 11


def test_a_stage_of_many_records_is_listed_name_by_name_with_the_same_result(finished, monkeypatch):
    at_once = EMBED.done(finished)
    monkeypatch.setattr(stages, "MANY_RECORDS", 0)
    assert EMBED.done(finished) == at_once and set(at_once) == set(EMBED.every(finished.settings))


def test_the_first_missing_unit_is_named(tmp_path, finished):
    require_finished(finished, STAGES)
    run = Run.create(str(tmp_path), SETTINGS)
    run.commit("draw", "pairs", 0, seconds=0)
    require_finished(run, [])
    with pytest.raises(
        StoreError, match=r"is not finished: 3 of 4 shards of draw are missing, the first draw pairs shard 1; "
    ):
        require_finished(run, [DRAW, AGGREGATE, REPORT])


def test_arrays_need_the_records_of_networks(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    assert TRAIN.specs(run) == []
    with pytest.raises(StoreError, match="train vgg shard 0 is not done"):
        EMBED.prepare(run)


def test_a_unit_is_spelled_out_for_people():
    assert unit_label(("invert", "vgg", 3)) == "invert vgg shard 3"
