"""Files: the same contract on a disk, in memory and on S3, and what is special about each."""

import errno
import fcntl
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from netsim.errors import StoreError, UnreachableError
from netsim.storage.files import Files, _zarr_store, zarr_store
from support.faulty_s3 import faulty
from support.seaweed import BUCKET

CONTENT = {"a.bin": b"0123456789", "b/c.bin": b"cc", "b/d/e.bin": b"", "b/d/f.bin": b"f"}


@pytest.fixture(params=["path", "memory", "s3"])
def url(request, tmp_path):
    """Every kind of storage: what holds for one holds for all."""
    if request.param == "path":
        return str(tmp_path / "files")
    if request.param == "s3":
        request.getfixturevalue("object_storage")
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def files(url) -> Files:
    """Files below a new folder, which hold CONTENT."""
    files = Files(url)
    files.put_all(CONTENT)
    return files


# ---- reading and writing


def test_what_is_read_is_what_was_written(files):
    assert {path: files.get(path) for path in CONTENT} == CONTENT
    assert Files(files.url).get_all(CONTENT) == CONTENT


def test_a_file_can_be_replaced_and_removed(files):
    files.put("a.bin", b"new")
    files.put_parts("b/c.bin", (part for part in (b"in ", b"parts")))
    assert (files.get("a.bin"), files.get("b/c.bin")) == (b"new", b"in parts")
    files.remove("a.bin")
    files.remove("a.bin")
    assert not files.exists("a.bin") and files.exists("b/c.bin")


def test_a_missing_file_is_missing_for_every_method(files):
    with pytest.raises(FileNotFoundError):
        files.get("x")
    with pytest.raises(FileNotFoundError):
        files.open("x")
    assert files.get_or_none("x") is None and not files.exists("x") and files.size("x") is None
    assert files.get_all(["x", "a.bin"]) == {"a.bin": CONTENT["a.bin"]}
    assert files.get_ranges([("x", 0, 1), ("a.bin", 0, 1), ("x", 3, 3)]) == [None, b"0", b""]


def test_ranges_are_slices_of_the_file(files):
    ranges = [("a.bin", start, stop) for start in range(11) for stop in range(11)]
    data = CONTENT["a.bin"]
    assert files.get_ranges(ranges) == [data[start:stop] for _, start, stop in ranges]
    assert files.get_ranges([]) == []


def test_a_new_file_is_written_once(files):
    assert files.put_new("new", b"first") and not files.put_new("new", b"second")
    assert files.get("new") == b"first"


def test_of_many_that_write_a_new_file_at_once_exactly_one_does(url):
    contents = [f"writer {number}".encode() for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda data: Files(url).put_new("new", data), contents))
    assert [data for data, done in zip(contents, written, strict=True) if done] == [Files(url).get("new")]


@pytest.mark.parametrize("jumping", [False, True])
def test_an_open_file_reads_and_seeks_as_python_does(files, jumping):
    with files.open("a.bin", jumping=jumping) as file, io.BytesIO(CONTENT["a.bin"]) as expected:
        for offset, whence, size in [
            (3, io.SEEK_SET, 2),
            (1, io.SEEK_CUR, 3),
            (-2, io.SEEK_END, 9),
            (0, io.SEEK_SET, -1),
        ]:
            assert file.seek(offset, whence) == expected.seek(offset, whence)
            assert file.read(size) == expected.read(size) and file.tell() == expected.tell()


def test_part_of_a_file_can_be_opened_as_a_file(files):
    with files.open("a.bin", start=2, size=5) as file:
        assert file.read() == b"23456" and file.seek(-1, io.SEEK_END) == 4 and file.read() == b"6"
    with files.open("a.bin", start=8, size=5) as file:
        assert file.read() == b"89"


def test_a_file_removed_while_it_is_read_is_missing(files):
    with files.open("a.bin") as file:
        files.remove("a.bin")
        with pytest.raises(FileNotFoundError):
            file.read()


