"""The store of one run: Zarr arrays, and the commit records that say which shards are done.

    <url>/zarr.json                              attributes: format, digest, settings, created, versions
    <url>/<group>/<array>                        per-pair arrays: one chunk, one object = one shard of pairs
    <url>/weights/<network>.safetensors          networks trained here
    <url>/commits/<stage>/<name>/<shard>.json    written last; the only memory of progress
    <url>/aside/<stage>/<name>/<shard>.json      why a shard was set aside, until the next try

A shard is done when its record is there, and only then. The record holds checksums of every array written, because Zarr
reads a missing chunk silently as the fill value; `read` compares. Whoever computes a shard writes whole chunks: two
writers inside one lose data. docs/store.md is the specification.
"""

import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from shlex import quote
from typing import Any, Self

import numpy as np
import zarr
from blake3 import blake3
from zarr.storage import MemoryStore

from netsim.errors import SettingsError, StoreError
from netsim.settings import SweepSettings, parse_settings
from netsim.storage.files import Files, zarr_store
from netsim.storage.s3 import translate_errors
from netsim.storage.stopwatch import Stopwatch
from netsim.store.arrays import CHECKSUM, CODECS, ArraySpec, chunk_of, crc32c, differences, fill_value
from netsim.store.records import (
    ASIDE_FILE,
    RECORD_FILE,
    SEAL,
    Record,
    aside_path,
    blake3_hex,
    commit_path,
    is_sealed,
    lies_within,
    parse_aside,
    sealed,
    unit_of,
    versions,
)

FORMAT = 4
"""Version of the layout. A store of another version is refused, never guessed at."""


WRITERS = 4
"""Arrays of a shard that are encoded, hashed and sent at a time."""

READERS = 4
"""Arrays of a shard that are fetched at a time."""

LISTINGS = 32
"""Listings that are under way at a time."""


