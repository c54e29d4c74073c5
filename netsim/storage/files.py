"""Files below a folder or any URL that fsspec knows, with one clear error for whatever goes wrong there."""

import errno
import fcntl
import io
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from shlex import quote
from stat import S_ISLNK
from typing import Any

from netsim.errors import StoreError
from netsim.storage.places import parse_place
from netsim.storage.s3 import aws_environment, http_status, is_missing, translate_errors

# Bytes per read: of a local file, and of an object with random and with sequential access. Object storage takes as long
# for the first byte as for the next megabyte.
_LOCAL_BLOCK, _RANDOM_BLOCK, _SEQUENTIAL_BLOCK = 2**15, 2**16, 2**23

# Error numbers of a disk that fails, is full, or lost the folder. With any other, a file system lacks the function: the
# numbers of folders that cannot be flushed and of missing hard links differ between shared folders, CIFS, FAT and FUSE.
_FAILED = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.ESTALE)

# Error numbers of a link that leads nowhere: to a missing file, below a file, or back to itself.
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

# HTTP status of servers that take no conditional PUT, and of a conflict of two clients, with the waits, in seconds,
# before the next attempt.
_UNCONDITIONAL = (400, 403, 405, 501)
_CONFLICT, _CONFLICT_WAITS = 409, (0.1, 0.2, 0.4, 0.8, 1.6)


def _file_hint(setting: str, path: str) -> str:
    """Say how to run what is probably a settings file, where a run was expected."""
    if setting != "--store" or not path.endswith((".yaml", ".yml")):
        return ""
    name = os.path.basename(path)
    return f". Settings are run with `netsim run {quote(name)}`; the run is in runs/{os.path.splitext(name)[0]}"


