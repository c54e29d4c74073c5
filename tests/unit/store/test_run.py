"""A unit is done when its record exists; nothing wrong is read silently; nothing stored is lost."""

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiobotocore.client import AioBaseClient

from netsim.errors import StoreError, UnreachableError
from netsim.settings import parse_settings
from netsim.storage.files import _zarr_store
from netsim.storage.s3 import S3_CLIENT
from netsim.store.arrays import ArraySpec
from netsim.store.documents import create_arrays
from netsim.store.protocol import Protocol
from netsim.store.records import sealed
from netsim.store.run import Run
from support.seaweed import BUCKET
from support.sweeps import new_run
from unit.store.definitions import IMAGE, LOSS, RECORD, SETTINGS, WHOLE, arrays, commit


def test_a_shard_is_done_when_its_record_exists(run):
    assert run.done("invert") == {} and not run.is_done("invert", "vgg", 1)
    commit(run, 1, 2.0)
    assert list(run.done("invert")) == [("vgg", 1)]
    assert run.is_done("invert", "vgg", 1) and not run.is_done("invert", "vgg", 0)


def test_reading_returns_what_was_written(run):
    for shard, value in ((0, 1.0), (1, 0.0)):  # zeros equal the fill value of integers but must be stored all the same
        commit(run, shard, value)
    for shard, value in ((0, 1.0), (1, 0.0)):
        record = run.record("invert", "vgg", shard)
        for path, values in arrays(value).items():
            np.testing.assert_array_equal(run.read(record, path), values)


def test_whole_arrays_and_files_are_covered_by_the_record(run):
    cells = np.array([[1, 0.5], [0.5, np.nan]])
    run.commit("aggregate", "natural", 0, arrays={WHOLE.path: cells}, files={"report/a.txt": b"abc"}, seconds=0)
    record = run.record("aggregate", "natural")
    np.testing.assert_array_equal(run.read(record, WHOLE.path), cells)
    assert run.read_file(record, "report/a.txt") == b"abc"


def test_a_name_may_have_a_slash(run):
    run.commit("embed", "inverted/vgg", 3, arrays={}, seconds=0)
    assert list(run.done("embed")) == [("inverted/vgg", 3)]


def test_listing_name_by_name_finds_the_same_units(run):
    run.commit("embed", "natural", 0, seconds=0)
    run.commit("embed", "inverted/vgg", 3, seconds=0)
    run.commit("embed", "inverted/vgg16", 4, seconds=0)
    listed = run.done("embed", ["natural", "inverted/vgg", "inverted/none"])
    assert listed.items() <= run.done("embed").items()
    assert set(listed) == {("natural", 0), ("inverted/vgg", 3)}


def test_opening_again_gives_the_same_run(run, url):
    commit(run, 0, 1.0)
    again = Run.open(url)
    assert again.digest == run.digest == Protocol.of(SETTINGS, run.sweep.images).digest()
    assert again.settings == SETTINGS and again.sweep.id == run.sweep.id
    assert new_run(url, SETTINGS).is_done("invert", "vgg", 0)


def test_other_settings_are_refused_and_the_difference_is_named(run, url):
    commit(run, 0, 1.0)
    other = parse_settings(SETTINGS.model_dump(mode="json") | {"inversion": {"iterations": 5}})
    with pytest.raises(
        StoreError, match=r"another protocol: inversion.iterations is 2000 there and 5 here; give another"
    ):
        new_run(url, other)
    assert Run.open(url).is_done("invert", "vgg", 0)


def test_another_format_version_is_refused(tmp_path):
    run = new_run(str(tmp_path), SETTINGS)
    path = Path(run.url) / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["netsim"]["format"] = 99
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match="has format 99; this netsim reads format 5"):
        Run.open(run.url)


def test_a_damaged_root_document_is_refused(tmp_path):
    run = new_run(str(tmp_path), SETTINGS)
    path = Path(run.url) / "zarr.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"zarr.json is damaged .*; restore it, or use another store"):
        Run.open(run.url)


