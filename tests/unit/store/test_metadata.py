"""Metadata of a record are read as they were written, and a missing field is an error that names it."""

from dataclasses import replace

import pytest

from netsim.errors import StoreError
from netsim.store.metadata import (
    CheckMetadata,
    ComputedMetadata,
    ControlMetadata,
    DrawMetadata,
    InvertMetadata,
    Metadata,
    TrainMetadata,
    UnreadableImage,
    train_metadata,
)
from netsim.store.run import Run
from netsim.store.stages import STAGES
from support.sweeps import new_run, unit_of
from unit.store.definitions import SETTINGS

CLASSES = {
    "train": TrainMetadata,
    "draw": DrawMetadata,
    "invert": InvertMetadata,
    "embed": ComputedMetadata,
    "aggregate": Metadata,
    "control": ControlMetadata,
    "report": Metadata,
}
"""The class of each stage that a run without photographs has."""

CHECKED = CheckMetadata(
    listed=12,
    listed_hash="of all",
    unreadable=[UnreadableImage(index=3, name="ant/1.png", why="truncated")],
    images_hash="of the readable ones",
)


def test_every_record_of_a_finished_run_is_read_and_written_alike(finished):
    units = [(stage.name, *unit) for stage in STAGES for unit in stage.units_done(finished)]
    assert {stage for stage, _, _ in units} == CLASSES.keys()
    for stage, name, shard in units:
        record = finished.record(stage, name, shard)
        assert CLASSES[stage].of(record).to_json() == record.facts


@pytest.mark.parametrize(
    ("stage", "name", "field"),
    [
        ("train", "vgg", "weights_hash"),
        ("train", "vgg", "plan"),
        ("draw", "pairs", "classes"),
        ("invert", "vgg", "flops"),
        ("embed", "natural", "device"),
    ],
)
def test_a_missing_field_is_named_in_the_error(finished, stage, name, field):
    goal, (stage_of,) = name, [each for each in STAGES if each.name == stage]
    _, name, _ = unit_of(finished, stage_of, goal)
    record = finished.record(stage, name)
    incomplete = replace(record, facts={key: value for key, value in record.facts.items() if key != field})
    with pytest.raises(
        StoreError, match=rf"^the commit record of {stage} {name} shard 0 lacks {field}; use the netsim that made it"
    ):
        CLASSES[stage].of(incomplete)


def test_a_missing_field_of_an_image_is_named_with_its_place(finished):
    incomplete = CHECKED.to_json()
    del incomplete["unreadable"][0]["why"]
    with pytest.raises(StoreError, match=r"lacks unreadable\.0\.why; "):
        CheckMetadata.of(replace(finished.record("draw", "pairs"), stage="check", name="test", facts=incomplete))


def test_fields_that_were_not_set_are_not_written():
    assert Metadata().to_json() == {}
    assert Metadata(made_from="x").to_json() == {"made_from": "x"}
    assert "doubles" not in CHECKED.to_json()
    assert "doubles" in CHECKED.model_copy(update={"doubles": [(1, 0)]}).to_json()


def test_metadata_survive_the_store(tmp_path):
    run, metadata = new_run(str(tmp_path), SETTINGS), CHECKED.model_copy(update={"made_from": "x"})
    run.commit("check", "test", 0, facts=metadata.to_json(), seconds=0)
    assert CheckMetadata.of(Run.open(run.url).record("check", "test")) == metadata


def test_fields_of_a_newer_netsim_are_kept(finished):
    record = finished.record("draw", "pairs")
    newer = replace(record, facts=record.facts | {"flavour": "new"})
    assert DrawMetadata.of(newer).to_json() == newer.facts


def test_metadata_of_a_network_are_those_of_its_record(finished):
    metadata = train_metadata(finished, "shufflenet")
    assert (metadata.reference, metadata.trained_here) == ("small:shufflenet@none", False)
    assert metadata.input_shape == (1, 28, 28)
    assert metadata.width == finished.array("representations/natural/shufflenet").shape[1]
