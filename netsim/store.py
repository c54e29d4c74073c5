"""The store of one run: Zarr arrays, and the commit records that say which shards are done.

    <url>/zarr.json                              attributes: format, digest, settings, created, versions
    <url>/<group>/<array>                        per-pair arrays: one Zarr shard = one shard of pairs
    <url>/weights/<network>.safetensors          networks trained here
    <url>/commits/<stage>/<name>/<shard>.json    written last; the only memory of progress

A shard is done when its record is there, and only then. The record holds a sha256 of every array written, because Zarr
reads a missing chunk and an empty shard object silently as the fill value; `read` compares. One writer owns a whole
shard: two writers inside one Zarr shard lose data. Works on a path or any fsspec URL.
"""

import errno
import hashlib
import json
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any, Self
from urllib.parse import urlsplit

import fsspec
import numpy as np
import zarr
from botocore.exceptions import (
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)
from fsspec.implementations.local import LocalFileSystem
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import FsspecStore, LocalStore

from netsim.config import SweepSettings, parse_settings
from netsim.errors import SettingsError, StoreError, UnreachableError

FORMAT = 2
"""Version of the layout. A store of another version is refused, never guessed at."""

CODECS = (ZstdCodec(level=3), Crc32cCodec())  # zstd alone lets a flipped byte through


