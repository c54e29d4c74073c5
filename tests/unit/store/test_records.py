"""A commit record proves one unit of one run; a damaged, moved or foreign one is refused."""

import json
import subprocess
from dataclasses import replace

import pytest

from netsim.errors import StoreError
from netsim.store.documents import create_arrays
from netsim.store.records import (
    PACKAGES,
    RECORD_FILE,
    SEAL,
    Record,
    commit_path,
    is_sealed,
    lies_within,
    parse_sealed_line,
    revision,
    sealed,
    sealed_line,
    versions,
)
from netsim.store.run import Run
from support.sweeps import new_run
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
    run = new_run(str(tmp_path / "run"), SETTINGS)
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


def test_a_sealed_document_is_sealed_until_it_is_changed():
    document = sealed({"a": 1, "b": {"c": [2.5, None]}})
    assert is_sealed(document) and set(document) == {"a", "b", SEAL}
    changed = (document | {"a": 2}, document | {"d": 1}, document | {SEAL: "0" * 64}, {"a": 1}, {})
    assert not any(map(is_sealed, changed))


def test_a_sealed_line_is_read_as_it_was_written_and_no_byte_of_it_can_change():
    document = {"a": 1, "b": {"seal": "…", "c": [2.5, None]}}
    line = sealed_line(document)
    assert is_sealed(json.loads(line)) and parse_sealed_line(line) == document
    spaced = line.replace(b'": ', b'":  ', 1)  # the same values
    for other in (flipped(line, 3), flipped(line, len(line) - 20), spaced, line + b"\n", line[:-1], b"", b"[]"):
        with pytest.raises(ValueError, match="the seal does not fit"):
            parse_sealed_line(other)


def test_the_content_of_a_record_is_that_of_its_values(run):
    """Two workers that wrote the same values agree in it, whenever and wherever they did."""
    record = commit(run, 0, 1.0)
    elsewhere = replace(record, seconds=9, committed="later", process="b:2", facts={}, versions={})
    reordered = replace(record, arrays=dict(reversed(record.arrays.items())))
    assert elsewhere.content == reordered.content == record.content
    assert commit(run, 1, 2.0).content != record.content
    assert replace(record, files={"report/a.txt": "hash"}).content != record.content


def test_records_lie_by_stage_name_and_shard_in_an_order_that_sorts():
    assert commit_path("invert", "vgg", 0) == RECORD
    paths = [commit_path("embed", "inverted/vgg", shard) for shard in (0, 9, 10, 99_999)]
    assert paths == sorted(paths)
    assert all(RECORD_FILE.fullmatch(commit_path("a", "b", shard).split("/")[-1]) for shard in (0, 123_456))


@pytest.mark.parametrize(
    ("path", "within"),
    [("a/b", True), ("a..b/..c", True), ("/etc/passwd", False), ("../a", False), ("a/../../b", False), ("a/..", False)],
)
def test_a_path_that_leads_out_of_the_store_is_recognized(path, within):
    assert lies_within(path) == within


def test_a_record_names_the_versions_it_was_computed_with(run):
    assert commit(run, 0, 1.0).versions == versions()
    assert set(versions()) == {*PACKAGES, "python"} and all(versions().values())


def test_a_clone_has_a_revision_and_a_folder_within_a_clone_has_none(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x"]
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "a").write_text("1")
    assert revision(tmp_path) == ""
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "x"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    commit_hash = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert (revision(tmp_path), revision(tmp_path / "packages")) == (commit_hash, "")
    (tmp_path / "packages" / "a").write_text("2")
    assert revision(tmp_path) == f"{commit_hash}.dirty"


def test_a_record_is_read_as_it_was_written(run):
    written = commit(run, 0, 1.0)
    assert isinstance(written, Record) and run.record("invert", "vgg", 0) == written
    assert (written.stage, written.name, written.shard, written.seconds) == ("invert", "vgg", 0, 1.5)
