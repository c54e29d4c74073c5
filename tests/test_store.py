"""The store: a shard is done when its record is there; nothing wrong is read silently; nothing stored is lost."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
from seaweed import BUCKET, KEYS

from netsim.config import parse_settings
from netsim.errors import StoreError, UnreachableError
from netsim.store import S3_CLIENT, ArraySpec, Run

SETTINGS = parse_settings({"networks": ["small:vgg", "small:resnet18"], "pairs": {"count": 8, "shard_size": 4}})
LOSS = ArraySpec("inverted/vgg/final_loss", (8,), "float32", ("pair",))
IMAGE = ArraySpec("inverted/vgg/image", (8, 1, 6, 6), "uint16", ("pair", "channel", "y", "x"))
WHOLE = ArraySpec("similarity/natural/cka", (2, 2), "float64", ("through", "observer"))


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
    run.create_arrays([LOSS, IMAGE, WHOLE])
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


def test_opening_again_finds_the_same_run(run, url):
    commit(run, 0, 1.0)
    again = Run.open(url)
    assert again.digest == SETTINGS.digest() and again.settings == SETTINGS
    assert Run.create(url, SETTINGS).is_done("invert", "vgg", 0)


def test_creating_arrays_again_changes_nothing(run):
    commit(run, 0, 1.0)
    run.create_arrays([LOSS, IMAGE, WHOLE])
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
    with pytest.raises(StoreError, match="has format 99; this netsim reads format 2"):
        Run.open(run.url)


def test_a_damaged_root_document_is_refused(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    path = Path(run.url) / "zarr.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"zarr.json is damaged .*; restore it, or use another store"):
        Run.open(run.url)


def test_a_store_below_folders_with_any_names_knows_what_is_done(tmp_path):
    run = Run.create(str(tmp_path / "commits" / "invert" / "run"), SETTINGS)
    run.commit("invert", "vgg", 1, arrays={}, seconds=0)
    assert list(run.done("invert")) == [("vgg", 1)]


def test_settings_of_another_version_are_refused(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    path = Path(run.url) / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["netsim"]["settings"]["flavour"] = "new"
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"are not this netsim's: .*no setting 'flavour'"):
        Run.open(run.url)


def test_a_place_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="is not empty and holds no run"):
        Run.create(str(tmp_path), SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_no_run_is_said_with_the_way_to_make_one(tmp_path):
    with pytest.raises(StoreError, match=r"no run at .*/nothing; `netsim run SETTINGS.yaml --store"):
        Run.open(str(tmp_path / "nothing"))


def test_a_url_of_an_unknown_kind_is_refused():
    with pytest.raises(StoreError, match="nonsense://x is not a place netsim can store to"):
        Run.create("nonsense://x", SETTINGS)


def test_credentials_in_a_url_are_refused_and_not_repeated():
    with pytest.raises(StoreError, match="the store's URL holds credentials") as caught:
        Run.create("s3://AKIAEXAMPLE:secret@bucket/run", SETTINGS)
    assert "secret" not in str(caught.value) and "AKIA" not in str(caught.value)


@pytest.mark.parametrize("nothing", ["", None, 3])
def test_nothing_is_no_place_for_a_run(nothing):
    with pytest.raises(StoreError, match="is no place for a run; give a path or a URL"):
        Run.open(nothing)


def test_a_path_object_is_a_place_too(tmp_path):
    assert Run.open(Path(Run.create(str(tmp_path / "a" / ".." / "b"), SETTINGS).url)).url == str(tmp_path / "b")


def test_stray_files_among_the_records_prove_nothing(run):
    commit(run, 0, 1.0)
    for stray in ("00001 (copy).json", "x.json", "00002.json.partial", ".DS_Store"):
        run.put_file(f"commits/invert/vgg/{stray}", b"{}")
    assert list(run.done("invert")) == [("vgg", 0)]


def test_the_way_out_of_a_damaged_array_document_leads_out(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    run.create_arrays([WHOLE])
    document = tmp_path / WHOLE.path / "zarr.json"
    document.write_bytes(b"")
    with pytest.raises(StoreError, match=r"similarity/natural/cka/zarr.json is damaged .*; remove it, and run again"):
        Run.open(tmp_path).create_arrays([WHOLE])
    document.unlink()
    Run.open(tmp_path).create_arrays([WHOLE])
    Run.open(tmp_path).commit("aggregate", "natural", 0, arrays={WHOLE.path: np.eye(2)}, seconds=0)


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
    with pytest.raises(StoreError, match=rf"{array}, shard 0, .* is damaged .*; remove commits/invert/vgg/00000.json"):
        run.read(run.record("invert", "vgg", 0), array)


def test_a_damaged_or_foreign_record_is_refused(run):
    commit(run, 0, 1.0)
    for damaged in (b'{"stage": "inv', b"\xff\xfe", b"[]", b'{"stage": "invert"}'):
        run.put_file("commits/invert/vgg/00000.json", damaged)
        with pytest.raises(StoreError, match=r"00000.json .* is damaged; remove it"):
            run.record("invert", "vgg", 0)
    record = json.loads(json.dumps({**commit(run, 1, 1.0).__dict__, "digest": "other"}))
    run.put_file("commits/invert/vgg/00001.json", json.dumps(record).encode())
    with pytest.raises(StoreError, match=r"belongs to another run \(other\)"):
        run.record("invert", "vgg", 1)
    with pytest.raises(StoreError, match="shard 7 is not done"):
        run.record("invert", "vgg", 7)


def test_a_shard_written_without_its_record_is_missing(run, monkeypatch):
    def killed(path, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "put_file", killed)
    with pytest.raises(KeyboardInterrupt):
        commit(run, 0, 1.0)
    monkeypatch.undo()
    assert run.done("invert") == {}
    commit(run, 0, 3.0)
    np.testing.assert_array_equal(run.read(run.record("invert", "vgg", 0), LOSS.path), arrays(3.0)[LOSS.path])


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    run.put_file("weights/a.bin", b"old")
    with pytest.raises(TypeError):
        run.put_file("weights/a.bin", "not bytes")  # type: ignore[arg-type]
    assert run.get_file("weights/a.bin") == b"old"
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["a.bin"]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    run = Run.create(str(tmp_path), SETTINGS)
    before = os.umask(0o022)
    run.put_file("report/a.txt", b"for the group")
    os.umask(before)
    assert (tmp_path / "report" / "a.txt").stat().st_mode & 0o777 == 0o644


def test_xarray_opens_the_arrays_without_netsim(run, url):
    commit(run, 0, 1.0)
    group = xr.open_zarr(url, group="inverted/vgg", consolidated=False)
    assert group.image.dims == ("pair", "channel", "y", "x") and group.final_loss.dims == ("pair",)
    np.testing.assert_array_equal(group.final_loss[:4], 1)
    assert np.isnan(group.final_loss[4:]).all()


NOBODY = "import os; os.setgid(65534); os.setuid(65534)" if os.geteuid() == 0 else ""
"""Permissions do not bind root."""


def test_a_store_that_is_not_writable_is_explained():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others anyway
        Path(folder).chmod(0o555)
        code = f"""