# ---- listing


def test_a_folder_lists_its_files_and_folders(files):
    assert files.names() == ["a.bin", "b"] and files.names("b") == ["c.bin", "d"]
    assert files.folders() == ["b"] and files.folders("b") == ["d"] and files.folders("b/d") == []
    assert files.is_folder()


def test_a_missing_folder_lists_nothing(files):
    assert files.names("x") == files.folders("x") == []
    assert files.sizes("x", depth=3) == files.modification_times("x") == {}
    assert not Files(f"{files.url}/x").is_folder()


def test_sizes_are_those_of_the_files_down_to_a_depth(files):
    every = {path: len(data) for path, data in CONTENT.items()}
    assert files.sizes(depth=3) == every
    assert files.sizes(depth=2) == {path: size for path, size in every.items() if path.count("/") < 2}
    assert files.sizes("b", depth=1) == {"c.bin": 2}
    assert [files.size(path) for path in ("a.bin", "b/d/e.bin", "b")] == [10, 0, None]


def test_modification_times_are_those_of_all_files_below(files):
    assert files.modification_times("b").keys() == {"c.bin", "d/e.bin", "d/f.bin"}


def test_a_file_that_is_written_again_has_a_later_time(tmp_path):
    files = Files(tmp_path)
    files.put("x/a", b"old")
    os.utime(tmp_path / "x" / "a", (1000.0, 1000.0))
    assert files.modification_times("x") == {"a": 1000.0}
    files.put("x/a", b"new")
    assert files.modification_times("x")["a"] > 1000.0


# ---- names of places


def test_a_url_of_an_unknown_kind_is_refused():
    with pytest.raises(StoreError, match=r"^cannot open nonsense://x: "):
        Files("nonsense://x")


def test_the_place_of_a_file_can_be_opened_by_hand(tmp_path):
    Files(tmp_path).put("a/b.txt", b"text")
    assert Path(Files(f"file://{tmp_path}").place("a/b.txt")).read_bytes() == b"text"
    assert Files("memory://x").place("a/b.txt") == "memory://x/a/b.txt"


def test_an_error_proposes_to_change_the_setting_that_named_the_place(tmp_path, monkeypatch):
    def denied(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    files = Files(tmp_path, setting="images.source")
    monkeypatch.setattr(files._fs, "cat_file", denied)
    with pytest.raises(StoreError, match=f"^no permission to read or write {tmp_path} .*; use another images.source$"):
        files.get("x")


# ---- a local disk


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    files = Files(tmp_path)
    files.put("weights/a.bin", b"old")
    with pytest.raises(TypeError):
        files.put("weights/a.bin", "not bytes")  # type: ignore[arg-type]
    assert files.get("weights/a.bin") == b"old"
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["a.bin"]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o022)
    Files(tmp_path).put("report/a.txt", b"for the group")
    os.umask(before)
    assert (tmp_path / "report" / "a.txt").stat().st_mode & 0o777 == 0o644


# Answers of folders that cannot be flushed, and of file systems without hard links: shared folders of virtual machines,
# CIFS, FAT, kAFS, FUSE, NFS (524 is ENOTSUPP, which Python has no name for).
LACKING = [errno.EINVAL, errno.EACCES, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EMLINK, 524]

FAILING = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS]


def failing(number: int) -> Any:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def fsync_of_folders(number: int) -> Any:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            failing(number)()
        real(descriptor)

    return fsync


