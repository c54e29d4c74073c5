"""A store and the sweep that is asked of it: Zarr arrays, and the commit records that say which units are done.

    <url>/zarr.json                              attributes: format, protocol and its digest, created, versions
    <url>/sweeps/<id>.json                       sweeps: the questions asked of the store
    <url>/networks/<network>.json                networks, which join the store under a name and are never altered
    <url>/cohorts/<key>.json                     networks that looked at a set, or were compared, together
    <url>/<group>/<array>                        per-pair arrays: one chunk, one object = one shard of pairs
    <url>/weights/<network>.safetensors          networks trained here
    <url>/commits/<stage>/<name>/<shard>.json    written last; the only memory of progress
    <url>/aside/<stage>/<name>/<shard>.json      why a unit is quarantined, until the next attempt

A unit is done if and only if its record exists. The record holds checksums of every array written, because Zarr reads a
missing chunk silently as the fill value; `read` compares. A worker owns whole chunks: two writers inside one lose data.
docs/reference/store.md is the specification.
"""

import json
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from shlex import quote
from typing import Any, Self

import numpy as np
import zarr
from blake3 import blake3

from netsim.cancellation import check_cancelled
from netsim.errors import SettingsError, StoreError, nearest
from netsim.settings import ALGORITHM
from netsim.storage.concurrency import concurrently
from netsim.storage.files import Files, zarr_store
from netsim.storage.s3 import translate_errors
from netsim.storage.stopwatch import waiting
from netsim.store.arrays import CHECKSUM, chunk_of, crc32c
from netsim.store.protocol import Protocol
from netsim.store.records import (
    RECORD_FILE,
    SEAL,
    Record,
    blake3_hex,
    commit_path,
    is_sealed,
    lies_within,
    parse_sealed_line,
    sealed,
    sealed_line,
    versions,
)
from netsim.store.sweeps import StoredNetwork, Sweep

FORMAT = 5
"""Version of the layout. A store of another version is refused, never guessed at."""

WRITERS = 4
"""Arrays of a shard that are encoded, hashed and sent concurrently."""

READERS = 4
"""Arrays of a shard that are fetched concurrently."""

SWEEP_ID = re.compile("[0-9a-f]{12}")


