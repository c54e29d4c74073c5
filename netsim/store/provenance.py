"""Provenance of units: weights and upstream values, recorded with each unit and compared when it is read."""

import json
from collections.abc import Iterable
from functools import lru_cache

from blake3 import blake3

from netsim.errors import StoreError, UnreachableError
from netsim.store.coverage import SUMS, embedded
from netsim.store.layout import NATURAL, ROLES, SEED, RowUnit, images_path, moments_path, representation_path, row_parts
from netsim.store.metadata import Metadata, ReportMetadata, train_metadata
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import Unit, unit_label

Part = tuple[str, int]
"""Path of an array, shard."""


@lru_cache(maxsize=1024)
def weights_hash(run: Run, name: str) -> str:
    """Return the hash of a network's weights as the run recorded it. Read once for each `Run`."""
    return train_metadata(run, name).weights_hash


def check_weights(run: Run, record: Record) -> None:
    """Raise StoreError if a unit was computed with other weights than the run has now."""
    for name, used in Metadata.of(record).weights.items():
        # others may have been dropped from the store
        if name in run.sweep.columns and used != weights_hash(run, name):
            unit = unit_label((record.stage, record.name, record.shard))
            raise StoreError(f"{unit} in {run.url} was computed with other weights of {name}; {run.repair_hint}")


class Contents:
    """Hashes of arrays by path and shard, as records have them."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._hashes: dict[Part, str] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Add the arrays of a record, but those that an earlier one has."""
        for path, content in record.arrays.items():
            self._hashes.setdefault((path, record.shard), content)

    def __contains__(self, part: Part) -> bool:
        return part in self._hashes

    def hash_of(self, parts: Iterable[Part]) -> str:
        """Hash parts (path, shard) of arrays, in order: what a unit was made from."""
        return blake3(json.dumps([self._hashes[part] for part in parts]).encode()).hexdigest()


def sources(run: Run, unit: Unit, *, two_sets: bool = False) -> list[Part]:
    """List the parts (path, shard) of arrays that a unit is computed from. Weights are recorded apart.

    With `two_sets`, a unit of `measure` compares its set with the natural one. A report has its own: `report_metadata`.
    """
    stage, name, shard = unit
    if stage == "invert":
        return [("images/seed", shard), ("images/target", shard)]
    if stage == "embed":
        return [(images_path(name.rpartition("/")[0]), shard)]
    if stage == "layers":  # <key>/<set>
        return [(images_path(name.partition("/")[2]), shard)]
    if stage == "aggregate":
        parts = RowUnit.parse(name)
        return _represented(run, parts, [row_parts(parts.row)[0]])
    if stage == "control":
        parts = RowUnit.parse(name)
        labels = [(f"pairs/{role}_label", shard) for role in ROLES for shard in range(parts.shards)]
        return [*labels, *_represented(run, parts, [NATURAL, SEED, row_parts(parts.row)[0]])]
    if stage == "measure":  # <measure>/<row>/<cohort>-<shards>
        parts = RowUnit.parse(name.partition("/")[2])
        return _represented(run, parts, [*([NATURAL] if two_sets else []), row_parts(parts.row)[0]])
    return []


def sources_of(run: Run, record: Record) -> list[Part]:
    """List the parts of arrays that a unit was computed from, given its record; see `sources`."""
    if record.stage == "report":
        return [(moments_path(unit), 0) for unit in ReportMetadata.of(record).sums]
    return sources(run, (record.stage, record.name, record.shard), two_sets=compares_two_sets(record))


def report_metadata(run: Run) -> ReportMetadata:
    """Describe the sums that a report on a sweep shows now."""
    units = sorted({unit for pairs in SUMS.covered(run, run.done("aggregate")).values() for unit in pairs.values()})
    contents = Contents(run.records_of(("aggregate", unit, 0) for unit in units).values())
    return ReportMetadata(sums=units, made_from=contents.hash_of((moments_path(unit), 0) for unit in units))


