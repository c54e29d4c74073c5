"""Provenance of units: weights and upstream values, recorded with each unit and compared when it is read."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache

from blake3 import blake3

from netsim.errors import StoreError
from netsim.store.metadata import Metadata, train_metadata
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import Unit, dependencies, unit_label


@lru_cache(maxsize=1024)
def weights_hash(run: Run, name: str) -> str:
    """Return the hash of a network's weights as the run recorded it. Read once for each `Run`."""
    return train_metadata(run, name).weights_hash


def check_weights(run: Run, record: Record) -> None:
    """Raise StoreError if a unit was computed with other weights than the run has now."""
    for name, used in Metadata.of(record).weights.items():
        if used != weights_hash(run, name):
            unit = unit_label((record.stage, record.name, record.shard))
            raise StoreError(f"{unit} in {run.url} was computed with other weights of {name}; {run.repair_hint}")


def made_from(contents: Iterable[str]) -> str:
    """Hash what a unit was computed from: `Record.content` of its upstream units, in the order of `dependencies`."""
    return blake3(json.dumps(list(contents)).encode()).hexdigest()


def dependency_records(run: Run, units: Iterable[Unit]) -> dict[Unit, Record]:
    """Read the records of everything that some units are computed from, each once."""
    return run.records_of(dict.fromkeys(upstream for unit in units for upstream in dependencies(run.settings, unit)))


def check_origin(run: Run, record: Record, known: Mapping[Unit, Record]) -> None:
    """Raise StoreError if a unit was computed from other values than the store has now.

    That happens where an upstream unit was computed again and came out differently, as it may on a GPU. Records of an
    older netsim do not say what they were made from.

    Parameters
    ----------
    known
        The records of the unit's upstream units, at least.
    """
    unit = record.stage, record.name, record.shard
    stored = made_from(known[upstream].content for upstream in dependencies(run.settings, unit))
    if Metadata.of(record).made_from not in (None, stored):
        raise StoreError(
            f"{unit_label(unit)} in {run.url} was computed from other values than the store has now; {run.repair_hint}"
        )
