"""Paths, URLs and references of any spelling: each means what the system means by it, or is refused by name."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from urllib.parse import unquote

import fsspec
import pytest
from fsspec.registry import known_implementations
from hypothesis import assume
from hypothesis import strategies as st

from netsim.errors import NetsimError, SettingsError, StoreError
from netsim.images import load_images
from netsim.networks.load import load_network, parse_reference
from netsim.networks.network import Network
from netsim.networks.weights import content_hash, weights_to_bytes
from netsim.references import NETWORK_FORMS, network_name, without_name
from netsim.storage.files import Files
from netsim.storage.places import parse_place
from netsim.store.run import Run
from support.fuzz import files_below, inputs, new_folder, outcome
from support.sweeps import new_run, tiny

PARTS = (
    *(
        "a",
        "b c",
        "x::y",
        "a:b",
        "C:",
        "*",
        "?",
        "[b]",
        "{a,b}",
        "$HOME",
        "%20",
        "%2F",
        "#",
        "a#b",
        "a?b=c",
        "é",
        "e\u0301",
    ),
    *("~", "..", "..", ".", "...", "-", "--store", "a=b", "a@b", "link", "s3:", "con", "\\", "a\\b", "'", '"'),
    *("\n", "\x1b[2J", "\udcff", "\u2028", "\u202e", "x" * 200, "x" * 300, "s3.zip", "a.tar", "zip:", "|", "&", "!"),
)
STARTS = (
    "",
    "",
    "",
    "./",
    "~/",
    "WORK/",
    "WORK//",
    "file://WORK/",
    "FILE://WORK/",
    "file://localhostWORK/",
    "file:WORK/",
)
REFUSED_STARTS = (
    "~nobody/",
    "C:/",
    "C:\\",
    "s3:/",
    "zip://a::",
    "file://",
    "file://hostWORK/",
    "a::file://WORK/",
    "x://::",
)


@contextmanager
def sandbox() -> Iterator[Path]:
    """Work in a folder, deep enough for `..`, that has a link to one above; the home is as deep."""
    with new_folder() as root, pytest.MonkeyPatch.context() as patch:
        work, home = root / "1/2/3/4/5/6", root / "a/b/c/d/home"
        work.mkdir(parents=True)
        home.mkdir(parents=True)
        (work / "link").symlink_to(work.parent)
        patch.setenv("HOME", str(home))
        with chdir(work):
            yield root


def by_system(text: str) -> str | None:
    """Return the path that a person means by a text, for the system to open; None if there is none."""
    url = re.match("(?i)(file|local):(//)?(localhost)?(?=/)", text)
    path = unquote(text[url.end() :], errors="surrogateescape") if url else text
    if any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in text + path):
        return None
    scheme = re.match("([A-Za-z0-9+.-]*):[/\\\\]", text)
    if "://" in text and not re.match("(?i)(file|local)://", text):
        return None  # what looks like a URL is never a path
    if not url and scheme and (len(scheme[1]) == 1 or scheme[1].lower() in known_implementations):
        return None
    if not url and path.startswith("~"):
        path = os.path.expanduser(path)
        return None if path.startswith("~") else path
    return path


def is_elsewhere(text: str) -> bool:
    """Return True for a path that leads out of the sandbox, where nothing is to be written."""
    path = by_system(text)
    return path is not None and not os.path.realpath(path).startswith(tempfile.gettempdir())


@inputs(
    250,
    start=st.sampled_from([*STARTS * 2, *REFUSED_STARTS]),
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4),
    end=st.sampled_from(["", "", "/", "//", "/."]),
)
def test_a_path_is_the_folder_that_the_system_means_or_refused(start: str, parts: list[str], end: str) -> None:
    with sandbox() as root:
        text = start.replace("WORK", os.getcwd()) + "/".join(parts) + end
        assume(not is_elsewhere(text))
        path, before = by_system(text), files_below(root)
        written = outcome(
            lambda: Files(text).put("new.txt", b"new"),
            text,
            text.rstrip("/"),
            os.path.realpath(path or "."),
            os.path.abspath(path or "."),
            "credentials",
        )
        after = files_below(root)
        too_long = any(len(part) > 255 for part in os.path.realpath(path or ".").split("/"))
        assert isinstance(written, StoreError) == (path is None or too_long), (written, path)
        if isinstance(written, StoreError):
            assert after == before
        else:
            assert Path(os.path.realpath(path), "new.txt").read_bytes() == b"new" and len(after) == 1
            assert parse_place(text).url == parse_place(parse_place(text).url).url


@inputs(100, folder=st.sampled_from(PARTS), names=st.lists(st.sampled_from(PARTS), min_size=1, max_size=3, unique=True))
def test_files_of_any_name_are_read_and_listed_as_the_system_does(folder: str, names: list[str]) -> None:
    names = [name for name in names if name not in (".", "..") and len(name) < 250]
    with new_folder() as root:
        for k, name in enumerate(names):
            (root / "files" / f"f{folder[:200]}").mkdir(parents=True, exist_ok=True)
            (root / "files" / f"f{folder[:200]}" / name).write_bytes(b"%d" % k)
        paths = sorted(files_below(root / "files"))
        files = Files(root / "files")
        assert files.sizes(depth=2) == dict.fromkeys(paths, 1) and sorted(files.modification_times("")) == paths
        assert files.get_all(paths) == files_below(root / "files")
        assert files.get_ranges([(path, 0, 9) for path in paths]) == [files.get(path) for path in paths]
        for path in paths:
            assert files.exists(path) and files.size(path) == 1 and files.open(path).read() == files.get(path)
            assert not outcome(lambda path=path: files.put_new(path, b"x"), path)
            files.put(path, b"again")
        assert set(files_below(root / "files").values()) <= {b"again"} and len(files_below(root)) == len(paths)
        for path in paths:
            files.remove(path)
        assert files_below(root) == {}


SCHEMES = (
    "s3",
    "S3",
    "s3a",
    "gs",
    "memory",
    "http",
    "https",
    "ftp",
    "x",
    "zip",
    "hdfs",
    "file",
    "",
    "s3+x",
    "1a",
    "a_b",
)
HOSTS = (
    "bucket",
    "my.bucket",
    "b",
    "-b",
    "B",
    "key:secret@bucket",
    "user@host",
    "host:80",
    "[::1]:9000",
    "",
    "é",
    "a b",
    "*",
)
TAILS = (
    "a",
    "a b",
    "a::b",
    "*",
    "#f",
    "?versionId=1",
    "?x=1",
    "%20",
    "..",
    ".",
    "",
    "é",
    "\n",
    "\udcff",
    "x" * 300,
    "s3://b",
)


@inputs(
    200,
    scheme=st.sampled_from(SCHEMES),
    host=st.sampled_from(HOSTS),
    parts=st.lists(st.sampled_from(TAILS), max_size=3),
)
def test_a_url_has_one_spelling_or_is_refused(scheme: str, host: str, parts: list[str]) -> None:
    url = "/".join([f"{scheme}://{host}", *parts])
    place = outcome(lambda: parse_place(url), url, "credentials", f"{scheme}:", "s3:", scheme.lower())
    if isinstance(place, NetsimError):
        assert isinstance(place, StoreError) and "secret" not in str(place)
        return
    again = parse_place(place.url)
    assert (again.url, again.scheme) == (place.url, place.scheme) == (parse_place(f"{url}/").url, place.scheme)
    if not place.local:
        kept = url.rstrip("/").partition("://")[2]
        assert place.url.partition("://")[2] == kept and "@" not in host.partition(":")[2]
    split = outcome(place.split, place.url)
    assert isinstance(split, StoreError) or f"{split[0]}/{split[1]}".lstrip("/") == place.url.lstrip("/")


@inputs(100, parts=st.lists(st.sampled_from([part for part in PARTS if part.isprintable()]), min_size=1, max_size=3))
def test_objects_of_any_name_are_read_and_listed_as_they_are_called(parts: list[str]) -> None:
    """In memory, which is an object storage to the code above it."""
    place = outcome(lambda: Files(f"memory://{'/'.join(['store', *parts])}"), "memory://store")
    if isinstance(place, NetsimError):
        assert {".", ".."} & set(parts)
        return
    memory = fsspec.filesystem("memory")
    try:
        place.put("x/y", b"data")
        assert [key.strip("/") for key in memory.store] == ["/".join(["store", *parts, "x/y"])]
        assert place.get("x/y") == b"data"
        assert place.names() == ["x"] and place.sizes(depth=3) == {"x/y": 4} and place.folders() == ["x"]
    finally:
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]


@inputs(30, parts=st.lists(st.sampled_from(PARTS[:-10]), min_size=1, max_size=2))
def test_a_store_is_in_the_folder_that_its_name_means(parts: list[str]) -> None:
    with sandbox() as root:
        text = "./" + "/".join(parts)
        place = os.path.realpath(text)
        is_taken = os.path.isdir(place) and bool(os.listdir(place))
        run = outcome(lambda: new_run(text, tiny()), text, place)
        if isinstance(run, NetsimError):
            assert by_system(text) is None or is_taken
            return
        assert Path(place, "zarr.json").is_file()
        assert Run.open(place).settings == run.settings == tiny()
        written = {os.path.relpath(os.path.join(os.path.realpath(root), path), place) for path in files_below(root)}
        assert {path.partition("/")[0] for path in written} == {"zarr.json", "networks", "sweeps"}


# ---- references

WORDS = (
    *(
        "small",
        "python",
        "torchvision",
        "robust",
        "robustness",
        "timm",
        "folder",
        "npz",
        "tar",
        "hf",
        "cifar10",
        "imagenet",
    ),
    *(
        "vgg",
        "resnet18",
        "resnet50_l2_eps3",
        "cifar",
        "none",
        "nets",
        "fashion-mnist",
        "IMAGENET1K_V1",
        "missing.safetensors",
    ),
    *("@a=b.safetensors", "small:vgg", "robustness:cifar:"),
    *(
        ":",
        ":",
        ":",
        "::",
        "@",
        "@",
        "=",
        "/",
        "..",
        " ",
        "",
        "x",
        "A",
        "-",
        ".",
        "?",
        "?label=x",
        "{0..3}",
        "{",
        "*",
        "~",
        "s3://",
    ),
    *("\n", "\x1b[2J", "\udcff", "é", "x" * 300, "\0", "'", '"', "%", "#", "http://[", "file:"),
)
_known = st.builds(
    "{}:{}{}".format,
    st.sampled_from(["small", "torchvision", "python"]),
    st.sampled_from(["vgg", "resnet18", "lab.nets:mine", "a:b:c"]),
    st.sampled_from(["", "@none", "@a=b", "@a@b.safetensors", "@s3://bucket/w=1:2", "@IMAGENET1K_V1", "@x:y"]),
)
_references = st.one_of(st.lists(st.sampled_from(WORDS), max_size=6).map("".join), st.text(max_size=10), _known)


@inputs(200, reference=_references)
def test_a_reference_of_a_network_is_split_or_refused(reference: str) -> None:
    assume(not reference.startswith("timm:"))  # it takes seconds to import
    parsed = outcome(lambda: parse_reference(reference), reference, reference.partition(":")[0])
    if isinstance(parsed, NetsimError):
        assert isinstance(parsed, SettingsError)
        return
    assert parsed.source in NETWORK_FORMS and reference.startswith(f"{parsed.source}:{parsed.name}")
    assert reference == f"{parsed.source}:{parsed.name}" + (f"@{parsed.weights}" if parsed.weights else "")
    assert without_name(f"mine={reference}") == reference and network_name(f"mine={reference}") == "mine"
    assert without_name(reference) == reference and network_name(reference) == parsed.architecture


@inputs(150, reference=_references, split=st.sampled_from(["test", "train"]), size=st.sampled_from([None, 1, 8, 0, -1]))
def test_a_reference_of_images_is_opened_or_refused(reference: str, split: str, size: int | None) -> None:
    assume("s3://" not in reference and "http" not in reference)  # which nobody would answer
    images = outcome(
        lambda: load_images(reference, split, size),
        reference,
        re.sub("/+", "/", reference.partition(":")[2]).rstrip("/"),
        "size",
        "images.source",
    )
    assert isinstance(images, NetsimError) or reference == "fashion-mnist"


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network("small:vgg@none", rng_seed=1)


@inputs(40, parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=2), exists=st.booleans())
def test_weights_are_read_from_the_file_that_the_reference_names(
    network: Network, parts: list[str], exists: bool
) -> None:
    with sandbox():
        path = "./" + "/".join(parts) + "/w.safetensors"
        if exists and "link" not in parts and all(len(part) < 256 for part in parts):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(path).write_bytes(weights_to_bytes(network))
        loaded = outcome(lambda: load_network(f"small:vgg@{path}"), path, os.path.realpath(path))
        if isinstance(loaded, Network):
            assert os.path.exists(path) and content_hash(loaded) == content_hash(network)
        else:
            assert not os.path.exists(path) or by_system(path) is None