@pytest.mark.parametrize("key", ["zarr_format", "node_type"])
def test_a_root_that_is_not_a_zarr_group_is_refused(tmp_path, key):
    """These keys are Zarr's; the seal covers only the attributes of netsim."""
    run = new_run(str(tmp_path), SETTINGS)
    path = Path(run.url) / "zarr.json"
    path.write_text(path.read_text().replace(f'"{key}"', f'"{key[:-1]}u"'))
    with pytest.raises(StoreError, match=r"zarr.json is damaged or was edited"):
        Run.open(run.url)


def test_names_of_parent_folders_do_not_confuse_the_listing(tmp_path):
    run = new_run(str(tmp_path / "commits" / "invert" / "run"), SETTINGS)
    run.commit("invert", "vgg", 1, arrays={}, seconds=0)
    assert list(run.done("invert")) == [("vgg", 1)]


def test_settings_of_another_version_are_refused(tmp_path):
    run = new_run(str(tmp_path), SETTINGS)
    (path,) = (Path(run.url) / "sweeps").iterdir()
    document = json.loads(path.read_text())
    document["settings"]["flavour"] = "new"
    del document["seal"]
    path.write_text(json.dumps(sealed(document)))
    with pytest.raises(StoreError, match=r"cannot read the stored settings of .*: no setting 'flavour'"):
        Run.open(run.url)


def test_a_folder_with_other_files_is_refused_and_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="is not empty and holds no run"):
        new_run(str(tmp_path), SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_missing_run_is_reported_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(StoreError, match=r"no run at .*/nothing; `netsim run SETTINGS.yaml --store"):
        Run.open(str(tmp_path / "nothing"))


def test_a_path_object_is_accepted(tmp_path):
    assert Run.open(Path(new_run(str(tmp_path / "a" / ".." / "b"), SETTINGS).url)).url == str(tmp_path / "b")


def test_the_first_record_of_a_shard_and_its_values_stay(run):
    """Two runs of the same settings may both compute a shard; on GPUs, the bits may differ."""
    commit(run, 0, 1.0)
    first = run.files.get(RECORD)
    late = run.commit("invert", "vgg", 0, arrays=arrays(2.0), facts={"note": "slower"}, seconds=9)
    assert run.files.get(RECORD) == first and late.seconds == 1.5
    np.testing.assert_array_equal(run.read(late, LOSS.path), arrays(1.0)[LOSS.path])
    run.forget("invert", "vgg", 0)
    run.commit("invert", "vgg", 0, arrays=arrays(1.0), facts={"note": "slower"}, seconds=9)
    assert run.record("invert", "vgg", 0).seconds == 9


@pytest.mark.parametrize("value", [1.0, 2.0])
def test_values_and_record_match_when_two_processes_write_a_shard_at_once(run, monkeypatch, value):
    """The slower one begins to write before the record of the faster one exists, and finishes after it."""
    write, faster = Run._write, Run.open(run.url)

    def write_late(self: Run, *arguments: Any) -> str:
        if self is run and not self.is_done("invert", "vgg", 0):
            monkeypatch.setattr(Run, "_write", write)
            commit(faster, 0, 1.0)
        return write(self, *arguments)

    monkeypatch.setattr(Run, "_write", write_late)
    monkeypatch.setattr("netsim.store.run.WRITERS", 1)
    record = commit(run, 0, value)
    for reader in (run, faster):
        stored = reader.record("invert", "vgg", 0)
        assert stored == record
        np.testing.assert_array_equal(reader.read(stored, LOSS.path), arrays(value)[LOSS.path])


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path, monkeypatch):
    """Otherwise `verify` would find nothing wrong in it."""
    run, scandir = new_run(str(tmp_path), SETTINGS), os.scandir
    create_arrays(run, [LOSS, IMAGE])
    commit(run, 0, 1.0)

    def denied(path: Any) -> Any:
        if str(path).rstrip("/").endswith("commits/invert/vgg"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(StoreError, match="no permission to read or write "):
        run.done("invert")


def test_a_run_that_several_threads_create_at_once_is_created_once(url):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: new_run(url, SETTINGS), range(8)))
    assert all(run.attributes == runs[0].attributes for run in runs)
    other = parse_settings(SETTINGS.model_dump(mode="json") | {"inversion": {"iterations": 5}})
    with pytest.raises(StoreError, match="holds runs of another protocol"):
        new_run(url, other)