def _represented(run: Run, parts: RowUnit, sets: Iterable[str]) -> list[Part]:
    """List the representations of a row's network and of a cohort, of some sets, shard by shard."""
    names = sorted({row_parts(parts.row)[1], *run.cohort(parts.cohort)})
    return [
        (representation_path(set_name, name), shard)
        for set_name in sets
        for shard in range(parts.shards)
        for name in names
    ]


def made_from(run: Run, unit: Unit, records: Iterable[Record], *, two_sets: bool = False) -> str:
    """Hash what a unit is computed from, given the records of it; see `sources`."""
    return Contents(records).hash_of(sources(run, unit, two_sets=two_sets))


def source_units(run: Run, record: Record) -> list[Unit]:
    """List the units that have what a unit of any stage was computed from, given its record."""
    parts = sources_of(run, record)
    return list(dict.fromkeys(_unit_of(run, part) for part in parts))


@lru_cache(maxsize=1024)
def _coverage(run: Run, set_name: str) -> dict[tuple[str, int], dict[str, str]]:
    return embedded(run, run.done("embed", [set_name]))


def _unit_of(run: Run, part: Part) -> Unit:
    """Find the unit that has a part of an array."""
    path, shard = part
    kind, _, rest = path.partition("/")
    if kind in ("images", "pairs"):
        return "draw", "pairs", shard
    if kind == "inverted":
        return "invert", rest.rpartition("/")[0], shard
    if kind == "similarity":
        return "aggregate", rest.removesuffix("/moments"), 0
    set_name, _, observer = rest.rpartition("/")
    unit = _coverage(run, set_name).get((set_name, shard), {}).get(observer)
    if unit is None:
        raise StoreError(f"embed {set_name} shard {shard} by {observer} is not done in {run.url}")
    return "embed", unit, shard


def is_current(run: Run, unit: Unit) -> bool:
    """Return False for a comparison with a network that was dropped and whose name another one has now."""
    stage, name, _ = unit
    if stage not in ("aggregate", "control", "measure"):
        return True
    cohort, columns = run.cohort(RowUnit.parse(name).cohort), run.sweep.columns
    return all(run.sweep.network(each).identity == key for each, key in cohort.items() if each in columns)


def compares_two_sets(record: Record) -> bool:
    """Return True if a record is of a measure that compares two sets."""
    return bool(record.facts.get("two_sets"))


def check_origin(run: Run, record: Record, contents: Contents) -> None:
    """Raise StoreError if a unit was computed from other values than the store has now.

    That happens where an upstream unit was computed again and came out differently, as it may on a GPU.

    Parameters
    ----------
    contents
        Those of records that the unit was computed from; what it lacks is read.
    """
    unit = record.stage, record.name, record.shard
    if not is_current(run, unit):
        return
    parts = sources_of(run, record)
    if not _complete(run, parts, contents):
        return
    if Metadata.of(record).made_from not in (None, contents.hash_of(parts)):
        raise StoreError(
            f"{unit_label(unit)} in {run.url} was computed from other values than the store has now; {run.repair_hint}"
        )


def _complete(run: Run, parts: Iterable[Part], contents: Contents) -> bool:
    """Add what `contents` lacks of parts, and return whether the store has all: networks may have been dropped."""
    lacking = [part for part in parts if part not in contents]
    if not lacking:
        return True
    try:
        for record in run.records_of(dict.fromkeys(_unit_of(run, part) for part in lacking)).values():
            contents.add(record)
    except UnreachableError:
        raise
    except StoreError:
        return False
    return all(part in contents for part in lacking)


def check_origins(run: Run, records: Iterable[Record]) -> None:
    """Check units as `check_origin` does, after reading the records of what they were computed from."""
    records = list(records)
    units = dict.fromkeys(unit for record in records for unit in known_sources(run, record))
    contents = Contents(run.records_of(units).values())
    for record in records:
        check_origin(run, record, contents)


def known_sources(run: Run, record: Record) -> list[Unit]:
    """List the units that a unit was computed from; none where one of them is not known.

    It may be missing, or be of a network that the sweep does not show.
    """
    try:
        return source_units(run, record)
    except UnreachableError:
        raise
    except StoreError:
        return []
