"""Files below one place, a path or any URL that fsspec knows, with one clear error for whatever goes wrong there."""

import errno
import io
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from stat import S_ISLNK
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem
from zarr.storage import FsspecStore, LocalStore

from netsim.errors import StoreError
from netsim.storage.s3 import BUCKET, _chain, _options, _require_authority, translate_errors


class Files:
    """Files by their path below `url`. Every method raises StoreError, or UnreachableError for no answer.

    A file is written whole or not at all, and is on the disk, or answered for by the object storage, when a method
    that writes it returns. `setting` is what names the place: errors say to give another.
    """

    def __init__(self, url: str | os.PathLike[str], *, setting: str = "--store") -> None:
        self.url = normalise(url)
        self._setting = setting
        _require_authority(self.url)
        try:
            self._fs, root = fsspec.core.url_to_fs(self.url, **_options(self.url))
        except (ValueError, ImportError) as error:
            raise StoreError(f"{self.url} is no place netsim can reach: {error}") from None
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def place(self, path: str) -> str:
        """Where a file is, as a user would open it."""
        return f"{self._root}/{path}" if self._local else f"{self.url}/{path}"

    # ---- what is there

    def exists(self, path: str) -> bool:
        """Whether a file is there, which must be a small one: reading it is the one request that surely tells."""
        return self.find(path) is not None

    def below(self, folder: str) -> dict[str, float]:
        """Path below the folder -> when it was written, in seconds since 1970. Lists; opens nothing."""
        prefix = f"{self._root}/{folder}/"
        with self._explained():
            if self._local:  # fsspec would pass over a folder that can't be listed
                return {path: info.st_mtime for path, info in _scan(prefix, "") if not S_ISLNK(info.st_mode)}
            self._fs.invalidate_cache()
            entries = self._fs.find(prefix, detail=True)
        # s3fs finds nothing, asks for the folder itself, and lists that if its first file has come in between
        below = {path: info for path, info in entries.items() if path.startswith(prefix)}
        return {path.removeprefix(prefix): _modified(info) for path, info in below.items()}

    def names(self, folder: str = "") -> list[str]:
        """The names of files and folders in a folder; none if it is not there."""
        root = f"{self._root}/{folder}".rstrip("/")
        with self._explained(missing_is_fine=True), suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            paths = {entry.rstrip("/") for entry in self._fs.ls(root, detail=False)}
            return sorted(path.rpartition("/")[2] for path in paths - {root})  # an empty one of S3 holds itself
        return []

    def get(self, path: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError too."""
        with self._explained(missing_is_fine=True):
            return self._fs.cat_file(f"{self._root}/{path}")

    def find(self, path: str) -> bytes | None:
        """A file's bytes, or None if it is not there."""
        try:
            return self.get(path)
        except FileNotFoundError:
            return None

    def get_all(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The bytes of those files that are there, asked for at the same time where storage is far away."""
        paths = list(paths)
        found = zip(paths, self._fetch(paths, None, None), strict=True)
        return {path: data for path, data in found if data is not None}

    def sizes(self, folder: str = "", *, depth: int) -> dict[str, int]:
        """Path below the folder -> bytes, of files at most so many folders deep; none if the folder is not there.

        Links are followed; what a link leads to nowhere has no bytes.
        """
        root = f"{self._root}/{folder}".rstrip("/")
        with self._explained():
            if self._local:
                scanned = _scan(root, "", depth)
                return {path: 0 if S_ISLNK(info.st_mode) else info.st_size for path, info in scanned}
            self._fs.invalidate_cache()
            entries = self._fs.find(root, detail=True)
        below = {path.removeprefix(f"{root}/"): info["size"] for path, info in entries.items() if path != root}
        return {path: size for path, size in below.items() if path.count("/") < depth and not path.endswith("/")}

    def folders(self, folder: str = "") -> list[str]:
        """The names of the folders in a folder; none if it is not there."""
        root = f"{self._root}/{folder}".rstrip("/")
        with self._explained(missing_is_fine=True), suppress(FileNotFoundError, NotADirectoryError):
            if self._local:
                return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
            self._fs.invalidate_cache()
            entries = self._fs.ls(root, detail=True)
            found = {info["name"].rstrip("/") for info in entries if info["type"] == "directory"}
            return sorted(path.rpartition("/")[2] for path in found - {root})
        return []

    def is_folder(self) -> bool:
        """Whether the place itself is a folder: in object storage, one with anything in it."""
        return os.path.isdir(self._root) if self._local else bool(self.names())

    def size(self, path: str) -> int | None:
        """Bytes of a file, or None if there is no such file."""
        with self._explained(missing_is_fine=True), suppress(FileNotFoundError):
            info = self._fs.info(f"{self._root}/{path}".rstrip("/"))
            return info["size"] if info["type"] == "file" else None
        return None

    def get_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """The bytes (path, from, to), which must lie in their files, asked for at the same time where storage is far
        away; None where a file is not there.
        """
        asked = [at for at in ranges if at[1] < at[2]]  # there is no way to ask for nothing
        paths, starts, stops = ([at[part] for at in asked] for part in range(3))
        have = dict(zip(asked, self._fetch(paths, starts, stops), strict=True))
        return [b"" if start >= stop else have[path, start, stop] for path, start, stop in ranges]

    def _fetch(self, paths: list[Any], starts: list[Any] | None, stops: list[Any] | None) -> list[bytes | None]:
        """Files, or parts of them, asked for at the same time where storage is far; None where one is not there."""
        with self._explained():
            found = self._fs.cat_ranges([f"{self._root}/{path}" for path in paths], starts, stops, on_error="return")
            for data in found:
                if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                    raise data
        return [data if isinstance(data, bytes) else None for data in found]

    def open(self, path: str, *, start: int = 0, size: int | None = None, jumping: bool = False) -> io.BufferedReader:
        """A file, or `size` bytes of it from `start` on, to read and seek in. Raises FileNotFoundError too.

        Much is asked of object storage at a time, unless the reader is `jumping`.
        """
        whole = self.size(path)
        if whole is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place(path))
        stop = whole if size is None else min(whole, start + size)
        block = LOCAL_BLOCK if self._local else REMOTE_JUMP if jumping else REMOTE_BLOCK
        return io.BufferedReader(_Window(self, path, start, stop), block)

    # ---- writing

    def put(self, path: str, data: bytes) -> None:
        """Write a file, in the place of an older one."""
        self.put_parts(path, [data])

    def put_parts(self, path: str, parts: Iterable[bytes]) -> None:
        """The same of a file in parts, one behind the other. On a disk each is written before the next is asked for."""
        with self._explained():
            if self._local:
                self._write(path, parts, os.replace)
            else:  # an object appears only when it is complete
                self._fs.pipe_file(f"{self._root}/{path}", b"".join(parts))

    def put_new(self, path: str, data: bytes) -> bool:
        """Write a file that is never written again: if it is there already, it stays as it is. Whether it was not."""
        with self._explained():
            return self._write(path, [data], _link) if self._local else self._create(path, data)

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write files at the same time where storage is far away."""
        if self._local:
            for path, data in files.items():
                self.put(path, data)
        elif files:
            with self._explained():
                self._fs.pipe({f"{self._root}/{path}": data for path, data in files.items()})

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with self._explained(), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{path}")

    def _explained(self, *, missing_is_fine: bool = False) -> AbstractContextManager[None]:
        return translate_errors(self.url, missing_is_fine=missing_is_fine, setting=self._setting)

    def _write(self, path: str, parts: Iterable[bytes], put_in_place: Any) -> Any:
        target = Path(self._root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = f"{target}.{uuid.uuid4().hex}.partial"  # not a tempfile, which only its owner could read
        try:
            with open(partial, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            done = put_in_place(partial, target)
            _sync(target.parent)
            return done
        finally:
            Path(partial).unlink(missing_ok=True)

    def _create(self, path: str, data: bytes) -> bool:
        """By a conditional PUT (If-None-Match), where the server knows it. Whether it was not there."""
        target = f"{self._root}/{path}"
        try:
            self._fs.pipe_file(target, data, mode="create")
        except OSError as error:
            if error.errno == errno.ENOSYS:  # 501: the server has no conditional PUT
                self._fs.pipe_file(target, data)
            elif self.exists(path):  # 412: it is there; 409: another is just writing it
                return False
            else:
                raise
        return True


LOCAL_BLOCK, REMOTE_JUMP, REMOTE_BLOCK = 2**15, 2**16, 2**23
"""Bytes that are read at a time. Object storage takes as long for the first byte as for the next megabyte."""


class _Window(io.RawIOBase):
    """Part of a file, for libraries that read files."""

    def __init__(self, files: Files, path: str, start: int, stop: int) -> None:
        self._files, self._path, self._start, self._stop = files, path, start, stop
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stop - self._start}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        begin = self._start + self._at
        (data,) = self._files.get_ranges([(self._path, begin, min(begin + len(buffer), self._stop))])
        if data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._files.place(self._path))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _scan(
    root: str, prefix: str, depth: int = 100, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, os.stat_result]]:
    """What is in a folder and is no folder, by its path; nothing if the folder is not there.

    Links are followed, but not back to a folder that they are in. One that leads to nowhere comes as the link it is.
    """
    try:
        here = os.stat(root)
        entries = list(os.scandir(root))
    except (FileNotFoundError, NotADirectoryError):
        return
    me = here.st_dev, here.st_ino
    for entry in entries if me not in above else ():
        if not entry.is_dir():
            with suppress(FileNotFoundError):  # it was there a moment ago
                yield f"{prefix}{entry.name}", _stat(entry)
        elif depth > 1:
            yield from _scan(entry.path, f"{prefix}{entry.name}/", depth - 1, above | {me})


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except FileNotFoundError:
        return entry.stat(follow_symlinks=False)


def _link(partial: str, target: Path) -> bool:
    """Give a file its name, unless that is taken. Whether it was not."""
    try:
        os.link(partial, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.replace(partial, target)
    return True


NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system says that has no hard links."""


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _modified(info: Mapping[str, Any]) -> float:
    when = info.get("mtime", info.get("LastModified", info.get("created", 0.0)))
    return when.timestamp() if isinstance(when, datetime) else float(when)


def normalise(url: str | os.PathLike[str]) -> str:
    """A local path as an absolute one, so that every worker means the same place; a URL without a last slash.

    Raises StoreError for nothing at all, and for a URL with credentials in it: it would be shown in logs, in the
    Prefect UI and in the store.
    """
    if not isinstance(url, str | os.PathLike) or not os.fspath(url):
        raise StoreError(f"{url!r} is no place for a run; give a path or a URL, as in runs/demo")
    url = str(os.fspath(url))
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreError(f"{url} is no URL: {error}") from None
    if parts.password or (parts.username and parts.scheme == "s3"):
        raise StoreError("the URL holds credentials; give them by AWS_* variables or a profile instead")
    if parts.scheme == "s3" and not BUCKET.fullmatch(parts.netloc):
        raise StoreError(f"{url} names no bucket that S3 could have; give one, as in s3://bucket/sweep")
    if "://" in url and not url.startswith("file://"):
        return url.rstrip("/")
    return os.path.abspath(Path(url.removeprefix("file://")).expanduser())


def zarr_store(url: str) -> LocalStore | FsspecStore:
    """The same place for Zarr. One for as long as credentials stay: its S3 client complains when it is thrown away."""
    return _zarr_store(url, _chain())


@cache
def _zarr_store(url: str, _chain: frozenset[tuple[str, str]]) -> LocalStore | FsspecStore:
    return FsspecStore.from_url(url, storage_options=_options(url)) if "://" in url else LocalStore(url)
