"""Places: which folder or object a path or URL names. Whatever opens one comes here, so that all mean the same.

A name that begins with a scheme and `://` is a URL. Every other name is a local path and means itself, character by
character: `::`, `*`, `$`, `#`, `%20` and colons are part of it. Only `~` at its beginning stands for a home directory.
"""

import os
import posixpath
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations

from netsim.errors import StoreError
from netsim.storage.s3 import BUCKET, require_certificates, storage_options, translate_errors

# A URL: its scheme, and the rest.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)")

# What is left of a URL when a library takes it for a path and collapses its slashes; `file:/path` is a valid URL.
_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)")

# A name and a secret in a URL, or in one whose slashes a library has collapsed.
_CREDENTIALS = re.compile(r"(://|^[A-Za-z][A-Za-z0-9+.-]+:/)[^/]*:[^/]*@")

# The beginning of a path on Windows.
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")

# Schemes of local paths, and second names of other schemes: one place has one name.
_LOCAL = ("file", "local")
_SYNONYMS = {"s3a": "s3", "gcs": "gs"}

# Schemes whose servers may tell `a//b` and `a/../b` from `a/b`, and whose queries may hold slashes.
_WEB = ("http", "https")

# Schemes of fsspec that read through another file system, which a chain of URLs names.
_WRAPPERS = ("zip", "tar", "libarchive", "simplecache", "filecache", "blockcache", "cached", "reference", "dir")


@dataclass(frozen=True)
class Place:
    """A folder or a file: on a disk, or at a URL.

    Attributes
    ----------
    url
        Absolute local path, or URL without final slash. Equal places have equal URLs.
    scheme
        Scheme of the URL in lower case; empty for a local path.
    setting
        The option or setting that named the place, for error messages.
    """

    url: str
    scheme: str
    setting: str

    @property
    def local(self) -> bool:
        """True for a path on a disk."""
        return not self.scheme

    def split(self) -> tuple[str, str]:
        """Split the place of a file into its folder and its name.

        Raises
        ------
        StoreError
            If the URL has nothing behind its host or bucket.
        """
        folder, _, name = self.url.rpartition("/")
        if not self.local and folder.endswith("/"):
            raise StoreError(f"{self.setting} must name a file, got {self.url}; write {self.url}/FILE")
        return folder or "/", name

    def open(self, **options: Any) -> tuple[Any, str]:
        """Return the fsspec file system of the place, and the path of the place in it.

        Parameters
        ----------
        options
            Further options of the file system.

        Raises
        ------
        StoreError
            If there is no such kind of file system, or it cannot be set up.
        """
        if self.local:
            return LocalFileSystem(**options), self.url
        require_certificates(self.url)
        try:
            kind = fsspec.get_filesystem_class(self.scheme)
            own_options = kind._get_kwargs_from_urls(self.url)
            return kind(**own_options, **storage_options(self.url), **options), kind._strip_protocol(self.url)
        except Exception as error:  # every kind of storage has errors of its own
            raise StoreError(f"cannot open {self.url}: {error}") from error


def parse_place(name: str | os.PathLike[str], *, setting: str = "--store") -> Place:
    """Return the place that a path or URL names.

    Parameters
    ----------
    name
        Path or URL; a `PathLike` is a local path.
    setting
        The option or setting that the name was given by, for error messages.

    Raises
    ------
    StoreError
        For what can name no place or more than one: nothing, control characters, a URL with credentials, which would
        appear in logs and in the Prefect UI, a URL without a host or with empty parts, and a chain of URLs.

    Examples
    --------
    >>> parse_place("s3://bucket/sweep/").url
    's3://bucket/sweep'
    >>> parse_place("/data/run::1").url
    '/data/run::1'
    """
    text = _text(name, setting)
    match = _URL.fullmatch(text)
    if match is None:
        return Place(_local_path(text, setting), "", setting)
    scheme, rest = _SYNONYMS.get(match[1].lower(), match[1].lower()), match[2]
    if scheme in _WRAPPERS:
        raise _chain(text, setting)
    if scheme in _LOCAL:
        return Place(_path_of_file_url(text, rest, setting), "", setting)
    return Place(_remote_url(scheme, rest, setting), scheme, setting)