class Run:
    """A store, seen by one sweep. Make it with `create` (a new store, or a new sweep of an old one) or `open`.

    Attributes
    ----------
    sweep
        Networks and pairs that are asked for; the store may have more.
    digest
        Digest of the protocol, which names the store.
    """

    def __init__(self, url: str, attributes: Mapping[str, Any], sweep: Sweep) -> None:
        self.files = Files(url)
        self.url = self.files.url
        self.attributes = dict(attributes)
        self.digest: str = attributes["digest"]
        self.sweep = sweep
        self.settings = sweep.settings
        self._zarr = zarr_store(self.url)
        self._opened: dict[str, zarr.Array] = {}  # opening one costs as much as reading a shard of losses
        self._cohorts: dict[str, dict[str, str]] = {}

    @classmethod
    def create(cls, url: str, sweep: Sweep) -> Self:
        """Ask a sweep of the store at `url`; make the store if the place is empty.

        Its networks join the store, and it becomes the sweep that `open` opens.

        Raises
        ------
        StoreError
            If a store of another protocol or format, a network of the same name, or other files are there, or the
            place is not writable.
        """
        files = Files(url)
        if not cls.exists(url):
            others = any(not name.endswith(".partial") for name in files.names())
            if others and not cls.exists(url):  # they may be those of a run that another process has just made
                raise StoreError(
                    f"{files.url} is not empty and holds no run; give an empty or a new place with --store"
                )
            files.put_new("zarr.json", _root_document(sweep.protocol))
        run = cls(files.url, _attributes(files.url, files.get("zarr.json")), sweep)
        run.require(sweep.protocol)
        run._join([*sweep.networks, *sweep.observers])
        run.ask()
        return run

    @staticmethod
    def exists(url: str) -> bool:
        """Return True if something that may be a run is at `url`."""
        return Files(url).exists("zarr.json")

    @classmethod
    def open(cls, url: str | os.PathLike[str], sweep: str | None = None) -> Self:
        """Open the store at `url` as one of its sweeps sees it.

        Parameters
        ----------
        url
            Path or URL of the store.
        sweep
            The sweep, by its id or its label; of several with one label, the one run last. Default: the one run last
            of all.

        Raises
        ------
        StoreError
            If there is no run, or it is of another format, another algorithm or damaged.
        SettingsError
            If it has no such sweep.
        """
        files = Files(url)
        reads: list[Callable[[], Any]] = [lambda: files.get_or_none("zarr.json"), lambda: _sweeps_called(files, sweep)]
        root, sweeps = concurrently(lambda read: read(), reads)
        if root is None:
            raise StoreError(f"no run at {files.url}; `netsim run SETTINGS.yaml --store {quote(files.url)}` makes one")
        attributes = _attributes(files.url, root)
        if not sweeps:
            raise StoreError(
                f"no sweep was asked of {files.url} yet; `netsim run SETTINGS.yaml --store {quote(files.url)}` asks one"
            )
        chosen = [each for each in sweeps if sweep in (None, each.id, each.label)]
        if not chosen:
            known = [each.label for each in sweeps]
            raise SettingsError(f"no sweep {sweep!r} in {files.url}{nearest(str(sweep), known)}")
        run = cls(files.url, attributes, chosen[-1])
        run.require(run.sweep.protocol)
        return run

    @classmethod
    def at(cls, url: str, sweep: Sweep) -> Self:
        """Return the store at `url` as a sweep sees it, whether it was asked before or not; nothing is stored."""
        files = Files(url)
        return cls(files.url, _attributes(files.url, files.get("zarr.json")), sweep)

    def ask(self) -> None:
        """Write down what the sweep asks for, with the time: it becomes the sweep that `open` opens."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        self.files.put(sweep_path(self.sweep.id), _sealed_bytes({"asked": now} | self.sweep.to_json()))

    def latest(self) -> Self:
        """Return the store as the sweep sees it now: one that stops when known may have come to a later look."""
        return self if self.settings.pairs.until is None else self.open(self.url, self.sweep.id)

    def seen_by(self, sweep: Sweep) -> Self:
        """Return the same store as another sweep sees it; nothing is stored."""
        return type(self)(self.url, self.attributes, sweep)

    @property
    def protocol(self) -> Protocol:
        """Settings and images that all values of the store share."""
        return Protocol.model_validate(self.attributes["protocol"])

    def require(self, protocol: Protocol) -> None:
        """Raise StoreError, with what differs, unless the store has this protocol."""
        if protocol.digest() == self.digest:
            return
        differences = self.protocol.differences(protocol)
        more = f" ({len(differences) - 2} more differ)" if len(differences) > 2 else ""
        raise StoreError(
            f"{self.url} holds runs of another protocol: {', '.join(differences[:2])}{more}; give another --store"
        )

    def _join(self, networks: Iterable[StoredNetwork]) -> None:
        """Add networks that the store does not have. Raises StoreError if one of them has the name of another."""
        by_path = {network_path(network.name): network for network in networks}
        stored = self.files.get_all(by_path)
        for path, network in by_path.items():
            document = _sealed_bytes(network.to_json())
            if path in stored or not self.files.put_new(path, document):
                data = stored.get(path) or self.files.get(path)
                require_same_network(self.url, StoredNetwork.from_json(_parse_sealed(self.url, path, data)), network)

    @property
    def repair_hint(self) -> str:
        """Advice on damage, for an error message."""
        return f"`netsim verify --repair {quote(self.url)}`, and run again"

    # ---- cohorts

    def cohort(self, key: str) -> dict[str, str]:
        """Map the names of a cohort's networks to their identities. Raises StoreError if its document is damaged."""
        if key not in self._cohorts:
            self._cohorts[key] = self._parse_cohort(key, self.files.get(cohort_path(key)))
        return self._cohorts[key]

    def read_cohorts(self, keys: Iterable[str]) -> None:
        """Read the documents of cohorts at once: one by one, each would wait for the storage."""
        paths = {cohort_path(key): key for key in keys if key not in self._cohorts}
        contents = self.files.get_all(paths)
        self._cohorts |= {paths[path]: self._parse_cohort(paths[path], data) for path, data in contents.items()}

    def _parse_cohort(self, key: str, data: bytes) -> dict[str, str]:
        try:
            networks = {str(name): str(identity) for name, identity in json.loads(data).items()}
        except (ValueError, AttributeError):
            networks = {}
        if cohort_key(networks) != key:
            raise StoreError(f"{self.url}/{cohort_path(key)} is damaged; {self.repair_hint}")
        return networks

    def name_cohort(self, names: Iterable[str]) -> str:
        """Return the key of the cohort of these networks, which this run then knows. Nothing is stored."""
        identities = dict(sorted(self.sweep.identities(names).items()))
        key = cohort_key(identities)
        self._cohorts[key] = identities
        return key

    def keep_cohort(self, identities: Mapping[str, str]) -> str:
        """Store a cohort, given the identities of its networks; return its key."""
        key = cohort_key(dict(identities))
        self._cohorts[key] = dict(identities)
        self.keep_cohorts([key])
        return key

    def keep_cohorts(self, keys: Iterable[str]) -> None:
        """Store the documents of cohorts that this run has named, where they are not stored."""
        documents = {cohort_path(key): json.dumps(self.cohort(key), indent=2).encode() for key in keys}
        stored = self.files.get_all(documents)
        self.files.put_all({path: data for path, data in documents.items() if path not in stored})

    def current(self, key: str) -> list[str]:
        """List the networks of a cohort that are still those of this sweep, in the order of its columns."""
        cohort, now = self.cohort(key), self.sweep.identities(self.sweep.columns)
        return [name for name in self.sweep.columns if cohort.get(name) == now[name]]

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
            record = Record(**parse_sealed_line(data))
            whole = all(lies_within(path) for path in (*record.arrays, *record.files))
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
            document = sealed_line(asdict(record))
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