class Run:
    """One run in its store. Make it with `create` (new, or the same settings again) or `open`."""

    def __init__(self, url: str, settings: SweepSettings, attributes: Mapping[str, Any]) -> None:
        self.files = Files(url)
        self.url = self.files.url
        self.settings = settings
        self.attributes = dict(attributes)
        self.digest = settings.digest()
        self.weights: dict[str, str] = {}  # network -> hash of the weights this run goes by, once it was read
        self.checked: dict[str, Any] = {}  # what was found when images were looked at, once it was read
        self.seconds_waited = 0.0  # for what was read, and for what was still being written
        self.pulse: Callable[[], None] = _nothing  # called again and again while work goes on; it may raise, to end it
        self._zarr = zarr_store(self.url)
        self._opened: dict[str, zarr.Array] = {}  # opening one costs as much as reading a shard of losses

    @classmethod
    def create(cls, url: str, settings: SweepSettings) -> Self:
        """The run of these settings at `url`: opened if it is there, made if nothing is.

        Raises StoreError if another run, another format or other files are there, or it can't be written.
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
        """Whether something that may be a run is at `url`."""
        return Files(url).exists("zarr.json")

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> Self:
        """The run stored at `url`. Raises StoreError if there is none, or its format is not ours."""
        files = Files(url)
        url = files.url
        data = files.find("zarr.json")
        if data is None:
            raise StoreError(f"no run at {url}; `netsim run SETTINGS.yaml --store {quote(url)}` makes one")
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
            raise StoreError(
                f"{url} has format {attributes.get('format')!r}; this netsim reads format {FORMAT}. "
                f"Use the netsim that made it ({made_by.get('netsim', '?') if isinstance(made_by, dict) else '?'}), "
                "or another store"
            )
        if not (group and is_sealed(attributes)):
            raise StoreError(f"{url}/zarr.json is damaged or was edited; restore it, or use another store")
        try:
            settings = parse_settings(attributes["settings"], origin=url)
        except SettingsError as error:
            raise StoreError(f"the settings stored at {url} are not this netsim's: {error}") from None
        if settings.digest() != attributes["digest"]:
            raise StoreError(f"{url} was made by another version of the algorithm; use another store")
        return cls(url, settings, attributes)

    def require(self, settings: SweepSettings) -> None:
        """Raises StoreError, with what differs, unless this is the run of these settings."""
        if settings.digest() == self.digest:
            return
        here, asked = flatten(self.settings.model_dump(mode="json")), flatten(settings.model_dump(mode="json"))
        changed = [key for key in {**here, **asked} if here.get(key) != asked.get(key)]
        shown = ", ".join(f"{key} is {here.get(key)!r} there and {asked.get(key)!r} here" for key in changed[:2])
        more = f" ({len(changed) - 2} more differ)" if len(changed) > 2 else ""
        raise StoreError(f"{self.url} holds a run with other settings: {shown}{more}; give another --store")

    # ---- what is done

    def done(self, stage: str, names: Sequence[str] = ()) -> dict[tuple[str, int], float]:
        """(name, shard) -> time of its commit, in seconds since 1970. Lists; no record is opened.

        With `names`, only theirs, each by a listing of its own at the same time as the others: a page of object storage
        has 1000 records, and the next can't be asked for before it is there.
        """
        folders = [f"commits/{stage}/{name}" for name in names] or [f"commits/{stage}"]
        with ThreadPoolExecutor(LISTINGS) as pool:
            listings = list(pool.map(self.files.below, folders))
        found = {}
        for folder, listing in zip(folders, listings, strict=True):
            for below, when in listing.items():
                name, _, file = f"{folder}/{below}".removeprefix(f"commits/{stage}/").rpartition("/")
                if RECORD_FILE.fullmatch(file):  # a sync tool's "00000 (copy).json" proves nothing
                    found[name, int(file.removesuffix(".json"))] = when
        return found

    def stages_done(self) -> list[str]:
        """The stages that have a commit record, by name."""
        return self.files.names("commits")

    def forget(self, stage: str, name: str, shard: int) -> None:
        """Remove a shard's commit record: the next run computes it again. Its values stay until they are replaced."""
        self.files.remove(commit_path(stage, name, shard))

    def is_done(self, stage: str, name: str, shard: int) -> bool:
        return self.files.exists(commit_path(stage, name, shard))

    def record(self, stage: str, name: str, shard: int = 0) -> Record:
        """The commit record of a shard. Raises StoreError if the shard is not done, or the record is another run's."""
        return self.records(stage, name, [shard])[0]

    def records(self, stage: str, name: str, shards: Sequence[int]) -> list[Record]:
        """The same of some shards, asked for at the same time."""
        self.pulse()
        paths = [commit_path(stage, name, shard) for shard in shards]
        watch = Stopwatch()
        found = self.files.get_all(paths)
        self.seconds_waited += watch()
        for path, shard in zip(paths, shards, strict=True):
            if path not in found:
                raise StoreError(f"{stage} {name} shard {shard} is not done in {self.url}")
        return [self._record(path, found[path]) for path in paths]

    def _record(self, path: str, data: bytes) -> Record:
        try:
            found = json.loads(data)
            whole = json.dumps(found).encode() == data and is_sealed(found)
            record = Record(**{key: value for key, value in found.items() if key != SEAL})
            whole = whole and all(lies_within(path) for path in (*record.arrays, *record.files))
            whole = whole and commit_path(record.stage, record.name, record.shard) == path  # not one of another shard
        except (ValueError, TypeError, AttributeError):  # not UTF-8, not JSON, not a record
            whole = False
        if not whole:
            raise StoreError(f"the commit record {path} in {self.url} is damaged; {self.mend}")
        if record.digest != self.digest:
            raise StoreError(f"the commit record {path} in {self.url} belongs to another run ({record.digest})")
        return record

    @property
    def mend(self) -> str:
        """What to do about damage, for a message."""
        return f"`netsim verify --repair {quote(self.url)}`, and run again"

    # ---- what was set aside

    def quarantine(self, stage: str, name: str, shard: int, why: Mapping[str, Any]) -> None:
        """Keep why a shard can't be computed, for whoever looks. It counts as missing all the same."""
        self.files.put(aside_path(stage, name, shard), json.dumps(dict(why), indent=2).encode())

    def quarantined(self) -> dict[tuple[str, str, int], dict[str, Any]]:
        """(stage, name, shard) -> why it was set aside."""
        listed = [path for path in self.files.below("aside") if ASIDE_FILE.fullmatch(path)]
        found = self.files.get_all(f"aside/{path}" for path in sorted(listed))
        return {unit_of(path): parse_aside(data) for path, data in found.items()}

    def clear_quarantine(self, stage: str = "") -> None:
        """Forget what was set aside, of all stages or of one: it is to be tried again."""
        folder = f"aside/{stage}".rstrip("/")
        for path in self.files.below(folder):
            self.files.remove(f"{folder}/{path}")

    # ---- arrays

    def create_arrays(self, specs: Iterable[ArraySpec]) -> None:
        """Create the arrays that are not there yet, with their groups and coordinates. Done before work fans out.

        Raises StoreError for one that is there and is not as it should be.
        """
        expected = self._documents(specs)
        found = self.files.get_all(expected)
        for path, fault in differences(expected, found).items():
            if path in found:
                raise StoreError(f"{self.files.place(path)} is damaged ({fault}); {self.mend}")
        self.files.put_all({path: data for path, data in expected.items() if path not in found})

    def array_faults(self, specs: Iterable[ArraySpec]) -> dict[str, str]:
        """Path -> what is wrong with it, for the documents and coordinates of arrays."""
        expected = self._documents(specs)
        return differences(expected, self.files.get_all(expected))

    def repair_arrays(self, specs: Iterable[ArraySpec]) -> None:
        """Write those documents and coordinates again; values of arrays are not touched."""
        expected = self._documents(specs)
        bad = differences(expected, self.files.get_all(expected))
        self.files.put_all({path: expected[path] for path in bad})

    def _documents(self, specs: Iterable[ArraySpec]) -> dict[str, bytes]:
        """Every file that is there before there are values: documents of groups and arrays, and coordinates."""
        made: dict[str, Any] = {}
        group = zarr.open_group(MemoryStore(made), mode="w", zarr_format=3)
        for spec in specs:
            self._create(group, spec)
        return {path: data.to_bytes() for path, data in made.items() if path != "zarr.json"}

    def _create(self, group: zarr.Group, spec: ArraySpec) -> None:
        group.create_array(
            spec.path,
            shape=spec.shape,
            chunks=(self.settings.pairs.shard_size, *spec.shape[1:]) if spec.per_pair else spec.shape,
            dtype=spec.dtype,
            compressors=CODECS,
            fill_value=fill_value(np.dtype(spec.dtype)),
            dimension_names=spec.dims,
            attributes=dict(spec.attributes),
        )
        numbers: dict[str, Any] = {"pair": np.arange(spec.shape[0])} if spec.per_pair else {}
        beside = spec.path.rpartition("/")[0]
        for dim, labels in (numbers | dict(spec.coordinates)).items():
            path, values = f"{beside}/{dim}", np.asarray(labels)
            if path not in group:
                text = values.dtype.kind == "U"
                group.create_array(
                    path,
                    data=values.astype(np.dtypes.StringDType()) if text else values,
                    chunks=values.shape,
                    compressors=CODECS,
                    dimension_names=(dim,),
                )

    def array(self, path: str) -> zarr.Array:
        """The Zarr array itself, read-only, for looking at; stages use `read`, which checks. Raises StoreError."""
        if path not in self._opened:
            with translate_errors(self.url):
                try:
                    array = zarr.open_array(self._zarr, path=path, mode="r", zarr_format=3)
                except (ValueError, TypeError, KeyError) as error:
                    document = self.files.place(f"{path}/zarr.json")
                    raise StoreError(f"{document} is damaged ({error}); {self.mend}") from error
            self._opened[path] = array
        return self._opened[path]

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
        """Write everything of a shard, then, last, the record that makes it done. Returns the record that is there.

        Where another run of the same settings was faster, its record and its values stay. If it was so just now, while
        these values were written over its own, and they differ, these stay: its record would not fit any more. Raises
        StoreError when the store can't be written or is full; the shard is then simply missing.
        """
        arrays, files = arrays or {}, files or {}
        while not self.is_done(stage, name, shard):
            record = Record(
                stage=stage,
                name=name,
                shard=shard,
                digest=self.digest,
                arrays=self._write_all(arrays, shard),
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

    def _write_all(self, arrays: Mapping[str, np.ndarray], shard: int) -> dict[str, str]:
        """Their parts of a shard, at the same time. Gives their hashes."""
        with ThreadPoolExecutor(WRITERS) as pool:
            hashes = pool.map(lambda path: self._write(path, arrays[path], shard), arrays)
            return dict(zip(arrays, hashes, strict=True))

    def _write_files(self, files: Mapping[str, bytes]) -> dict[str, str]:
        self.files.put_all(files)
        return {path: blake3_hex(data) for path, data in files.items()}

    def _write(self, path: str, values: np.ndarray, shard: int) -> str:
        """One array's part of a shard, one object, as Zarr's codecs make it, without their copies. Gives its hash."""
        key, shape = self._chunk(path, shard)
        dtype = self.array(path).dtype
        assert (values.shape, values.dtype) == (shape, dtype), (path, values.shape, values.dtype, shape, dtype)
        content = np.ascontiguousarray(values, dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        digest = blake3()
        self.files.put_parts(key, chunk_of(content.data, digest))
        return digest.hexdigest()

    def read(self, record: Record, path: str) -> np.ndarray:
        """An array's values in the record's shard, compared with the record's hash; they can't be written to.

        Raises StoreError if they differ, can't be decoded, or the record does not cover the array; UnreachableError if
        the store does not answer.
        """
        return self.read_some(record, [path])[path]

    def read_some(self, record: Record, paths: Sequence[str]) -> dict[str, np.ndarray]:
        """The same of several arrays, read at the same time."""
        self.pulse()
        watch = Stopwatch()
        with ThreadPoolExecutor(READERS) as pool:
            found = dict(zip(paths, pool.map(lambda path: self._read(record, path), paths), strict=True))
        self.seconds_waited += watch()
        return found

    def _read(self, record: Record, path: str) -> np.ndarray:
        """Without Zarr, whose way to a whole chunk has several copies in it."""
        key, shape = self._chunk(path, record.shard)
        return self._decoded(record, path, self.files.find(key), shape)

    def read_all(self, records: Sequence[Record], path: str) -> np.ndarray:
        """A per-pair array's values in all shards, whose records these are in order; each compared as in `read`."""
        chunks = [self._chunk(path, record.shard) for record in records]
        found = self.files.get_all([key for key, _ in chunks])
        return np.concatenate(
            [
                self._decoded(record, path, found.get(key), shape)
                for record, (key, shape) in zip(records, chunks, strict=True)
            ]
        )

    def _decoded(self, record: Record, path: str, data: bytes | None, shape: tuple[int, ...]) -> np.ndarray:
        """The values in a chunk, if they are those of the record."""
        if path not in record.arrays:
            raise StoreError(f"{record.stage} {record.name} shard {record.shard} in {self.url} has no {path}")
        if data is None:
            raise self._damaged(record, path, "it is gone")
        content, checksum = np.frombuffer(data, np.uint8)[:-CHECKSUM], data[-CHECKSUM:]
        if blake3_hex(content.data) != record.arrays[path] or crc32c(content) != checksum:
            raise self._damaged(record, path, "its checksum differs")
        try:
            return content.view(self.array(path).dtype.newbyteorder("<")).reshape(shape)
        except ValueError as error:  # the array's document is not the one that it was written by
            raise self._damaged(record, path, str(error)) from None

    def read_file(self, record: Record, path: str) -> bytes:
        """A file's bytes, compared with the record's checksum. Raises StoreError if it is gone or differs."""
        data = self.files.find(path)
        if data is None:
            raise self._damaged(record, path, "it is gone")
        if blake3_hex(data) != record.files[path]:
            raise self._damaged(record, path, "its checksum differs")
        return data

    def _damaged(self, record: Record, path: str, why: str) -> StoreError:
        return StoreError(f"{path}, shard {record.shard}, in {self.url} is damaged ({why}); {self.mend}")

    def _chunk(self, path: str, shard: int) -> tuple[str, tuple[int, ...]]:
        """Where an array's values of a shard are, and their shape. An array that is not per-pair is one chunk."""
        array = self.array(path)
        per_pair = (array.metadata.dimension_names or ("",))[0] == "pair"  # type: ignore[union-attr]
        at = (shard if per_pair else 0, *[0] * (array.ndim - 1))
        return f"{path}/{array.metadata.encode_chunk_key(at)}", array.chunks


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _nothing() -> None:
    pass
