"""The store of one run: Zarr arrays, and the commit records that say which units are done.

    <url>/zarr.json                              attributes: format, digest, settings, created, versions
    <url>/<group>/<array>                        per-pair arrays: one chunk, one object = one shard of pairs
    <url>/weights/<network>.safetensors          networks trained here
    <url>/commits/<stage>/<name>/<shard>.json    written last; the only memory of progress
    <url>/aside/<stage>/<name>/<shard>.json      why a unit is quarantined, until the next attempt

A unit is done if and only if its record exists. The record holds checksums of every array written, because Zarr reads a
missing chunk silently as the fill value; `read` compares. A worker owns whole chunks: two writers inside one lose data.
docs/store.md is the specification.
"""

import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from shlex import quote
from typing import Any, Self

import numpy as np
import zarr
from blake3 import blake3

from netsim.cancellation import check_cancelled
from netsim.errors import SettingsError, StoreError
from netsim.settings import SweepSettings, parse_settings
from netsim.storage.concurrency import concurrently
from netsim.storage.files import Files, zarr_store
from netsim.storage.s3 import translate_errors
from netsim.storage.stopwatch import waiting
from netsim.store.arrays import CHECKSUM, chunk_of, crc32c
from netsim.store.records import (
    RECORD_FILE,
    SEAL,
    Record,
    blake3_hex,
    commit_path,
    is_sealed,
    lies_within,
    sealed,
    versions,
)

FORMAT = 4
"""Version of the layout. A store of another version is refused, never guessed at."""

WRITERS = 4
"""Arrays of a shard that are encoded, hashed and sent concurrently."""

READERS = 4
"""Arrays of a shard that are fetched concurrently."""