def read_file(name: str | os.PathLike[str], *, setting: str) -> bytes:
    """Return the bytes of one file; raise FileNotFoundError if it does not exist, StoreError for every other error."""
    place = parse_place(name, setting=setting)
    filesystem, path = place.open()
    with translate_errors(place.url, missing_ok=True, setting=setting):
        return bytes(filesystem.cat_file(path))


def _text(name: object, setting: str) -> str:
    """Return a name as text that every file system, log and form can hold."""
    text = os.fspath(name) if isinstance(name, str | os.PathLike) else None
    if isinstance(text, str) and "://" in text and _CREDENTIALS.search(text):
        raise _credentials()  # before any other message repeats them
    if not isinstance(text, str) or not text:
        raise StoreError(f"{setting} must be a path or a URL, got {name!r}; write a path, as in runs/demo")
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise StoreError(f"{setting} must not contain control characters, got {text!r}; rename it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StoreError(f"{setting} must be valid UTF-8, got {text!r}; rename it") from None
    return text


def _chain(text: str, setting: str) -> StoreError:
    return StoreError(f"{setting} must be one path or one URL, got {text}; netsim opens no chains of URLs")


def _credentials() -> StoreError:
    return StoreError("the URL must not contain credentials; use AWS_* variables or a profile instead")


# ---- local paths


def _local_path(text: str, setting: str) -> str:
    """Return a local path as an absolute path, so that every worker means the same one."""
    if "://" in text:
        raise _chain(text, setting)
    if os.name != "nt" and _DRIVE.match(text):
        raise StoreError(f"{setting} must be a path of this system, got {text}; under WSL, C: is /mnt/c")
    match = _ONE_SLASH.fullmatch(text)
    if match and match[1].lower() in _LOCAL:
        return _path_of_file_url(text, f"/{match[2]}", setting)
    if match and match[1].lower() in known_implementations and _CREDENTIALS.match(text):
        raise _credentials()
    if match and match[1].lower() in known_implementations:
        raise StoreError(
            f"{setting} must be a path, or a URL with two slashes, got {text}; "
            f"write {match[1]}://{match[2]}, or ./{text} for a folder of that name"
        )
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise StoreError(f"{setting} must begin with a known home, got {text}; write the path in full, or ./{text}")
    return _absolute(expanded, setting)


def _absolute(path: str, setting: str) -> str:
    """Return an absolute path without `.` and `..`; `link/..` is the parent of where the link leads."""
    try:
        parts = (path if os.path.isabs(path) else f"{os.getcwd()}/{path}").split("/")
    except FileNotFoundError:
        raise StoreError(f"the working directory was removed; change to another, or write {setting} in full") from None
    last = max((index for index, part in enumerate(parts) if part == ".."), default=-1)
    head = [os.path.realpath("/".join(parts[: last + 1]))] if last >= 0 else []
    return os.path.abspath("/" + "/".join([*head, *parts[last + 1 :]]).lstrip("/"))


def _path_of_file_url(url: str, rest: str, setting: str) -> str:
    """Return the path in a `file:` URL, which is percent-encoded."""
    host, slash, path = rest.partition("/")
    if not slash or host not in ("", "localhost"):
        raise StoreError(f"{setting} must be an absolute path after file://, got {url}; write file:///{rest}")
    return _absolute(_text(unquote(f"/{path}", errors="surrogateescape"), setting), setting)


# ---- URLs


def _remote_url(scheme: str, rest: str, setting: str) -> str:
    """Return the URL in its one spelling."""
    host, _, path = rest.rstrip("/").partition("/")
    url = f"{scheme}://{rest}".rstrip("/")
    user, at, _ = host.rpartition("@")
    if at and (":" in user or scheme == "s3"):
        raise _credentials()
    if scheme == "s3" and not BUCKET.fullmatch(host):
        raise StoreError(f"s3://{rest} must name a valid bucket; write s3://bucket/sweep")
    if not host:
        raise StoreError(f"{setting} must name something after {scheme}://, got {scheme}://{rest}")
    if scheme in _WEB:
        return url
    if scheme == "s3" and "?versionId=" in path:
        raise StoreError(f"{setting} must not select a version, got {url}; write {url.partition('?')[0]}")
    if path and not {"", ".", ".."}.isdisjoint(path.split("/")):
        better = posixpath.normpath("/" + path.lstrip("/")).rstrip("/")
        raise StoreError(
            f"{setting} must be a URL without empty parts, '.' and '..', got {url}; write {scheme}://{host}{better}"
        )
    return url
