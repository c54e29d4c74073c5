"""Stores below a folder or a bucket are listed with their sweeps."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from netsim.errors import StoreError
from netsim.results.listing import age, list_stores
from support.seaweed import BUCKET
from support.sweeps import TINY, new_run, run_all, tiny


def test_stores_are_found_at_any_depth_with_their_sweeps_and_states(finished, tmp_path):
    shutil.copytree(finished.url, tmp_path / "lab" / "done")
    begun = new_run(str(tmp_path / "begun"), tiny(observers=["seer=small:mobilenet@none"]), label="mine")
    run_all(begun, only=("train", "draw"))
    (tmp_path / "notes").mkdir()
    first, second = list_stores(str(tmp_path))
    assert [Path(store.url).name for store in (first, second)] == ["begun", "done"]
    (sweep,) = first.sweeps
    assert (sweep.name, sweep.state, sweep.pairs) == ("mine", "invert 0/12", 32)
    assert (sweep.networks, sweep.observers) == (("vgg", "resnet18", "shufflenet"), ("seer",))
    assert [each.state for each in second.sweeps] == ["complete"] and second.run == finished.digest
    size = sum(path.stat().st_size for path in Path(second.url).rglob("*") if path.is_file())
    assert second.bytes == size


def test_a_store_itself_is_a_place(finished):
    (store,) = list_stores(finished.url)
    assert store.url == finished.url and store.sweeps[0].id == finished.sweep.id


def test_every_sweep_of_a_store_is_listed_the_one_run_last_at_the_end(finished, tmp_path):
    shutil.copytree(finished.url, tmp_path / "run")
    new_run(str(tmp_path / "run"), tiny(networks=TINY["networks"][:2]), label="fewer")
    (store,) = list_stores(str(tmp_path))
    assert [sweep.name for sweep in store.sweeps] == ["tiny", "fewer"]
    assert store.sweeps[0].asked < store.sweeps[1].asked


def test_what_is_no_store_of_this_format_is_listed_with_the_reason(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    (store,) = list_stores(str(tmp_path))
    assert "is a Zarr group, but not a netsim run" in store.fault and store.sweeps == ()


def test_a_bucket_is_a_place(object_storage):
    new_run(f"s3://{BUCKET}/listed/one", tiny(), label="one")
    (store,) = list_stores(f"s3://{BUCKET}/listed")
    assert store.url == f"s3://{BUCKET}/listed/one" and store.sweeps[0].state == "train 0/3"
    assert store.bytes > 1000


def test_a_place_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(StoreError, match=r"PLACE must be a folder or a bucket with stores, got .*none, which does not"):
        list_stores(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("passed", "expected"),
    [(timedelta(seconds=5), "5 s"), (timedelta(minutes=3), "3 min"), (timedelta(hours=30), "1 d")],
)
def test_an_age_is_in_its_largest_unit(passed, expected):
    now = datetime(2026, 11, 29, tzinfo=UTC)
    assert age((now - passed).isoformat(), now) == expected and age("") == "?"