def _sweeps_called(files: Files, sweep: str | None) -> list[Sweep]:
    """Read the one sweep that has this id, as each task run does, without a listing; for another name, all sweeps."""
    if sweep is not None and SWEEP_ID.fullmatch(sweep) and (data := files.get_or_none(sweep_path(sweep))):
        return _parse_sweeps(files, {sweep_path(sweep): data})
    return all_sweeps(files)


def all_sweeps(files: Files) -> list[Sweep]:
    """Read the sweeps that were asked of a store, the one run last at the end. Raises StoreError if one is damaged."""
    paths = [f"sweeps/{name}" for name in files.names("sweeps") if name.endswith(".json")]
    return _parse_sweeps(files, files.get_all(paths))


def _parse_sweeps(files: Files, contents: Mapping[str, bytes]) -> list[Sweep]:
    parsed = [(_parse_sealed(files.url, path, data), path) for path, data in contents.items()]
    parsed.sort(key=lambda document: str(document[0].get("asked")))
    return [Sweep.from_json(document, origin=f"{files.url}/{path}") for document, path in parsed]


def all_networks(files: Files) -> list[StoredNetwork]:
    """Read the networks of a store, by name. Raises StoreError if one is damaged."""
    paths = [f"networks/{name}" for name in sorted(files.names("networks")) if name.endswith(".json")]
    contents = files.get_all(paths)
    return [
        StoredNetwork.from_json(_parse_sealed(files.url, path, contents[path])) for path in paths if path in contents
    ]


def require_same_network(url: str, stored: StoredNetwork, given: StoredNetwork) -> None:
    """Raise StoreError if two networks that have one name in a store are different ones."""
    if stored.identity == given.identity:
        return
    what = _difference(stored, given)
    raise StoreError(
        f"the name {given.name} is taken in {url} by another network: {what}; "
        f"rename yours, as in 'other={given.reference}', or give another --store"
    )


def _difference(stored: StoredNetwork, given: StoredNetwork) -> str:
    if stored.behaviour and given.behaviour and stored.weights == given.weights:
        return f"{given.reference} has the same layers and weights, but its code gives other representations"
    if stored.reference != given.reference:
        return f"{stored.reference} there and {given.reference} here"
    trained = [None if each.training is None else each.training.model_dump(mode="json") for each in (stored, given)]
    if trained[0] != trained[1] and None not in trained:
        before, now = trained
        assert before is not None and now is not None
        return ", ".join(f"training.{k} is {before[k]!r} there and {now[k]!r} here" for k in now if before[k] != now[k])
    return "the training images are others" if given.training else f"the weights of {given.reference} are others"


def network_path(name: str) -> str:
    """Return the path of a network's document."""
    return f"networks/{name}.json"


def sweep_path(key: str) -> str:
    """Return the path of a sweep's document."""
    return f"sweeps/{key}.json"


def cohort_path(key: str) -> str:
    """Return the path of a cohort's document."""
    return f"cohorts/{key}.json"


def cohort_key(identities: Mapping[str, str]) -> str:
    """Return 12 hex digits that name networks, given their identities, whatever their order."""
    return blake3_hex(json.dumps(identities, sort_keys=True).encode())[:12]


def _sealed_bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(sealed(document), indent=2).encode()


def _parse_sealed(url: str, path: str, data: bytes) -> dict[str, Any]:
    """Parse a sealed document. Raises StoreError unless it is whole."""
    try:
        document = json.loads(data)
        whole = isinstance(document, dict) and is_sealed(document)
    except ValueError:
        whole = False
    if not whole:
        raise StoreError(f"{url}/{path} is damaged or was edited; restore it, or remove it and run its settings again")
    return {key: value for key, value in document.items() if key != SEAL}


def _root_document(protocol: Protocol) -> bytes:
    attributes: dict[str, Any] = {
        "format": FORMAT,
        "digest": protocol.digest(),
        "protocol": protocol.model_dump(mode="json"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    document = {"attributes": {"netsim": sealed(attributes)}, "zarr_format": 3, "node_type": "group"}
    return json.dumps(document, indent=2).encode()


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
    protocol = Protocol.model_validate(attributes["protocol"])
    if protocol.algorithm != ALGORITHM or protocol.digest() != attributes["digest"]:
        raise StoreError(f"{url} was made by another version of the algorithm; use another store")
    return attributes