def test_a_shard_written_without_its_record_is_missing(run, monkeypatch):
    def killed(path, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(run.files, "put_new", killed)
    with pytest.raises(KeyboardInterrupt):
        commit(run, 0, 1.0)
    monkeypatch.undo()
    assert run.done("invert") == {}
    commit(run, 0, 3.0)
    np.testing.assert_array_equal(run.read(run.record("invert", "vgg", 0), LOSS.path), arrays(3.0)[LOSS.path])


NOBODY = "import os; os.setgid(65534); os.setuid(65534)" if os.geteuid() == 0 else ""
"""Code that gives up the privileges of root, whom permissions do not bind."""


def test_a_store_that_is_not_writable_is_explained():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others anyway
        Path(folder).chmod(0o555)
        code = f"""
from netsim.settings import parse_settings
from netsim.store.run import Run
from netsim.planning.resolve import resolve
sweep = resolve(parse_settings({SETTINGS.model_dump(mode="json")!r}), "memory://warm")
Run.create("memory://warm", sweep)  # import everything while the process still may
{NOBODY}
Run.create({folder + "/run"!r}, sweep)
"""
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "StoreError" in process.stderr and "no permission to read or write " in process.stderr


def test_no_space_is_explained_and_the_shard_is_missing(tmp_path):
    """A limit on the size of files stands in for a full disk."""
    run = new_run(str(tmp_path / "run"), SETTINGS)
    create_arrays(run, [ArraySpec("noise", (8, 4096), "float32", ("pair", "x"))])
    code = f"""
import errno, numpy as np, resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
run = Run.open({run.url!r})
run.commit("invert", "vgg", 0, arrays={{"noise": np.random.rand(4, 4096).astype("float32")}}, seconds=0)
"""
    process = subprocess.run(
        [sys.executable, "-c", "from netsim.store.run import Run\n" + code], capture_output=True, text=True, check=False
    )
    assert "StoreError" in process.stderr and "no space left for" in process.stderr, process.stderr[-800:]
    assert run.done("invert") == {}


# ---- object storage


def test_a_server_that_is_down_does_not_make_a_shard_damaged(object_storage, monkeypatch):
    """The error is another one, so that nothing is removed; the same read works once the server is back."""
    run = new_run(f"s3://{BUCKET}/{uuid.uuid4().hex}", SETTINGS)
    create_arrays(run, [LOSS, IMAGE])
    record = commit(run, 0, 1.0)
    monkeypatch.setitem(S3_CLIENT, "retries", {"mode": "standard", "max_attempts": 1})
    _zarr_store.cache_clear()
    impatient = Run.open(run.url)
    impatient.read(record, LOSS.path)
    object_storage.kill()
    try:
        with pytest.raises(UnreachableError, match=r"s3://.* does not answer .*; run the command again to resume$"):
            impatient.read(record, LOSS.path)
        with pytest.raises(UnreachableError):
            impatient.done("invert")
    finally:
        object_storage.start()
    np.testing.assert_array_equal(impatient.read(record, LOSS.path), arrays(1.0)[LOSS.path])
    _zarr_store.cache_clear()


@pytest.fixture
def requests(monkeypatch) -> Counter[str]:
    """Count requests to S3 by operation."""
    counts: Counter[str] = Counter()
    ask = AioBaseClient._make_api_call

    async def counted(client, operation, parameters):
        counts[operation] += 1
        return await ask(client, operation, parameters)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", counted)
    return counts


def test_a_shard_takes_one_request_per_array_and_one_for_its_record(object_storage, requests):
    """Every request costs money and time."""
    run = new_run(f"s3://{BUCKET}/{uuid.uuid4().hex}", SETTINGS)
    create_arrays(run, [LOSS, IMAGE])
    commit(run, 1, 1.0)
    requests.clear()
    commit(run, 0, 1.0)
    assert requests == {"PutObject": 3, "GetObject": 1}  # the GET asks if another process was faster
    requests.clear()
    assert not run.is_done("invert", "vgg", 7)
    record = run.record("invert", "vgg", 0)
    run.read(record, IMAGE.path)
    assert requests == {"GetObject": 3}
    requests.clear()
    assert len(run.done("invert")) == 2
    assert requests == {"ListObjectsV2": 1}
