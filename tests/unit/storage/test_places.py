"""Places: a local path means itself, a URL has one spelling, and what can name no place is refused."""

import os
import uuid
from pathlib import Path

import pytest

from netsim.errors import StoreError
from netsim.storage.files import Files, zarr_store
from netsim.storage.places import parse_place, read_file
from support.seaweed import BUCKET

LITERAL = [
    "run::1", "zip::inner", "a*b", "what?", "[ab]", "{a,b}", "$HOME", "${HOME}", "#1", "a%20b", "-x", " a ", "a:b:c",
    "a~", "-", "b\\c", "über", "s3:bucket", "file:x", "50%", "a;b&c", "'q'", 'd"q',
]  # fmt: skip
"""Names of folders in which one library or another reads more than a name."""


def place(name: str | os.PathLike[str]) -> str:
    return parse_place(name).url


# ---- local paths


@pytest.mark.parametrize("name", LITERAL)
def test_a_local_path_means_itself(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place(name) == place(Path(name)) == place(f"{tmp_path}/{name}") == f"{tmp_path}/{name}"


@pytest.mark.parametrize("name", LITERAL)
def test_files_lie_in_the_folder_that_was_named_and_beside_it_is_nothing(name, tmp_path):
    files = Files(f"{tmp_path}/{name}")
    files.put("x/a", b"1")
    files.put_all({"x/b": b"2"})
    assert files.put_new("c", b"3")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert files.names() == ["c", "x"] and files.sizes(depth=2) == {"c": 1, "x/a": 1, "x/b": 1}
    assert files.get_all(["x/a", "x/b"]) == {"x/a": b"1", "x/b": b"2"} and files.size("c") == 1
    assert read_file(f"{tmp_path}/{name}/x/a", setting="x") == b"1"
    assert Path(zarr_store(files.url).root) == tmp_path / name


@pytest.mark.parametrize("name", LITERAL)
def test_files_with_such_names_are_read_and_written_as_they_are_called(name, tmp_path):
    files = Files(tmp_path)
    files.put(name, b"0123")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert files.get(name) == b"0123" and files.get_ranges([(name, 1, 3)]) == [b"12"] and files.names() == [name]
    files.remove(name)
    assert not files.exists(name)


def test_local_paths_are_absolute_and_have_no_dots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place("a/../b/") == place("./b") == place(Path("b")) == f"{tmp_path}/b"
    assert place("/") == place("//") == place("/..") == "/" and place("//data//x/.") == "/data/x"


def test_the_parent_of_a_link_is_that_of_the_folder_it_leads_to(tmp_path):
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inner")
    assert place(f"{tmp_path}/link/../x") == f"{tmp_path}/real/x" == os.path.realpath(f"{tmp_path}/link/../x")
    assert place(f"{tmp_path}/link/x") == f"{tmp_path}/link/x"


def test_the_root_of_a_disk_is_not_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "only-here").mkdir()
    assert Files("/").names() == sorted(os.listdir("/")) and Files("/").is_folder()
    assert parse_place("/archive.npz").split() == ("/", "archive.npz")


def test_a_tilde_at_the_beginning_is_a_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert place("~/runs") == "/home/me/runs" and place("~") == "/home/me"
    assert place("./~/runs") == f"{tmp_path}/~/runs"
    with pytest.raises(StoreError, match=r"^--store must begin with a known home, got ~nobody-here/x; write .*\./~nob"):
        place("~nobody-here/x")


def test_a_file_url_is_a_path_with_its_escapes_decoded(tmp_path):
    for url in (f"file://{tmp_path}/a%20b", f"file://localhost{tmp_path}/a%20b/", f"file:{tmp_path}/a b"):
        assert place(url) == f"{tmp_path}/a b"
    assert place("FILE:///a#b?c") == "/a#b?c"
    for url in ("file://data/x", "file://x"):
        with pytest.raises(StoreError, match=r"must be an absolute path after file://, got file://"):
            place(url)


def test_a_working_directory_that_was_removed_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StoreError, match=r"^the working directory was removed"):
        place("x")
    assert place("/x") == "/x"


