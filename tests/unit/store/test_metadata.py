"""Metadata of a record are read as they were written, and a missing field is an error that names it."""

from dataclasses import replace

import pytest

from netsim.errors import StoreError
from netsim.store.metadata import (
    CheckedSplit,
    CheckMetadata,
    ComputedMetadata,
    DrawMetadata,
    InvertMetadata,
    Metadata,
    TrainMetadata,
    UnreadableImage,
    train_metadata,
)
from netsim.store.run import Run
from netsim.store.stages import STAGES
from unit.store.definitions import SETTINGS

CLASSES = {
    "train": TrainMetadata,
    "draw": DrawMetadata,
    "invert": InvertMetadata,
    "embed": ComputedMetadata,
    "aggregate": Metadata,
    "report": Metadata,
}
"""The class of each stage that a run without photographs has."""

CHECKED = CheckedSplit(
    listed=12,
    listed_hash="of all",
    unreadable=[UnreadableImage(index=3, name="ant/1.png", why="truncated")],
    images_hash="of the readable ones",
)


def test_every_record_of_a_finished_run_is_read_and_written_alike(finished):
    units = [(stage.name, *unit) for stage in STAGES for unit in stage.every(finished.settings)]
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
    record = finished.record(stage, name)
    incomplete = replace(record, facts={key: value for key, value in record.facts.items() if key != field})
    with pytest.raises(
        StoreError, match=rf"^the commit record of {stage} {name} shard 0 lacks {field}; use the netsim that made it"
    ):
        CLASSES[stage].of(incomplete)


def test_a_missing_field_of_a_split_is_named_with_the_split(finished):
    incomplete = CheckMetadata(test=CHECKED).to_json()
    del incomplete["test"]["listed_hash"]
    with pytest.raises(StoreError, match=r"lacks test\.listed_hash; "):
        CheckMetadata.of(replace(finished.record("draw", "pairs"), stage="check", name="images", facts=incomplete))


def test_fields_that_were_not_set_are_not_written():
    assert Metadata().to_json() == {}
    assert Metadata(made_from="x").to_json() == {"made_from": "x"}
    assert "train" not in CheckMetadata(test=CHECKED).to_json()
    assert "train" in CheckMetadata(test=CHECKED, train=CHECKED).to_json()


def test_splits_are_those_that_were_checked():
    assert CheckMetadata(test=CHECKED).splits == {"test": CHECKED}
    assert list(CheckMetadata(test=CHECKED, train=CHECKED).splits) == ["test", "train"]


def test_metadata_survive_the_store(tmp_path):
    run, metadata = Run.create(str(tmp_path), SETTINGS), CheckMetadata(test=CHECKED, made_from="x")
    run.commit("check", "images", 0, facts=metadata.to_json(), seconds=0)
    assert CheckMetadata.of(Run.open(run.url).record("check", "images")) == metadata


def test_fields_of_a_newer_netsim_are_kept(finished):
    record = finished.record("draw", "pairs")
    newer = replace(record, facts=record.facts | {"flavour": "new"})
    assert DrawMetadata.of(newer).to_json() == newer.facts


def test_metadata_of_a_network_are_those_of_its_record(finished):
    metadata = train_metadata(finished, "shufflenet")
    assert (metadata.reference, metadata.trained_here) == ("small:shufflenet@none", False)
    assert metadata.input_shape == (1, 28, 28)
    assert metadata.width == finished.array("representations/natural/shufflenet").shape[1]
