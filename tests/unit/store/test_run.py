"""The store: a shard is done when its record is there; nothing wrong is read silently; nothing stored is lost."""

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from aiobotocore.client import AioBaseClient

from netsim.errors import StoreError, UnreachableError
from netsim.settings import parse_settings
from netsim.storage.files import _zarr_store
from netsim.storage.s3 import S3_CLIENT
from netsim.store.arrays import ArraySpec
from netsim.store.documents import array_faults, create_arrays, repair_arrays
from netsim.store.quarantine import quarantine, quarantined, release
from netsim.store.records import sealed
from netsim.store.run import Run
from support.seaweed import BUCKET

SETTINGS = parse_settings({"networks": ["small:vgg", "small:resnet18"], "pairs": {"count": 8, "shard_size": 4}})
LOSS = ArraySpec("inverted/vgg/final_loss", (8,), "float32", ("pair",))
IMAGE = ArraySpec(
    "inverted/vgg/image",
    (8, 1, 6, 6),
    "uint16",
    ("pair", "channel", "y", "x"),
    attributes={"scale_factor": 1 / 65535},
)
WHOLE = ArraySpec(
    "similarity/natural/cka",
    (2, 2),
    "float64",
    ("through", "observer"),
    coordinates={"through": ["vgg", "resnet18"], "observer": ["vgg", "resnet18"]},
)


@pytest.fixture(params=["path", "memory", "s3"])
def url(request, tmp_path):
    """Every kind of place: what holds for one holds for all."""
    if request.param == "path":
        return str(tmp_path / "run")
    if request.param == "s3":
        request.getfixturevalue("object_storage")
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def run(url):
    run = Run.create(url, SETTINGS)
    create_arrays(run, [LOSS, IMAGE, WHOLE])
    return run


def arrays(value: float) -> dict[str, np.ndarray]:
    return {
        LOSS.path: np.full(4, value, "float32"),
        IMAGE.path: np.arange(144, dtype="uint16").reshape(4, 1, 6, 6) + int(value),
    }


def commit(run: Run, shard: int, value: float):
    return run.commit("invert", "vgg", shard, arrays=arrays(value), facts={"note": "x"}, seconds=1.5)


def test_a_shard_is_done_when_its_record_is_there(run):
    assert run.done("invert") == {} and not run.is_done("invert", "vgg", 1)
    commit(run, 1, 2.0)
    assert list(run.done("invert")) == [("vgg", 1)]
    assert run.is_done("invert", "vgg", 1) and not run.is_done("invert", "vgg", 0)


def test_what_is_read_is_what_was_written(run):
    for shard, value in ((0, 1.0), (1, 0.0)):  # zeros equal the fill value of integers and must be there all the same
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


def test_listed_name_by_name_the_same_is_done(run):
    run.commit("embed", "natural", 0, seconds=0)
    run.commit("embed", "inverted/vgg", 3, seconds=0)
    run.commit("embed", "inverted/vgg16", 4, seconds=0)
    found = run.done("embed", ["natural", "inverted/vgg", "inverted/none"])
    assert found.items() <= run.done("embed").items()
    assert set(found) == {("natural", 0), ("inverted/vgg", 3)}


def test_opening_again_finds_the_same_run(run, url):
    commit(run, 0, 1.0)
    again = Run.open(url)
    assert again.digest == SETTINGS.digest() and again.settings == SETTINGS
    assert Run.create(url, SETTINGS).is_done("invert", "vgg", 0)


def test_creating_arrays_again_changes_nothing(run):
    commit(run, 0, 1.0)
    create_arrays(run, [LOSS, IMAGE, WHOLE])
    np.testing.assert_array_equal(run.read(run.record("invert", "vgg", 0), LOSS.path), arrays(1.0)[LOSS.path])


def test_other_settings_are_refused_with_what_differs(run, url):
    commit(run, 0, 1.0)
    other = parse_settings(SETTINGS.model_dump(mode="json") | {"inversion": {"iterations": 5}})
    with pytest.raises(
        StoreError, match=r"other settings: inversion.iterations is 2000 there and 5 here; give another"
    ):
        Run.create(url, other)
    assert Run.open(url).is_done("invert", "vgg", 0)