from netsim.config import parse_settings
from netsim.store import Run
settings = parse_settings({SETTINGS.model_dump(mode="json")!r})
Run.create("memory://warm", settings)  # import everything before the privileges to do so are gone
{NOBODY}
Run.create({folder + "/run"!r}, settings)
"""
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "StoreError" in found.stderr and "is not writable or not readable for this user" in found.stderr


def test_no_space_is_explained_and_the_shard_is_missing(tmp_path):
    """A limit on the size of files is a full disk for the process that has it."""
    run = Run.create(str(tmp_path / "run"), SETTINGS)
    run.create_arrays([ArraySpec("noise", (8, 4096), "float32", ("pair", "x"))])
    code = f"""
import errno, numpy as np, resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
run = Run.open({run.url!r})
run.commit("invert", "vgg", 0, arrays={{"noise": np.random.rand(4, 4096).astype("float32")}}, seconds=0)
"""
    found = subprocess.run(
        [sys.executable, "-c", "from netsim.store import Run\n" + code], capture_output=True, text=True, check=False
    )
    assert "StoreError" in found.stderr and "no space" in found.stderr, found.stderr[-800:]
    assert run.done("invert") == {}


# ---- object storage


def test_a_server_that_is_away_says_nothing_about_a_shard(object_storage, monkeypatch):
    """It is not damaged, and what was done is not to be removed. The same read works once it is back."""
    run = Run.create(f"s3://{BUCKET}/{uuid.uuid4().hex}", SETTINGS)
    run.create_arrays([LOSS, IMAGE])
    record = commit(run, 0, 1.0)
    monkeypatch.setitem(S3_CLIENT, "retries", {"mode": "standard", "max_attempts": 1})
    impatient = Run.open(run.url)
    impatient.read(record, LOSS.path)
    object_storage.kill()
    try:
        with pytest.raises(UnreachableError, match=r"s3://.* does not answer .*; the same command goes on"):
            impatient.read(record, LOSS.path)
        with pytest.raises(UnreachableError):
            impatient.done("invert")
    finally:
        object_storage.start()
    np.testing.assert_array_equal(impatient.read(record, LOSS.path), arrays(1.0)[LOSS.path])


def test_a_restart_of_the_server_is_sat_out(object_storage):
    run = Run.create(f"s3://{BUCKET}/{uuid.uuid4().hex}", SETTINGS)
    object_storage.kill()
    back = threading.Timer(3, object_storage.start)
    back.start()
    try:
        run.put_file("a.txt", b"written while the server was away")
    finally:
        back.join()
    assert run.get_file("a.txt") == b"written while the server was away"


@pytest.mark.parametrize("wrong", ["none", "secret"])
def test_credentials_that_are_missing_or_wrong_are_said_and_not_repeated(object_storage, wrong, tmp_path):
    """In a process of its own: botocore looks for credentials once."""
    secret = "not-the-secret-of-the-server"
    env = {key: value for key, value in os.environ.items() if key not in KEYS} | {"HOME": str(tmp_path)}
    if wrong == "secret":
        env |= KEYS | {"AWS_SECRET_ACCESS_KEY": secret}
    code = f"from flows.cli import main; import sys; sys.argv = ['netsim', 'status', 's3://{BUCKET}/x']; main()"
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stderr
    expected = {
        "none": "Unable to locate credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        "secret": "is not writable or not readable for this user",
    }
    assert expected[wrong] in found.stderr and len(found.stderr.splitlines()) == 1
    assert secret not in found.stderr