@dataclass(frozen=True)
class ArraySpec:
    """An array to create: `dims[0] == "pair"` makes it per-pair, cut into shards; any other array is written whole."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]

    @property
    def per_pair(self) -> bool:
        return self.dims[0] == "pair"


@dataclass(frozen=True)
class Record:
    """The proof that a shard is done: what was written, from what, by what, and how long it took."""

    stage: str
    name: str
    shard: int
    digest: str
    sha256: dict[str, str]  # array or file path -> sha256 of its values' bytes in C order
    facts: dict[str, Any]
    seconds: float
    committed: str  # UTC, ISO 8601
    versions: dict[str, str] = field(default_factory=dict)


class Run:
    """One run in its store. Make it with `create` (new, or the same settings again) or `open`."""

    def __init__(self, url: str, settings: SweepSettings, attributes: Mapping[str, Any]) -> None:
        self.url = normalise(url)
        self.settings = settings
        self.attributes = dict(attributes)
        self.digest = settings.digest()
        self._fs, self._root = _filesystem(self.url)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._opened: dict[tuple[str, bool], zarr.Array] = {}  # opening one costs as much as reading a shard of losses

    @classmethod
    def create(cls, url: str, settings: SweepSettings) -> Self:
        """The run of these settings at `url`: opened if it is there, made if nothing is.

        Raises StoreError if another run, another format or other files are there, or it can't be written.
        """
        url = normalise(url)
        fs, root = _filesystem(url)
        with explained(url):
            if cls.exists(url):
                run = cls.open(url)
                run._require(settings)
                return run
            if fs.exists(root) and any(not name.endswith(".partial") for name in fs.ls(root, detail=False)):
                raise StoreError(f"{url} is not empty and holds no run; give an empty or a new place with --store")
            attributes: dict[str, Any] = {
                "format": FORMAT,
                "digest": settings.digest(),
                "settings": settings.model_dump(mode="json"),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": versions(),
            }
            try:
                zarr.open_group(zarr_store(url), mode="w-", zarr_format=3, attributes={"netsim": attributes})
            except zarr.errors.ContainsGroupError:  # another process was faster
                return cls.create(url, settings)
        return cls(url, settings, attributes)

    @staticmethod
    def exists(url: str) -> bool:
        """Whether something that may be a run is at `url`."""
        fs, root = _filesystem(normalise(url))
        with explained(url):
            return bool(fs.exists(f"{root}/zarr.json"))

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> Self:
        """The run stored at `url`. Raises StoreError if there is none, or its format is not ours."""
        url = normalise(url)
        _filesystem(url)  # a kind of URL that is not known is said as such
        with explained(url):
            try:
                group = zarr.open_group(zarr_store(url), mode="r", zarr_format=3)
            except (FileNotFoundError, zarr.errors.GroupNotFoundError):
                raise StoreError(
                    f"no run at {url}; `netsim run SETTINGS.yaml --store {quote(url)}` makes one"
                ) from None
            except (ValueError, TypeError, KeyError) as error:
                raise StoreError(f"{url}/zarr.json is damaged ({error}); restore it, or use another store") from None
        attributes: Any = group.attrs.asdict().get("netsim")
        if not isinstance(attributes, dict):
            raise StoreError(f"{url} is a Zarr group, but not a netsim run")
        if attributes.get("format") != FORMAT:
            raise StoreError(
                f"{url} has format {attributes.get('format')!r}; this netsim reads format {FORMAT}. "
                f"Use the netsim that made it ({attributes.get('versions', {}).get('netsim', '?')}), or another store"
            )
        try:
            settings = parse_settings(attributes["settings"], origin=url)
        except SettingsError as error:
            raise StoreError(f"the settings stored at {url} are not this netsim's: {error}") from None
        if settings.digest() != attributes.get("digest"):
            raise StoreError(
                f"{url} was made by another version of the algorithm, or its settings were edited; use another store"
            )
        return cls(url, settings, attributes)

    def _require(self, settings: SweepSettings) -> None:
        if settings.digest() == self.digest:
            return
        here, asked = flatten(self.settings.model_dump(mode="json")), flatten(settings.model_dump(mode="json"))
        changed = [key for key in {**here, **asked} if here.get(key) != asked.get(key)]
        shown = ", ".join(f"{key} is {here.get(key)!r} there and {asked.get(key)!r} here" for key in changed[:2])
        more = f" ({len(changed) - 2} more differ)" if len(changed) > 2 else ""
        raise StoreError(f"{self.url} holds a run with other settings: {shown}{more}; give another --store")

    # ---- what is done

    def done(self, stage: str) -> dict[tuple[str, int], float]:
        """(name, shard) -> time of its commit, in seconds since 1970. One listing; no record is opened."""
        prefix = f"{self._root}/commits/{stage}"
        with explained(self.url):
            self._fs.invalidate_cache()
            entries = self._fs.find(prefix, detail=True) if self._fs.exists(prefix) else {}
        found = {}
        for path, info in entries.items():
            name, _, file = path.removeprefix(f"{prefix}/").rpartition("/")
            if RECORD_FILE.fullmatch(file):  # a sync tool's "00000 (copy).json" proves nothing
                found[name, int(file.removesuffix(".json"))] = _modified(info)
        return found

    def stages_done(self) -> list[str]:
        """The stages that have a commit record, by name."""
        prefix = f"{self._root}/commits"
        with explained(self.url):
            self._fs.invalidate_cache()
            entries = self._fs.ls(prefix, detail=False) if self._fs.exists(prefix) else []
        return sorted(entry.rstrip("/").rpartition("/")[2] for entry in entries)

    def forget(self, stage: str, name: str, shard: int) -> None:
        """Remove a shard's commit record: the next run computes it again. Its values stay until they are replaced."""
        self.remove_file(_commit_path(stage, name, shard))

    def is_done(self, stage: str, name: str, shard: int) -> bool:
        with explained(self.url):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(f"{self._root}/{_commit_path(stage, name, shard)}"))

    def record(self, stage: str, name: str, shard: int = 0) -> Record:
        """The commit record of a shard. Raises StoreError if the shard is not done, or the record is another run's."""
        path = _commit_path(stage, name, shard)
        try:
            data = self.get_file(path)
        except FileNotFoundError:
            raise StoreError(f"{stage} {name} shard {shard} is not done in {self.url}") from None
        try:
            record = Record(**json.loads(data))
        except (ValueError, TypeError):  # not UTF-8, not JSON, not a record
            raise StoreError(f"the commit record {path} in {self.url} is damaged; remove it and run again") from None
        if record.digest != self.digest:
            raise StoreError(f"the commit record {path} in {self.url} belongs to another run ({record.digest})")
        return record

    # ---- arrays

    def create_arrays(self, specs: list[ArraySpec]) -> None:
        """Create the arrays that are not there yet. Done once, before work fans out."""
        with explained(self.url):
            group = self._group(writable=True)
            for spec in specs:
                try:
                    there = spec.path in group
                except (ValueError, KeyError, TypeError) as error:
                    document = self.place(f"{spec.path}/zarr.json")
                    raise StoreError(f"{document} is damaged ({error}); remove it, and run again") from error
                if not there:
                    self._create(group, spec)

    def _create(self, group: zarr.Group, spec: ArraySpec) -> None:
        shard = (self.settings.pairs.shard_size, *spec.shape[1:]) if spec.per_pair else spec.shape
        chunk = (min(8, shard[0]), *shard[1:]) if spec.per_pair and len(spec.shape) == 4 else shard
        if shard[0] % chunk[0]:
            chunk = shard
        kind = np.dtype(spec.dtype).kind
        group.create_array(
            spec.path,
            shape=spec.shape,
            shards=shard,
            chunks=chunk,
            dtype=spec.dtype,
            compressors=CODECS,
            fill_value=float("nan") if kind == "f" else 0,
            dimension_names=spec.dims,
        )

    def is_array(self, path: str) -> bool:
        """Whether a path that a record covers is an array; else it is a file."""
        with explained(self.url):
            return bool(self._fs.exists(f"{self._root}/{path}/zarr.json"))

    def array(self, path: str) -> zarr.Array:
        """The Zarr array itself, read-only, for looking at; stages use `read`, which checks. Raises KeyError."""
        return self._array(path, writable=False)

    def _array(self, path: str, *, writable: bool) -> zarr.Array:
        if (path, writable) not in self._opened:
            array = self._group(writable=writable)[path]
            assert isinstance(array, zarr.Array)
            # a shard whose values all equal the fill value must be written too, or it looks missing
            self._opened[path, writable] = array.with_config({"write_empty_chunks": True})
        return self._opened[path, writable]

    def _group(self, *, writable: bool) -> zarr.Group:
        return zarr.open_group(zarr_store(self.url), mode="r+" if writable else "r", zarr_format=3)

    def commit(
        self,
        stage: str,
        name: str,
        shard: int,
        *,
        arrays: Mapping[str, np.ndarray],
        files: Mapping[str, bytes] | None = None,
        facts: Mapping[str, Any] | None = None,
        seconds: float,
    ) -> Record:
        """Write everything of a shard, then, last, the record that makes it done.

        Raises StoreError when the store can't be written or is full; the shard is then simply missing.
        """
        files = files or {}
        with explained(self.url):
            for path, values in arrays.items():
                array = self._array(path, writable=True)
                region, expected = self._region(array, shard)
                assert values.shape == expected and values.dtype == array.dtype, (path, values.shape, expected)
                array[region] = values
            for path, data in files.items():
                self.put_file(path, data)
        record = Record(
            stage=stage,
            name=name,
            shard=shard,
            digest=self.digest,
            sha256={path: _sha256(np.ascontiguousarray(values).tobytes()) for path, values in arrays.items()}
            | {path: _sha256(data) for path, data in files.items()},
            facts=dict(facts or {}),
            seconds=round(seconds, 3),
            committed=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions(),
        )
        self.put_file(_commit_path(stage, name, shard), json.dumps(asdict(record), allow_nan=False).encode())
        return record

    def read(self, record: Record, path: str) -> np.ndarray:
        """An array's values in the record's shard, compared with the record's checksum.

        Raises StoreError if they differ, can't be decoded, or the record does not cover the array; UnreachableError if
        the store does not answer.
        """
        if path not in record.sha256:
            raise StoreError(f"{record.stage} {record.name} shard {record.shard} in {self.url} has no {path}")
        try:
            with explained(self.url):
                array = self.array(path)
                values = np.asarray(array[self._region(array, record.shard)[0]])
        except UnreachableError:
            raise  # it says nothing about the shard
        except Exception as error:  # zarr, the codecs and the file systems each have their own kinds
            raise self._damaged(record, path, f"{type(error).__name__}: {error}") from error
        if _sha256(np.ascontiguousarray(values).tobytes()) != record.sha256[path]:
            raise self._damaged(record, path, "its checksum differs")
        return values

    def read_file(self, record: Record, path: str) -> bytes:
        """A file's bytes, compared with the record's checksum. Raises StoreError if it is gone or differs."""
        try:
            data = self.get_file(path)
        except FileNotFoundError as error:
            raise self._damaged(record, path, "it is gone") from error
        if _sha256(data) != record.sha256[path]:
            raise self._damaged(record, path, "its checksum differs")
        return data

    def _damaged(self, record: Record, path: str, why: str) -> StoreError:
        commit = _commit_path(record.stage, record.name, record.shard)
        return StoreError(
            f"{path}, shard {record.shard}, in {self.url} is damaged ({why}); remove {commit} and run again"
        )

    def _region(self, array: zarr.Array, shard: int) -> tuple[Any, tuple[int, ...]]:
        dims = array.metadata.dimension_names  # type: ignore[union-attr]
        if dims is None or dims[0] != "pair":
            return Ellipsis, array.shape
        size = self.settings.pairs.shard_size
        return slice(shard * size, (shard + 1) * size), (size, *array.shape[1:])

    # ---- small files

    def put_file(self, path: str, data: bytes) -> None:
        """Write a file whole or not at all. Raises StoreError."""
        target = f"{self._root}/{path}"
        with explained(self.url):
            if not self._local:
                self._fs.pipe_file(target, data)  # an object appears only when it is complete
                return
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            partial = f"{target}.{uuid.uuid4().hex}.partial"  # not a tempfile, which only its owner could read
            try:
                with open(partial, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, target)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise

    def get_file(self, path: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError."""
        with explained(self.url, missing_is_fine=True):
            return self._fs.cat_file(f"{self._root}/{path}")

    def find_file(self, path: str) -> bytes | None:
        try:
            return self.get_file(path)
        except FileNotFoundError:
            return None

    def remove_file(self, path: str) -> None:
        """Remove a file, if it is there."""
        with explained(self.url), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{path}")

    def place(self, path: str) -> str:
        """Where a file of the store is, as a user would open it."""
        return f"{self._root}/{path}" if self._local else f"{self.url}/{path}"


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self._start


@cache
def versions() -> dict[str, str]:
    """What a number may depend on besides the settings."""
    packages = {
        "netsim": "netsim-cka",
        "torch": "torch",
        "torchvision": "torchvision",
        "numpy": "numpy",
        "zarr": "zarr",
    }
    return {name: version(package) for name, package in packages.items()} | {"python": platform.python_version()}


def normalise(url: str | os.PathLike[str]) -> str:
    """A local path as an absolute one, so that every worker means the same place; a URL without a last slash.

    Raises StoreError for nothing at all, and for a URL with credentials in it: it would be shown in logs, in the
    Prefect UI and in the store.
    """
    if not isinstance(url, str | os.PathLike) or not os.fspath(url):
        raise StoreError(f"{url!r} is no place for a run; give a path or a URL, as in runs/demo")
    url = str(os.fspath(url))
    if urlsplit(url).password or (urlsplit(url).username and url.startswith("s3://")):
        raise StoreError("the store's URL holds credentials; give them by AWS_* variables or a profile instead")
    if "://" in url and not url.startswith("file://"):
        return url.rstrip("/")
    return os.path.abspath(Path(url.removeprefix("file://")).expanduser())


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


@contextmanager
def explained(url: str, *, missing_is_fine: bool = False) -> Iterator[None]:
    """Turn what a file system says into one clear StoreError about `url`."""
    try:
        yield
    except FileNotFoundError as error:
        if missing_is_fine:
            raise
        raise StoreError(f"{url}: not found ({error})") from error
    except PermissionError as error:
        raise StoreError(
            f"{url} is not writable or not readable for this user ({error}); give another --store"
        ) from error
    except UNREACHABLE as error:
        raise UnreachableError(f"{url} does not answer ({error}); the same command goes on when it does") from error
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound, TokenRetrievalError) as error:
        raise StoreError(
            f"{url}: {str(error).rstrip('.')}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(
                f"no space left for {url} ({error.strerror}); free some, and run the same command again"
            ) from error
        if error.errno == errno.EROFS:
            raise StoreError(f"{url} is on a read-only file system; give another --store") from error
        raise StoreError(f"{url}: {error}") from error


UNREACHABLE = (ConnectionError, TimeoutError, HTTPClientError, EndpointConnectionError)
"""No answer, after the client's own retries. The first two are what Python raises, the others botocore."""

S3_CLIENT = {
    "retries": {"mode": "adaptive", "max_attempts": 10},  # sits out a server that is away for about 50 s
    "connect_timeout": 5,
    "read_timeout": 60,
}
"""Of botocore, by name as in `botocore.config.Config`. Its default gives up on a restarting server after 8 s."""


def _options(url: str) -> dict[str, Any]:
    if "://" not in url:
        return {}
    options: dict[str, Any] = {"use_listings_cache": False}  # progress is read from listings
    return options | ({"config_kwargs": S3_CLIENT} if url.startswith("s3://") else {})


def _filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        fs, root = fsspec.core.url_to_fs(url, **_options(url))
    except (ValueError, ImportError) as error:
        raise StoreError(f"{url} is not a place netsim can store to: {error}") from None
    return fs, root.rstrip("/")


def zarr_store(url: str) -> LocalStore | FsspecStore:
    return FsspecStore.from_url(url, storage_options=_options(url)) if "://" in url else LocalStore(url)


RECORD_FILE = re.compile(r"\d{5,}\.json")


def _commit_path(stage: str, name: str, shard: int) -> str:
    return f"commits/{stage}/{name}/{shard:05d}.json"


def _modified(info: Mapping[str, Any]) -> float:
    when = info.get("mtime", info.get("LastModified", info.get("created", 0.0)))
    return when.timestamp() if isinstance(when, datetime) else float(when)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