def test_another_format_version_is_refused(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    path = Path(run.url) / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["netsim"]["format"] = 99
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match="has format 99; this netsim reads format 4"):
        Run.open(run.url)


def test_a_damaged_root_document_is_refused(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    path = Path(run.url) / "zarr.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"zarr.json is damaged .*; restore it, or use another store"):
        Run.open(run.url)


@pytest.mark.parametrize("key", ["zarr_format", "node_type"])
def test_a_root_that_is_no_zarr_group_is_refused(tmp_path, key):
    """It is not sealed, as only what netsim keeps in it is."""
    run = Run.create(str(tmp_path), SETTINGS)
    path = Path(run.url) / "zarr.json"
    path.write_text(path.read_text().replace(f'"{key}"', f'"{key[:-1]}u"'))
    with pytest.raises(StoreError, match=r"zarr.json is damaged or was edited"):
        Run.open(run.url)


def test_a_store_below_folders_with_any_names_knows_what_is_done(tmp_path):
    run = Run.create(str(tmp_path / "commits" / "invert" / "run"), SETTINGS)
    run.commit("invert", "vgg", 1, arrays={}, seconds=0)
    assert list(run.done("invert")) == [("vgg", 1)]


def test_settings_of_another_version_are_refused(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    path = Path(run.url) / "zarr.json"
    document = json.loads(path.read_text())
    attributes = document["attributes"]["netsim"]
    attributes["settings"]["flavour"] = "new"
    del attributes["seal"]
    document["attributes"]["netsim"] = sealed(attributes)
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"cannot read the stored settings of .*: no setting 'flavour'"):
        Run.open(run.url)


def test_a_place_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="is not empty and holds no run"):
        Run.create(str(tmp_path), SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_no_run_is_said_with_the_way_to_make_one(tmp_path):
    with pytest.raises(StoreError, match=r"no run at .*/nothing; `netsim run SETTINGS.yaml --store"):
        Run.open(str(tmp_path / "nothing"))


def test_a_path_object_is_a_place_too(tmp_path):
    assert Run.open(Path(Run.create(str(tmp_path / "a" / ".." / "b"), SETTINGS).url)).url == str(tmp_path / "b")


def test_stray_files_among_the_records_prove_nothing(run):
    commit(run, 0, 1.0)
    for stray in ("00001 (copy).json", "x.json", "00002.json.partial", ".DS_Store"):
        run.files.put(f"commits/invert/vgg/{stray}", b"{}")
    assert list(run.done("invert")) == [("vgg", 0)]


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        *product(
            ("inverted/vgg/image/zarr.json", "inverted/zarr.json", "inverted/vgg/pair/c/0"), (b"", b"{", "delete")
        ),
        *product(("inverted/vgg/image/zarr.json",), ("shape", "fill_value")),
    ],
)
def test_a_damaged_document_is_found_and_written_again(run, file, harm):
    """Of an array, of a group, and a coordinate. What the arrays hold stays."""
    record, specs = commit(run, 0, 1.0), [LOSS, IMAGE, WHOLE]
    if harm == "delete":
        run.files.remove(file)
    elif isinstance(harm, bytes):
        run.files.put(file, harm)
    else:
        document = json.loads(run.files.get(file))
        document[harm] = [8, 1, 7, 6] if harm == "shape" else 1
        run.files.put(file, json.dumps(document).encode())
    assert list(array_faults(run, specs)) == [file]
    if harm != "delete":
        with pytest.raises(StoreError, match=rf"{file} is damaged .*; `netsim verify --repair .*`, and run again"):
            create_arrays(Run.open(run.url), specs)
    repair_arrays(run, specs)
    assert array_faults(run, specs) == {}
    np.testing.assert_array_equal(Run.open(run.url).read(record, IMAGE.path), arrays(1.0)[IMAGE.path])


