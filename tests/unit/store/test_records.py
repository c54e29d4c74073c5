"""A commit record proves one unit of one run; a damaged, moved or foreign one is refused."""

import json

import pytest

from netsim.errors import StoreError
from netsim.store.documents import create_arrays
from netsim.store.records import sealed
from netsim.store.run import Run
from unit.store.definitions import IMAGE, LOSS, RECORD, SETTINGS, commit, flipped


def test_stray_files_among_the_records_count_for_nothing(run):
    commit(run, 0, 1.0)
    for stray in ("00001 (copy).json", "x.json", "00002.json.partial", ".DS_Store"):
        run.files.put(f"commits/invert/vgg/{stray}", b"{}")
    assert list(run.done("invert")) == [("vgg", 0)]


@pytest.mark.parametrize("damaged", [b"", b'{"stage": "inv', b"\xff\xfe", b"[]", b'{"stage": "invert"}'])
def test_a_damaged_record_is_refused(run, damaged):
    run.files.put(RECORD, damaged)
    with pytest.raises(StoreError, match=rf"{RECORD} .* is damaged; `netsim verify --repair .*`, and run again"):
        run.record("invert", "vgg", 0)


def test_every_flipped_bit_of_a_record_or_of_the_settings_is_detected(tmp_path):
    run = Run.create(str(tmp_path / "run"), SETTINGS)
    create_arrays(run, [LOSS, IMAGE])
    commit(run, 0, 1.0)
    record, root = run.files.get(RECORD), run.files.get("zarr.json")
    for bit in range(0, 8 * len(record), 7):
        run.files.put(RECORD, flipped(record, bit))
        with pytest.raises(StoreError, match=r"is damaged|belongs to another run"):
            run.record("invert", "vgg", 0)
    for bit in range(8 * root.index(b"{", 1), 8 * root.rindex(b'"seal"'), 5):
        (tmp_path / "run" / "zarr.json").write_bytes(flipped(root, bit))
        try:
            opened = Run.open(run.url)
        except StoreError:
            continue
        assert opened.attributes == run.attributes  # the bit was in white space


def test_a_record_of_another_run_is_refused_and_a_missing_one_is_named(run, url):
    commit(run, 1, 1.0)
    record = json.loads(run.files.get("commits/invert/vgg/00001.json"))
    del record["seal"]
    run.files.put("commits/invert/vgg/00001.json", json.dumps(sealed(record | {"digest": "other"})).encode())
    with pytest.raises(StoreError, match=r"belongs to another run \(other\)"):
        run.record("invert", "vgg", 1)
    with pytest.raises(StoreError, match="shard 7 is not done"):
        run.record("invert", "vgg", 7)


def test_a_record_at_the_path_of_another_is_refused(run):
    """A sync tool or a person may copy it there; one shard would count twice."""
    commit(run, 0, 1.0)
    run.files.put("commits/invert/vgg/00001.json", run.files.get(RECORD))
    with pytest.raises(StoreError, match=r"commit record commits/invert/vgg/00001.json in .* is damaged"):
        run.record("invert", "vgg", 1)