# ---- URLs


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("s3://bucket/sweep/", "s3://bucket/sweep"),
        ("S3://bucket/sweep", "s3://bucket/sweep"),
        ("s3a://bucket/sweep", "s3://bucket/sweep"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket//", "s3://bucket"),
        ("s3://bucket/a::b/c*[d]#e %20", "s3://bucket/a::b/c*[d]#e %20"),
        ("s3://arn:aws:s3:eu-west-1:1:accesspoint/mine/x", "s3://arn:aws:s3:eu-west-1:1:accesspoint/mine/x"),
        ("memory://x/y//", "memory://x/y"),
        ("https://host/a//b/../c?sig=x%2F", "https://host/a//b/../c?sig=x%2F"),
    ],
)
def test_a_url_has_one_spelling(name, url):
    assert place(name) == place(url) == url


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("s3://bucket//two/slashes", "s3://bucket/two/slashes"),
        ("s3://bucket/a//b", "s3://bucket/a/b"),
        ("s3://bucket/a/../b", "s3://bucket/b"),
        ("s3://bucket/../b", "s3://bucket/b"),
        ("s3://bucket/./b", "s3://bucket/b"),
        ("s3://bucket/..", "s3://bucket"),
        ("memory://x//y", "memory://x/y"),
    ],
)
def test_a_key_that_servers_and_clients_read_differently_is_refused(name, better):
    with pytest.raises(StoreError, match=r"must be a URL without empty parts, '\.' and '\.\.', got") as caught:
        place(name)
    assert str(caught.value).endswith(f"write {better}") and place(better) == better


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"^images.source must be a path or a URL, got ''; write a path, as in runs/demo$"),
        (None, r"must be a path or a URL, got None"),
        (3, r"must be a path or a URL, got 3"),
        (b"x", r"must be a path or a URL, got b'x'"),
        ("runs/demo\n", r"must not contain control characters, got 'runs/demo\\n'"),
        ("a\0b", r"must not contain control characters"),
        ("caf\udce9", r"must be valid UTF-8, got 'caf\\udce9'"),
        ("file:///caf%E9", r"must be valid UTF-8"),
        ("file:///a%00", r"must not contain control characters"),
        ("s3:/bucket/x", r"got s3:/bucket/x; write s3://bucket/x, or ./s3:/bucket/x for a folder of that name$"),
        (Path("s3://bucket/x"), r"got s3:/bucket/x; write s3://bucket/x"),
        ("C:\\data", r"must be a path of this system, got C:\\data; under WSL, C: is /mnt/c$"),
        ("c:/data", r"must be a path of this system"),
        ("simplecache::s3://bucket/x", r"must be one path or one URL, got simplecache::s3://bucket/x; netsim opens no"),
        ("zip://x", r"netsim opens no chains of URLs$"),
        ("zip://a.npz::s3://bucket/x.zip", r"netsim opens no chains of URLs$"),
        ("s3://", r"^s3:// must name a valid bucket; write s3://bucket/sweep$"),
        ("s3:///sweep", r"^s3:///sweep must name a valid bucket"),
        ("s3://my bucket/sweep", r"must name a valid bucket"),
        ("s3://buck[et/sweep", r"must name a valid bucket"),
        ("s3://bucket?x/y", r"must name a valid bucket"),
        ("s3://bucket/x?versionId=3", r"must not select a version, got .*; write s3://bucket/x$"),
        ("memory://", r"must name something after memory://"),
    ],
)
def test_what_can_name_no_place_is_refused(name, message):
    with pytest.raises(StoreError, match=message):
        parse_place(name, setting="images.source")


def test_a_url_of_an_unknown_kind_is_refused():
    with pytest.raises(StoreError, match=r"^cannot open nonsense://x: "):
        parse_place("nonsense://x").open()


@pytest.mark.parametrize(
    "url",
    [
        *("s3://AKIAEXAMPLE:secret@bucket/run", "s3://AKIA@bucket", "https://me:secret@host/x", "x://me:secret@host"),
        *("zip://a::s3://AKIA:secret@bucket/x.zip", "simplecache::https://AKIA:secret@host/x", "zip://AKIA:secret@b"),
        *(
            "s3:/AKIA:secret@bucket",
            "s3://AKIA:secret@bucket/\n",
            "s3://AKIA:secret@bucket/\udcff",
            "file://AKIA:secret@b/x",
        ),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    with pytest.raises(StoreError, match="the URL must not contain credentials; use AWS_") as caught:
        place(url)
    assert "secret" not in str(caught.value) and "AKIA" not in str(caught.value)


@pytest.mark.parametrize("name", ["s3:/a:b@c", "a:b@c", "x/s3:/a:b@c", "file:/a:b@c", "file:///a:b@c"])
def test_an_at_in_a_path_is_no_credential(name, tmp_path):
    text = name if name.startswith("file:") else f"{tmp_path}/{name}"
    assert place(text) == (f"/{name.rpartition('/')[2]}" if name.startswith("file:") else text)


def test_a_file_is_split_from_its_folder():
    assert parse_place("a.npz").split() == (os.getcwd(), "a.npz")
    assert parse_place("s3://bucket/a.npz").split() == ("s3://bucket", "a.npz")
    with pytest.raises(StoreError, match=r"must name a file, got s3://a.npz; write s3://a.npz/FILE"):
        parse_place("s3://a.npz").split()


def test_keys_mean_themselves_in_a_bucket(object_storage):
    files = Files(f"s3://{BUCKET}/{uuid.uuid4().hex}/a::b*[c]#?d %20")
    files.put("x::y/a", b"1")
    files.put_all({"b": b"2"})
    assert Files(files.url).get_all(["x::y/a", "b"]) == {"x::y/a": b"1", "b": b"2"}
    assert files.sizes(depth=2) == {"x::y/a": 1, "b": 1} and files.names() == ["b", "x::y"]
    assert read_file(files.place("b"), setting="x") == b"2"
    with pytest.raises(FileNotFoundError):
        read_file(files.place("missing"), setting="x")


def test_a_bucket_itself_can_be_a_place(object_storage):
    files = Files(f"s3://{BUCKET}")
    name = uuid.uuid4().hex
    files.put(name, b"1")
    assert name in files.names() and files.get(name) == b"1" and files.place(name) == f"s3://{BUCKET}/{name}"


def test_zarr_reads_the_same_place_of_a_url(object_storage):
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    for url in (f"s3://{BUCKET}/{uuid.uuid4().hex}/a::b", f"memory://{uuid.uuid4().hex}"):
        Files(url).put("x", b"1")
        assert sync(zarr_store(url).get("x", default_buffer_prototype())).to_bytes() == b"1"