class Files:
    """Files by their path below `url`.

    A file is written completely or not at all: when a method that writes returns, the data is on the disk or
    acknowledged by the object storage. Methods that read several files or ranges request them concurrently from object
    storage.

    Parameters
    ----------
    url
        Folder, or any URL that fsspec knows.
    setting
        The option or setting that `url` was given by: error messages propose to change it.

    Raises
    ------
    StoreError
        If `url` names no place or a file; from every method, for any other error of the storage.
    UnreachableError
        From every method, if the storage does not answer after all retries.

    Attributes
    ----------
    url
        Absolute path, or URL without final slash.
    local
        True for a folder on a disk.
    """

    def __init__(self, url: str | os.PathLike[str], *, setting: str = "--store") -> None:
        place = parse_place(url, setting=setting)
        self.url = place.url
        self.local = place.local
        self._setting = setting
        self._fs, root = place.open()
        self._root = root.rstrip("/")
        if self.local and os.path.isfile(self._root):
            raise StoreError(f"{setting} must be a folder, got the file {self.url}{_file_hint(setting, self.url)}")

    def place(self, path: str) -> str:
        """Return the full path or URL of a file."""
        return f"{self._root}/{path}" if self.local else f"{self.url}/{path}"

    def _folder(self, path: str) -> str:
        """Return the path of a folder in the file system."""
        return f"{self._root}/{path}".rstrip("/") or "/"

    # ---- listing

    def exists(self, path: str) -> bool:
        """Return True if a file exists. Reads all of it, the only single request with a reliable answer."""
        return self.get_or_none(path) is not None

    def is_folder(self) -> bool:
        """Return True if `url` itself is a folder; in object storage, a prefix with any object below it."""
        return os.path.isdir(self._folder("")) if self.local else bool(self.names())

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files and folders in a folder; empty if it does not exist."""
        root = self._folder(folder)
        with suppress(FileNotFoundError), self._translated_errors(missing_ok=True):
            self._fs.invalidate_cache()
            paths = {entry.rstrip("/") for entry in self._fs.ls(root, detail=False)}
            return sorted(path.rpartition("/")[2] for path in paths - {root})  # an empty folder of S3 lists itself
        return []

    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders in a folder; empty if it does not exist."""
        root = self._folder(folder)
        with suppress(FileNotFoundError), self._translated_errors(missing_ok=True), suppress(NotADirectoryError):
            if self.local:
                return sorted(entry.name for entry in os.scandir(root) if _is_folder(entry))
            self._fs.invalidate_cache()
            entries = self._fs.ls(root, detail=True)
            paths = {info["name"].rstrip("/") for info in entries if info["type"] == "directory"}
            return sorted(path.rpartition("/")[2] for path in paths - {root})
        return []

    def modification_times(self, folder: str) -> dict[str, float]:
        """Return path below the folder -> seconds since 1970, for all files at any depth, without opening any."""
        prefix = f"{self._root}/{folder}/"
        with self._translated_errors():
            if self.local:  # fsspec would silently skip folders that cannot be listed
                return {path: info.st_mtime for path, info in _scan(prefix, "") if not S_ISLNK(info.st_mode)}
            self._fs.invalidate_cache()
            entries = self._fs.find(prefix, detail=True)
        # s3fs first lists nothing, then requests the folder itself, and lists it if a file was written in between
        below = {path: info for path, info in entries.items() if path.startswith(prefix)}
        return {path.removeprefix(prefix): _modified(info) for path, info in below.items()}

    def sizes(self, folder: str = "", *, depth: int) -> dict[str, int]:
        """Return path below the folder -> bytes, of files at most `depth` levels deep; empty without such a folder.

        Links are followed; the size of a link that leads nowhere is -1.
        """
        root = self._folder(folder)
        with self._translated_errors():
            if self.local:
                scanned = _scan(root, "", depth)
                return {path: -1 if S_ISLNK(info.st_mode) else info.st_size for path, info in scanned}
            self._fs.invalidate_cache()
            entries = self._fs.find(root, detail=True)
        below = {path.removeprefix(f"{root}/"): info["size"] for path, info in entries.items() if path != root}
        return {path: size for path, size in below.items() if path.count("/") < depth and not path.endswith("/")}

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes, or None if there is no such file."""
        with suppress(FileNotFoundError), self._translated_errors(missing_ok=True):
            info = self._fs.info(self._folder(path))
            return info["size"] if info["type"] == "file" else None
        return None

    # ---- reading

    def get(self, path: str) -> bytes:
        """Return the bytes of a file; raise FileNotFoundError if it does not exist."""
        with self._translated_errors(missing_ok=True):
            return self._fs.cat_file(f"{self._root}/{path}")

    def get_or_none(self, path: str) -> bytes | None:
        """Return the bytes of a file, or None if it does not exist."""
        try:
            return self.get(path)
        except FileNotFoundError:
            return None

    def get_all(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of those files that exist, by path."""
        paths = list(paths)
        contents = zip(paths, self._fetch(paths, None, None), strict=True)
        return {path: data for path, data in contents if data is not None}

    def get_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Return the bytes of ranges (path, start, stop) within files, in order; None where a file does not exist."""
        requested = [part for part in ranges if part[1] < part[2]]  # an empty range cannot be requested
        paths, starts, stops = ([part[field] for part in requested] for field in range(3))
        contents = dict(zip(requested, self._fetch(paths, starts, stops), strict=True))
        return [b"" if start >= stop else contents[path, start, stop] for path, start, stop in ranges]

    def open(self, path: str, *, start: int = 0, size: int | None = None, jumping: bool = False) -> io.BufferedReader:
        """Open a file for reading and seeking.

        Parameters
        ----------
        path
            Path of the file.
        start, size
            The part of the file to show, in bytes; by default all of it.
        jumping
            Request little at a time from object storage, for readers that jump from place to place.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        """
        file_size = self.size(path)
        if file_size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place(path))
        stop = file_size if size is None else min(file_size, start + size)
        block = _LOCAL_BLOCK if self.local else _RANDOM_BLOCK if jumping else _SEQUENTIAL_BLOCK
        return io.BufferedReader(_Window(self, path, start, stop), block)

    def _fetch(self, paths: list[Any], starts: list[Any] | None, stops: list[Any] | None) -> list[bytes | None]:
        """Return files, or ranges of them; None where a file does not exist."""
        with self._translated_errors():
            if self.local and starts is None:  # a store has tens of thousands, and fsspec takes longer than the disk
                return [_contents(f"{self._root}/{path}") for path in paths]
            contents = self._fs.cat_ranges([f"{self._root}/{path}" for path in paths], starts, stops, on_error="return")
            for data in contents:
                if isinstance(data, Exception) and not is_missing(data):
                    raise data
        return [data if isinstance(data, bytes) else None for data in contents]

    # ---- writing

    def put(self, path: str, data: bytes) -> None:
        """Write a file, replacing an existing one."""
        self.put_parts(path, [data])

    def put_parts(self, path: str, parts: Iterable[bytes]) -> None:
        """Write a file from consecutive parts. A local disk receives each part before the next is taken."""
        with self._translated_errors():
            if self.local:
                self._write(path, parts, os.replace)
            else:  # an object appears only when it is complete
                self._fs.pipe_file(f"{self._root}/{path}", b"".join(parts))

    def put_new(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists; return True if it was written."""
        with self._translated_errors():
            return self._write(path, [data], _create) if self.local else self._create(path, data)

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write files, concurrently to object storage."""
        if self.local:
            for path, data in files.items():
                self.put(path, data)
        elif files:
            with self._translated_errors():
                self._fs.pipe({f"{self._root}/{path}": data for path, data in files.items()})

    def remove(self, path: str) -> None:
        """Remove a file if it exists."""
        with self._translated_errors(), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{path}")

    def _write(self, path: str, parts: Iterable[bytes], put_in_place: Callable[[str, Path], Any]) -> Any:
        """Write a temporary file beside a local file, then have `put_in_place` give it its name."""
        target = Path(self._root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = f"{target}.{uuid.uuid4().hex}.partial"  # not by tempfile, whose files only their owner can read
        try:
            with open(partial, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            result = put_in_place(partial, target)
            _sync(target.parent)
            return result
        finally:
            Path(partial).unlink(missing_ok=True)

    def _create(self, path: str, data: bytes) -> bool:
        """Create an object by a conditional PUT (If-None-Match), or a plain one where the server has none."""
        target = f"{self._root}/{path}"
        waits = iter(_CONFLICT_WAITS)
        while True:
            try:
                self._fs.pipe_file(target, data, mode="create")
                return True
            except OSError as error:
                if self.exists(path):  # 412: it exists; 409: another client has written it
                    return False
                status = http_status(error)
                if status in _UNCONDITIONAL:
                    self._fs.pipe_file(target, data)  # fails likewise if the condition was not the reason
                    return True
                wait = next(waits, None)
                if status != _CONFLICT or wait is None:
                    raise
                time.sleep(wait)

    def _translated_errors(self, *, missing_ok: bool = False) -> AbstractContextManager[None]:
        return translate_errors(self.url, missing_ok=missing_ok, setting=self._setting)


class _Window(io.RawIOBase):
    """Part of a file, as a file object for libraries."""

    def __init__(self, files: Files, path: str, start: int, stop: int) -> None:
        self._files, self._path, self._start, self._stop = files, path, start, stop
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stop - self._start}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        start = self._start + self._position
        (data,) = self._files.get_ranges([(self._path, start, min(start + len(buffer), self._stop))])
        if data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._files.place(self._path))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def zarr_store(url: str) -> Any:
    """Return the Zarr store at a normalised URL: a LocalStore or an FsspecStore.

    It is cached as long as the credentials in the environment stay the same, because its S3 client logs an error when
    it is garbage-collected. Zarr takes 0.1 s to import, so it is imported here.
    """
    return _zarr_store(url, aws_environment())


@cache
def _zarr_store(url: str, _environment: frozenset[tuple[str, str]]) -> Any:
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from zarr.storage import FsspecStore, LocalStore

    place = parse_place(url)
    if place.local:
        return LocalStore(url)
    filesystem, root = place.open(asynchronous=True)
    if not filesystem.async_impl:
        filesystem = AsyncFileSystemWrapper(filesystem, asynchronous=True)
    return FsspecStore(filesystem, path=root)


def _scan(
    root: str, prefix: str, depth: int = 100, parents: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path below a folder and the status of everything in it that is not a folder; nothing if it is missing.

    Links are followed, except back to a folder that contains them. One that leads nowhere is yielded as the link it is.
    """
    try:
        status = os.stat(root)
        entries = list(os.scandir(root))
    except (FileNotFoundError, NotADirectoryError):
        return
    folder = status.st_dev, status.st_ino
    for entry in entries if folder not in parents else ():
        if not _is_folder(entry):
            with suppress(FileNotFoundError):  # removed since it was listed
                yield f"{prefix}{entry.name}", _stat(entry)
        elif depth > 1:
            yield from _scan(entry.path, f"{prefix}{entry.name}/", depth - 1, parents | {folder})


def _contents(path: str) -> bytes | None:
    """Return the bytes of a local file, or None if it does not exist."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError:
        return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return True for a folder and a link to one."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return False


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    """Return the status of the file that a link leads to, or that of a link itself that leads nowhere."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return entry.stat(follow_symlinks=False)


def _create(partial: str, target: Path) -> bool:
    """Give a complete file its name unless that exists; return True if it did not."""
    try:
        os.link(partial, target)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _FAILED:
            raise
    with _locked(target.parent):
        if target.exists():
            return False
        os.replace(partial, target)
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, if it has one. The kernel releases that of a process that dies."""
    with ExitStack() as stack:
        with suppress(OSError):  # without a lock, two that create a file within microseconds both do
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _sync(folder: Path) -> None:
    """Flush a folder to the disk, where its file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _FAILED:
            raise


def _modified(info: Mapping[str, Any]) -> float:
    """Return the modification time that an fsspec listing gives, in seconds since 1970."""
    when = info.get("mtime", info.get("LastModified", info.get("created", 0.0)))
    return when.timestamp() if isinstance(when, datetime) else float(when)