class Run:
    """One run in its store. Make it with `create` (new, or the same settings again) or `open`."""

    def __init__(self, url: str, settings: SweepSettings, attributes: Mapping[str, Any]) -> None:
        self.files = Files(url)
        self.url = self.files.url
        self.settings = settings
        self.attributes = dict(attributes)
        self.digest = settings.digest()
        self._zarr = zarr_store(self.url)
        self._opened: dict[str, zarr.Array] = {}  # opening one costs as much as reading a shard of losses

    @classmethod
    def create(cls, url: str, settings: SweepSettings) -> Self:
        """Open the run of these settings at `url`; make it if the place is empty.

        Raises
        ------
        StoreError
            If another run, another format or other files are there, or the place is not writable.
        """
        files = Files(url)
        if cls.exists(url):
            run = cls.open(url)
            run.require(settings)
            return run
        others = any(not name.endswith(".partial") for name in files.names())
        if others and not cls.exists(url):  # they may be those of a run that another process has just made
            raise StoreError(f"{files.url} is not empty and holds no run; give an empty or a new place with --store")
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "digest": settings.digest(),
            "settings": settings.model_dump(mode="json"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        document = {"attributes": {"netsim": sealed(attributes)}, "zarr_format": 3, "node_type": "group"}
        files.put_new("zarr.json", json.dumps(document, indent=2).encode())
        run = cls.open(url)  # another process may have been faster
        run.require(settings)
        return run

    @staticmethod
    def exists(url: str) -> bool:
        """Return True if something that may be a run is at `url`."""
        return Files(url).exists("zarr.json")

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> Self:
        """Open the run stored at `url`.

        Raises
        ------
        StoreError
            If there is no run, or it is of another format, another algorithm or damaged.
        """
        files = Files(url)
        url = files.url
        data = files.get_or_none("zarr.json")
        if data is None:
            raise StoreError(f"no run at {url}; `netsim run SETTINGS.yaml --store {quote(url)}` makes one")
        attributes = _attributes(url, data)
        try:
            settings = parse_settings(attributes["settings"], origin=url)
        except SettingsError as error:
            raise StoreError(f"this netsim cannot read the stored settings of {error}") from None
        if settings.digest() != attributes["digest"]:
            raise StoreError(f"{url} was made by another version of the algorithm; use another store")
        return cls(url, settings, attributes)

    def require(self, settings: SweepSettings) -> None:
        """Raise StoreError, with what differs, unless this is the run of these settings."""
        if settings.digest() == self.digest:
            return
        stored, given = flatten(self.settings.model_dump(mode="json")), flatten(settings.model_dump(mode="json"))
        changed = [key for key in {**stored, **given} if stored.get(key) != given.get(key)]
        shown = ", ".join(f"{key} is {stored.get(key)!r} there and {given.get(key)!r} here" for key in changed[:2])
        more = f" ({len(changed) - 2} more differ)" if len(changed) > 2 else ""
        raise StoreError(f"{self.url} holds a run with other settings: {shown}{more}; give another --store")

    @property
    def repair_hint(self) -> str:
        """Advice on damage, for an error message."""
        return f"`netsim verify --repair {quote(self.url)}`, and run again"

    # ---- what is done

    def done(self, stage: str, names: Sequence[str] = ()) -> dict[tuple[str, int], float]:
        """Map each (name, shard) that is done to the time of its commit, in seconds since 1970. Opens no record.

        With `names`, only theirs are listed, each by a listing of its own, concurrently: a page of object storage has
        1000 records, and the next cannot be requested before it has arrived.
        """
        folders = [f"commits/{stage}/{name}" for name in names] or [f"commits/{stage}"]
        listings = concurrently(self.files.modification_times, folders)
        times = {}
        for folder, listing in zip(folders, listings, strict=True):
            for below, when in listing.items():
                name, _, file = f"{folder}/{below}".removeprefix(f"commits/{stage}/").rpartition("/")
                if RECORD_FILE.fullmatch(file):  # a sync tool's "00000 (copy).json" proves nothing
                    times[name, int(file.removesuffix(".json"))] = when
        return times

    def stages_done(self) -> list[str]:
        """List the stages that have a commit record."""
        return self.files.names("commits")

    def is_done(self, stage: str, name: str, shard: int) -> bool:
        """Return True if a unit has a commit record."""
        return self.files.exists(commit_path(stage, name, shard))

    def forget(self, stage: str, name: str, shard: int) -> None:
        """Remove a unit's commit record: the next run computes it again. Its values stay until they are replaced."""
        self.files.remove(commit_path(stage, name, shard))

    def record(self, stage: str, name: str, shard: int = 0) -> Record:
        """Read the commit record of a unit. Raises StoreError if it is not done, or the record is another run's."""
        return self.records(stage, name, [shard])[0]

    def records(self, stage: str, name: str, shards: Sequence[int]) -> list[Record]:
        """Read the commit records of several shards, concurrently. Raises StoreError as `record` does."""
        return list(self.records_of((stage, name, shard) for shard in shards).values())

    def records_of(self, units: Iterable[tuple[str, str, int]]) -> dict[tuple[str, str, int], Record]:
        """Read the commit records of units (stage, name, shard), concurrently. Raises StoreError as `record` does."""
        check_cancelled()
        paths = {unit: commit_path(*unit) for unit in units}
        with waiting():
            contents = self.files.get_all(paths.values())
        for (stage, name, shard), path in paths.items():
            if path not in contents:
                raise StoreError(f"{stage} {name} shard {shard} is not done in {self.url}")
        return {unit: self._parse_record(path, contents[path]) for unit, path in paths.items()}

    def _parse_record(self, path: str, data: bytes) -> Record:
        try:
            document = json.loads(data)
            whole = json.dumps(document).encode() == data and is_sealed(document)
            record = Record(**{key: value for key, value in document.items() if key != SEAL})
            whole = whole and all(lies_within(path) for path in (*record.arrays, *record.files))
            whole = whole and commit_path(record.stage, record.name, record.shard) == path  # not one of another unit
        except (ValueError, TypeError, AttributeError):  # not UTF-8, not JSON, not a record
            whole = False
        if not whole:
            raise StoreError(f"the commit record {path} in {self.url} is damaged; {self.repair_hint}")
        if record.digest != self.digest:
            raise StoreError(f"the commit record {path} in {self.url} belongs to another run ({record.digest})")
        return record

    # ---- writing

    def commit(
        self,
        stage: str,
        name: str,
        shard: int,
        *,
        arrays: Mapping[str, np.ndarray] | None = None,
        files: Mapping[str, bytes] | None = None,
        facts: Mapping[str, Any] | None = None,
        seconds: float,
    ) -> Record:
        """Write everything of a unit, then, last, the record that makes it done. Return the record that is there.

        Where another run of the same settings was faster, its record and its values stay. If that happened just now,
        while these values were written over its own, and they differ, these stay: its record would no longer match.

        Raises
        ------
        StoreError
            If the store is full or not writable; the unit is then simply missing.
        """
        arrays, files = arrays or {}, files or {}
        while not self.is_done(stage, name, shard):
            record = Record(
                stage=stage,
                name=name,
                shard=shard,
                digest=self.digest,
                arrays=self._write_arrays(arrays, shard),
                files=self._write_files(files),
                facts=dict(facts or {}),
                seconds=round(seconds, 3),
                committed=datetime.now(UTC).isoformat(timespec="seconds"),
                versions=versions(),
                process=f"{socket.gethostname()}:{os.getpid()}",
            )
            document = json.dumps(sealed(asdict(record)), allow_nan=False).encode()
            if self.files.put_new(commit_path(stage, name, shard), document):
                return record
            if self.record(stage, name, shard).content != record.content:
                self.forget(stage, name, shard)
        return self.record(stage, name, shard)

    def _write_arrays(self, arrays: Mapping[str, np.ndarray], shard: int) -> dict[str, str]:
        """Write their chunks of a shard, concurrently. Return their hashes."""
        hashes = concurrently(lambda path: self._write(path, arrays[path], shard), arrays, threads=WRITERS)
        return dict(zip(arrays, hashes, strict=True))

    def _write_files(self, files: Mapping[str, bytes]) -> dict[str, str]:
        self.files.put_all(files)
        return {path: blake3_hex(data) for path, data in files.items()}

    def _write(self, path: str, values: np.ndarray, shard: int) -> str:
        """Write one array's chunk of a shard, as Zarr's codecs make it, without their copies. Return its hash."""
        key, shape = self._chunk(path, shard)
        dtype = self.array(path).dtype
        assert (values.shape, values.dtype) == (shape, dtype), (path, values.shape, values.dtype, shape, dtype)
        content = np.ascontiguousarray(values, dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        digest = blake3()
        self.files.put_parts(key, chunk_of(content.data, digest))
        return digest.hexdigest()

    # ---- reading

    def array(self, path: str) -> zarr.Array:
        """Open a Zarr array read-only, to look at; stages use `read`, which compares checksums. Raises StoreError."""
        if path not in self._opened:
            with translate_errors(self.url):
                try:
                    array = zarr.open_array(self._zarr, path=path, mode="r", zarr_format=3)
                except (ValueError, TypeError, KeyError) as error:
                    document = self.files.place(f"{path}/zarr.json")
                    raise StoreError(f"{document} is damaged ({error}); {self.repair_hint}") from error
            self._opened[path] = array
        return self._opened[path]

    def read(self, record: Record, path: str) -> np.ndarray:
        """Read an array's values in the record's shard and compare them with its hash. The result is read-only.

        Raises
        ------
        StoreError
            If the values differ, cannot be decoded, or are not covered by the record.
        UnreachableError
            If the store does not answer.
        """
        return self.read_some(record, [path])[path]

    def read_some(self, record: Record, paths: Sequence[str]) -> dict[str, np.ndarray]:
        """Read several arrays of one shard, concurrently. Raises as `read` does."""
        check_cancelled()
        with waiting():
            values = concurrently(lambda path: self._read(record, path), paths, threads=READERS)
        return dict(zip(paths, values, strict=True))

    def _read(self, record: Record, path: str) -> np.ndarray:
        """Read a chunk without Zarr, whose way to a whole chunk makes several copies."""
        key, shape = self._chunk(path, record.shard)
        return self._decode(record, path, self.files.get_or_none(key), shape)

    def read_all(self, records: Sequence[Record], path: str) -> np.ndarray:
        """Read a per-pair array in all shards, given their records in order. Each chunk is compared as in `read`."""
        chunks = [self._chunk(path, record.shard) for record in records]
        contents = self.files.get_all([key for key, _ in chunks])
        return np.concatenate(
            [
                self._decode(record, path, contents.get(key), shape)
                for record, (key, shape) in zip(records, chunks, strict=True)
            ]
        )

    def read_file(self, record: Record, path: str) -> bytes:
        """Read a file and compare it with the record's checksum. Raises StoreError if it is missing or differs."""
        data = self.files.get_or_none(path)
        if data is None:
            raise self._damaged(record, path, "it is missing")
        if blake3_hex(data) != record.files[path]:
            raise self._damaged(record, path, "its checksum differs")
        return data

    def _decode(self, record: Record, path: str, data: bytes | None, shape: tuple[int, ...]) -> np.ndarray:
        """Return the values in a chunk if they are those of the record."""
        if path not in record.arrays:
            raise StoreError(f"{record.stage} {record.name} shard {record.shard} in {self.url} has no {path}")
        if data is None:
            raise self._damaged(record, path, "it is missing")
        content, checksum = np.frombuffer(data, np.uint8)[:-CHECKSUM], data[-CHECKSUM:]
        if blake3_hex(content.data) != record.arrays[path] or crc32c(content) != checksum:
            raise self._damaged(record, path, "its checksum differs")
        try:
            return content.view(self.array(path).dtype.newbyteorder("<")).reshape(shape)
        except ValueError as error:  # the array's document is not the one that it was written by
            raise self._damaged(record, path, str(error)) from None

    def _damaged(self, record: Record, path: str, why: str) -> StoreError:
        return StoreError(f"{path}, shard {record.shard}, in {self.url} is damaged ({why}); {self.repair_hint}")

    def _chunk(self, path: str, shard: int) -> tuple[str, tuple[int, ...]]:
        """Return the key and shape of an array's chunk of a shard. An array that is not per-pair is one chunk."""
        array = self.array(path)
        per_pair = (array.metadata.dimension_names or ("",))[0] == "pair"  # type: ignore[union-attr]
        at = (shard if per_pair else 0, *[0] * (array.ndim - 1))
        return f"{path}/{array.metadata.encode_chunk_key(at)}", array.chunks


def _attributes(url: str, data: bytes) -> dict[str, Any]:
    """Parse the root document of a run. Raises StoreError unless it is whole and of our format."""
    try:
        document = json.loads(data)
        attributes = document.get("attributes", {}).get("netsim")
        group = (document.get("zarr_format"), document.get("node_type")) == (3, "group")
    except (ValueError, AttributeError) as error:
        raise StoreError(f"{url}/zarr.json is damaged ({error}); restore it, or use another store") from None
    if not isinstance(attributes, dict):
        raise StoreError(f"{url} is a Zarr group, but not a netsim run")
    if attributes.get("format") != FORMAT:
        made_by = attributes.get("versions")
        version = made_by.get("netsim", "?") if isinstance(made_by, dict) else "?"
        raise StoreError(
            f"{url} has format {attributes.get('format')!r}; this netsim reads format {FORMAT}. "
            f"Use the netsim that made it ({version}), or another store"
        )
    if not (group and is_sealed(attributes)):
        raise StoreError(f"{url}/zarr.json is damaged or was edited; restore it, or use another store")
    return attributes


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: `{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