def test_documents_written_in_another_way_mean_the_same(run):
    document = run.files.get(f"{IMAGE.path}/zarr.json")
    run.files.put(f"{IMAGE.path}/zarr.json", json.dumps(json.loads(document), sort_keys=True).encode())
    create_arrays(run, [LOSS, IMAGE, WHOLE])
    assert array_faults(run, [LOSS, IMAGE, WHOLE]) == {}


def objects(run: Run, array: str) -> list[str]:
    fs, root = fsspec.core.url_to_fs(run.url)
    return [path for path in fs.find(f"{root}/{array}") if "/c/" in path]


@pytest.mark.parametrize("harm", ["flip", "empty", "truncate", "delete"])
@pytest.mark.parametrize("array", [LOSS.path, IMAGE.path])
def test_harm_to_a_stored_object_never_goes_unseen(run, harm, array):
    commit(run, 0, 1.0)
    (path,) = objects(run, array)
    fs = fsspec.core.url_to_fs(run.url)[0]
    data = bytearray(fs.cat_file(path))
    data[len(data) // 3] ^= 1
    if harm == "delete":
        fs.rm_file(path)
    else:
        fs.pipe_file(path, {"flip": bytes(data), "empty": b"", "truncate": bytes(data[:-5])}[harm])
    with pytest.raises(
        StoreError, match=rf"{array}, shard 0, .* is damaged .*; `netsim verify --repair .*`, and run again"
    ):
        run.read(run.record("invert", "vgg", 0), array)


RECORD = "commits/invert/vgg/00000.json"


@pytest.mark.parametrize("damaged", [b"", b'{"stage": "inv', b"\xff\xfe", b"[]", b'{"stage": "invert"}'])
def test_a_damaged_record_is_refused(run, damaged):
    run.files.put(RECORD, damaged)
    with pytest.raises(StoreError, match=rf"{RECORD} .* is damaged; `netsim verify --repair .*`, and run again"):
        run.record("invert", "vgg", 0)


def test_no_flipped_bit_of_a_record_or_of_the_settings_goes_unseen(tmp_path):
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
            found = Run.open(run.url)
        except StoreError:
            continue
        assert found.attributes == run.attributes  # white space


def test_no_flipped_bit_of_an_object_goes_unseen_and_zarr_reads_the_same(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    create_arrays(run, [IMAGE])
    values = np.arange(144, dtype="uint16").reshape(4, 1, 6, 6) * 455
    record = run.commit("invert", "vgg", 1, arrays={IMAGE.path: values}, seconds=0)
    np.testing.assert_array_equal(run.read(record, IMAGE.path), values)
    np.testing.assert_array_equal(run.array(IMAGE.path)[4:], values)
    path = f"{IMAGE.path}/c/1/0/0/0"
    data = run.files.get(path)
    for bit in range(0, 8 * len(data), 7):
        (tmp_path / path).write_bytes(flipped(data, bit))
        with pytest.raises(StoreError, match="its checksum differs"):
            run.read(record, IMAGE.path)


def test_a_whole_chunk_in_the_place_of_another_is_refused(tmp_path):
    """As after a copy that went wrong: it has a right checksum, but of other values."""
    run = Run.create(str(tmp_path), SETTINGS)
    create_arrays(run, [LOSS, IMAGE])
    commit(run, 0, 1.0)
    commit(run, 1, 2.0)
    run.files.put(f"{LOSS.path}/c/1", run.files.get(f"{LOSS.path}/c/0"))
    with pytest.raises(StoreError, match=r"shard 1, .* is damaged \(its checksum differs\)"):
        run.read(run.record("invert", "vgg", 1), LOSS.path)


POLYNOMIAL = 0x11EDC6F41
"""Of crc32c: values that differ by it, bit by reflected bit, have the same checksum."""


def test_what_crc32c_can_not_see_the_hash_in_the_record_does(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    create_arrays(run, [LOSS, IMAGE])
    record = commit(run, 0, 1.0)
    path = f"{LOSS.path}/c/0"
    unseen = int(f"{POLYNOMIAL:033b}"[::-1], 2).to_bytes(5, "little")
    data = bytes(a ^ b for a, b in zip_longest(run.files.get(path), unseen, fillvalue=0))
    run.files.put(path, data)
    assert not np.array_equal(run.array(LOSS.path)[:4], arrays(1.0)[LOSS.path])  # Zarr takes it for whole
    with pytest.raises(StoreError, match="its checksum differs"):
        run.read(record, LOSS.path)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_record_of_another_run_is_refused_and_one_that_is_not_there_is_said(run, url):
    commit(run, 1, 1.0)
    record = json.loads(run.files.get("commits/invert/vgg/00001.json"))
    del record["seal"]
    run.files.put("commits/invert/vgg/00001.json", json.dumps(sealed(record | {"digest": "other"})).encode())
    with pytest.raises(StoreError, match=r"belongs to another run \(other\)"):
        run.record("invert", "vgg", 1)
    with pytest.raises(StoreError, match="shard 7 is not done"):
        run.record("invert", "vgg", 7)


def test_a_record_in_the_place_of_another_is_refused(run):
    """As a sync tool or a hand may put it there: it would have one shard count twice."""
    commit(run, 0, 1.0)
    run.files.put("commits/invert/vgg/00001.json", run.files.get(RECORD))
    with pytest.raises(StoreError, match=r"commit record commits/invert/vgg/00001.json in .* is damaged"):
        run.record("invert", "vgg", 1)


def test_the_first_record_of_a_shard_stays_and_its_values_too(run):
    """Two runs of the same settings may both compute a shard; on GPUs not to the same bits."""
    commit(run, 0, 1.0)
    first = run.files.get(RECORD)
    late = run.commit("invert", "vgg", 0, arrays=arrays(2.0), facts={"note": "slower"}, seconds=9)
    assert run.files.get(RECORD) == first and late.seconds == 1.5
    np.testing.assert_array_equal(run.read(late, LOSS.path), arrays(1.0)[LOSS.path])
    run.forget("invert", "vgg", 0)
    run.commit("invert", "vgg", 0, arrays=arrays(1.0), facts={"note": "slower"}, seconds=9)
    assert run.record("invert", "vgg", 0).seconds == 9


@pytest.mark.parametrize("value", [1.0, 2.0])
def test_values_and_record_fit_when_two_write_a_shard_at_the_same_time(run, monkeypatch, value):
    """The slower has begun to write before the record of the faster is there, and goes on after it."""
    write, faster = Run._write, Run.open(run.url)

    def write_late(self: Run, *of: Any) -> str:
        if self is run and not self.is_done("invert", "vgg", 0):
            monkeypatch.setattr(Run, "_write", write)
            commit(faster, 0, 1.0)
        return write(self, *of)

    monkeypatch.setattr(Run, "_write", write_late)
    monkeypatch.setattr("netsim.store.run.WRITERS", 1)
    record = commit(run, 0, value)
    for reader in (run, faster):
        found = reader.record("invert", "vgg", 0)
        assert found == record
        np.testing.assert_array_equal(reader.read(found, LOSS.path), arrays(value)[LOSS.path])


def test_what_one_stage_set_aside_is_taken_up_again_without_the_others(run):
    for stage in ("invert", "measure"):
        quarantine(run, (stage, "natural/vgg", 3), {"error": "E"})
    release(run, "measure")
    assert list(quarantined(run)) == [("invert", "natural/vgg", 3)]
    release(run)
    assert quarantined(run) == {}


def test_a_folder_that_can_not_be_listed_is_no_empty_one(tmp_path, monkeypatch):
    """Or `verify` would find nothing wrong in it."""
    run, scandir = Run.create(str(tmp_path), SETTINGS), os.scandir
    create_arrays(run, [LOSS, IMAGE])
    commit(run, 0, 1.0)

    def denied(path: Any) -> Any:
        if str(path).rstrip("/").endswith("commits/invert/vgg"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(StoreError, match="no permission to read or write "):
        run.done("invert")


def test_of_two_that_make_a_run_at_once_one_does(url):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: Run.create(url, SETTINGS), range(8)))
    assert all(run.attributes == runs[0].attributes for run in runs)
    other = parse_settings(SETTINGS.model_dump(mode="json") | {"inversion": {"iterations": 5}})
    with pytest.raises(StoreError, match="holds a run with other settings"):
        Run.create(url, other)


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


def test_xarray_opens_the_arrays_without_netsim(run, url):
    """As one group and as a tree, with names of dimensions and coordinates."""
    commit(run, 0, 1.0)
    run.commit("aggregate", "natural", 0, arrays={WHOLE.path: np.eye(2)}, seconds=0)
    group = xr.open_zarr(url, group="inverted/vgg", consolidated=False)
    assert group.image.dims == ("pair", "channel", "y", "x") and group.final_loss.dims == ("pair",)
    np.testing.assert_array_equal(group.final_loss.sel(pair=[2, 3]), 1)
    assert np.isnan(group.final_loss[4:]).all() and group.pair.values.tolist() == list(range(8))
    np.testing.assert_allclose(group.image[0, 0, 0], (np.arange(6) + 1) / 65535, rtol=1e-6)
    cells = xr.open_zarr(url, group="similarity/natural", consolidated=False).cka
    assert cells.sel(through="vgg", observer="vgg") == 1 and cells.sel(through="vgg", observer="resnet18") == 0
    tree = xr.open_datatree(url, engine="zarr", consolidated=False)
    assert {"/inverted/vgg", "/similarity/natural"} <= set(tree.groups)


NOBODY = "import os; os.setgid(65534); os.setuid(65534)" if os.geteuid() == 0 else ""
"""Permissions do not bind root."""


def test_a_store_that_is_not_writable_is_explained():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others anyway
        Path(folder).chmod(0o555)
        code = f"""
from netsim.settings import parse_settings
from netsim.store.run import Run
settings = parse_settings({SETTINGS.model_dump(mode="json")!r})
Run.create("memory://warm", settings)  # import everything before the privileges to do so are gone
{NOBODY}
Run.create({folder + "/run"!r}, settings)
"""
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "StoreError" in found.stderr and "no permission to read or write " in found.stderr


def test_no_space_is_explained_and_the_shard_is_missing(tmp_path):
    """A limit on the size of files is a full disk for the process that has it."""
    run = Run.create(str(tmp_path / "run"), SETTINGS)
    create_arrays(run, [ArraySpec("noise", (8, 4096), "float32", ("pair", "x"))])
    code = f"""
import errno, numpy as np, resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
run = Run.open({run.url!r})
run.commit("invert", "vgg", 0, arrays={{"noise": np.random.rand(4, 4096).astype("float32")}}, seconds=0)
"""
    found = subprocess.run(
        [sys.executable, "-c", "from netsim.store.run import Run\n" + code], capture_output=True, text=True, check=False
    )
    assert "StoreError" in found.stderr and "no space left for" in found.stderr, found.stderr[-800:]
    assert run.done("invert") == {}


# ---- object storage


def test_a_server_that_is_away_says_nothing_about_a_shard(object_storage, monkeypatch):
    """It is not damaged, and what was done is not to be removed. The same read works once it is back."""
    run = Run.create(f"s3://{BUCKET}/{uuid.uuid4().hex}", SETTINGS)
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
    """What S3 is asked, by operation."""
    counts: Counter[str] = Counter()
    ask = AioBaseClient._make_api_call

    async def counted(client, operation, parameters):
        counts[operation] += 1
        return await ask(client, operation, parameters)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", counted)
    return counts


def test_a_shard_is_one_request_an_array_and_one_for_its_record(object_storage, requests):
    """Each request is paid for, and takes its time."""
    run = Run.create(f"s3://{BUCKET}/{uuid.uuid4().hex}", SETTINGS)
    create_arrays(run, [LOSS, IMAGE])
    commit(run, 1, 1.0)
    requests.clear()
    commit(run, 0, 1.0)
    assert requests == {"PutObject": 3, "GetObject": 1}  # whether another was faster
    requests.clear()
    assert not run.is_done("invert", "vgg", 7)
    record = run.record("invert", "vgg", 0)
    run.read(record, IMAGE.path)
    assert requests == {"GetObject": 3}
    requests.clear()
    assert len(run.done("invert")) == 2
    assert requests == {"ListObjectsV2": 1}