@pytest.mark.parametrize("number", LACKING)
def test_a_file_is_written_where_folders_cannot_be_flushed(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", fsync_of_folders(number))
    files = Files(tmp_path)
    files.put("x/a", b"a")
    assert files.put_new("x/b", b"b") and not files.put_new("x/b", b"c")
    assert files.get_all(["x/a", "x/b"]) == {"x/a": b"a", "x/b": b"b"}


@pytest.mark.parametrize("number", FAILING)
def test_a_disk_that_fails_to_flush_a_folder_is_an_error(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", fsync_of_folders(number))
    with pytest.raises(StoreError):
        Files(tmp_path).put("a", b"a")


@pytest.mark.parametrize("number", [*LACKING, *FAILING])
def test_a_file_that_cannot_be_flushed_is_an_error_everywhere(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(StoreError):
        Files(tmp_path).put("a", b"a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", LACKING)
def test_without_hard_links_exactly_one_of_many_writes_a_new_file(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "link", failing(number))
    for name in map(str, range(20)):
        contents = [f"writer {number}".encode() for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            written = list(pool.map(lambda data, name=name: Files(tmp_path).put_new(name, data), contents))
        assert [data for data, done in zip(contents, written, strict=True) if done] == [Files(tmp_path).get(name)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(20)))


def test_without_hard_links_a_writer_that_dies_leaves_no_lock_and_no_part_of_the_file(tmp_path):
    """The writer dies after its data is on the disk, before the file has its name, with the folder locked."""
    code = f"""
import os, signal
os.link = lambda *_: (_ for _ in ()).throw(OSError(22, "Invalid argument"))
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from netsim.storage.files import Files
Files({str(tmp_path)!r}).put_new("a", b"half")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "a").exists()
    assert Files(tmp_path).put_new("a", b"whole") and Files(tmp_path).get("a") == b"whole"


@pytest.mark.parametrize("number", FAILING)
def test_a_disk_that_fails_to_name_a_file_is_an_error(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "link", failing(number))
    with pytest.raises(StoreError):
        Files(tmp_path).put_new("a", b"a")
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_written_where_neither_links_nor_locks_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EINVAL))
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    files = Files(tmp_path)
    assert files.put_new("a", b"a") and not files.put_new("a", b"b") and files.get("a") == b"a"


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"abc")
    (tmp_path / "data" / "itself").symlink_to(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "nowhere").symlink_to(tmp_path / "missing")
    files = Files(tmp_path)
    assert files.sizes("link", depth=5) == {"a": 3, "nowhere": -1}
    assert files.modification_times("link").keys() == {"a"}


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path, monkeypatch):
    def denied(path: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    files = Files(tmp_path)
    files.put("a/b", b"")
    monkeypatch.setattr(os, "scandir", denied)
    for listing in (
        lambda: files.modification_times("a"),
        lambda: files.sizes("a", depth=2),
        lambda: files.folders("a"),
    ):
        with pytest.raises(StoreError, match="no permission to read or write"):
            listing()


def test_files_of_a_local_folder_need_no_s3_client_and_no_zarr():
    code = "import sys, netsim.storage.files as f; f.Files('.').names(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"botocore", "aiobotocore", "s3fs", "zarr", "numpy", "torch"} & set(done.stdout.split())


# ---- Zarr


def test_zarr_sees_the_same_files(files):
    pytest.importorskip("zarr")
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    buffer = sync(zarr_store(files.url).get("b/c.bin", default_buffer_prototype()))
    assert buffer.to_bytes() == CONTENT["b/c.bin"]


def test_the_zarr_store_is_made_once_for_the_same_credentials(tmp_path, monkeypatch):
    store = zarr_store(str(tmp_path))
    assert zarr_store(str(tmp_path)) is store
    monkeypatch.setenv("AWS_PROFILE", "another")
    assert zarr_store(str(tmp_path)) is not store
    _zarr_store.cache_clear()


# ---- object storage


def test_a_folder_whose_first_file_comes_while_it_is_listed_holds_that_file_or_nothing(object_storage, monkeypatch):
    files = Files(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    files.put("zarr.json", b"{}")
    list_objects = S3FileSystem._lsdir

    async def written_just_after(self: S3FileSystem, path: str, **options: Any) -> Any:
        listed = await list_objects(self, path, **options)
        await self._pipe_file(f"{path.rstrip('/')}/invert/vgg/00000.json", b"{}")
        return listed

    with monkeypatch.context() as patch:
        patch.setattr(S3FileSystem, "_lsdir", written_just_after)
        assert files.modification_times("commits") == {}
    assert list(files.modification_times("commits")) == ["invert/vgg/00000.json"]


def conditional_put(answer: Any) -> Any:
    return lambda method, headers: answer if method == "PUT" and "if-none-match" in headers else None


@pytest.mark.parametrize(
    "answer",
    [
        (400, "InvalidArgument", "A header you provided implies functionality that is not implemented"),
        (403, "AccessDenied", "Access Denied"),
        (405, "MethodNotAllowed", "The specified method is not allowed"),
        (501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
    ],
)
def test_a_new_file_is_written_by_a_plain_put_where_the_server_takes_no_conditional_one(object_storage, answer):
    with faulty(object_storage.endpoint) as proxy:
        files = Files(f"s3://{BUCKET}/{uuid.uuid4().hex}")
        proxy.fault = conditional_put(answer)
        assert files.put_new("a", b"1") and not files.put_new("a", b"2") and files.get("a") == b"1"


def test_a_conflict_of_two_writers_is_resolved_by_trying_again(object_storage):
    conflict = (409, "ConditionalRequestConflict", "The conditional request cannot succeed")
    answers = iter([conflict, None, conflict, conflict])
    with faulty(object_storage.endpoint) as proxy:
        files = Files(f"s3://{BUCKET}/{uuid.uuid4().hex}")
        proxy.fault = lambda method, headers: next(answers, None) if "if-none-match" in headers else None
        assert files.put_new("a", b"1") and files.put_new("c", b"2") and files.names() == ["a", "c"]
        proxy.fault = conditional_put(conflict)
        with pytest.raises(
            UnreachableError, match=r"server error from .*ConditionalRequestConflict.* again to resume$"
        ):
            files.put_new("b", b"1")
        assert not files.exists("b")


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredToken"])
def test_an_answer_that_denies_every_put_is_reported_and_nothing_is_written(object_storage, code):
    """Not taken for a server without conditional PUTs."""
    with faulty(object_storage.endpoint) as proxy:
        files = Files(f"s3://{BUCKET}/{uuid.uuid4().hex}")
        proxy.fault = lambda method, headers: (403, code, "no") if method == "PUT" else None
        with pytest.raises(StoreError, match={"AccessDenied": "no permission", "ExpiredToken": "have expired"}[code]):
            files.put_new("a", b"1")
        proxy.fault = lambda method, headers: None
        assert files.names() == []


def test_the_advice_on_checksums_helps(object_storage, monkeypatch):
    def refused(method: str, headers: Any) -> Any:
        sent = [name for name in headers if name.startswith(("x-amz-checksum", "x-amz-sdk-checksum"))]
        return (501, "NotImplemented", "A header you provided is not implemented") if method == "PUT" and sent else None

    with faulty(object_storage.endpoint) as proxy:
        proxy.fault = refused
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        with pytest.raises(StoreError, match=r"set AWS_REQUEST_CHECKSUM_CALCULATION=when_required$"):
            Files(url).put_new("a", b"1")
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        assert Files(url).put_new("a", b"1") and Files(url).get("a") == b"1"


def test_a_bucket_that_does_not_exist_is_an_error_and_not_an_empty_folder(object_storage):
    files = Files(f"s3://{BUCKET}-missing/x")
    for read in (
        lambda: files.names(),
        lambda: files.get("a"),
        lambda: files.exists("a"),
        lambda: files.get_all(["a"]),
    ):
        with pytest.raises(StoreError, match=r"there is no such bucket; create it, or use another --store$"):
            read()


def test_a_restart_of_the_server_is_waited_for(object_storage):
    files = Files(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    object_storage.kill()
    back = threading.Timer(3, object_storage.start)
    back.start()
    try:
        files.put("a.txt", b"written while the server was away")
    finally:
        back.join()
    assert files.get("a.txt") == b"written while the server was away"
