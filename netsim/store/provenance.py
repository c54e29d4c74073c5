"""What a unit was computed from: weights and upstream values, recorded with it and checked when it is read."""

import json
from collections.abc import Iterable, Mapping
from itertools import groupby

from blake3 import blake3

from netsim.errors import StoreError
from netsim.store.metadata import Metadata, train_metadata
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import Unit, dependencies, unit_label


def weights_hash(run: Run, name: str) -> str:
    """Which weights this run goes by."""
    if name not in run.weights:
        run.weights[name] = train_metadata(run, name).weights_hash
    return run.weights[name]


def check_weights(run: Run, record: Record) -> None:
    """Raises StoreError if a shard was computed with other weights than the run goes by now."""
    for name, used in Metadata.of(record).weights.items():
        if used != weights_hash(run, name):
            unit = unit_label((record.stage, record.name, record.shard))
            raise StoreError(f"{unit} in {run.url} was computed with other weights of {name}; {run.mend}")


def made_from(contents: Iterable[str]) -> str:
    """For a record: BLAKE3 over the `Record.content` of what a shard was computed from, in the order of
    `netsim.store.stages.sources`.
    """
    return blake3(json.dumps(list(contents)).encode()).hexdigest()


def source_records(run: Run, units: Iterable[Unit]) -> dict[Unit, Record]:
    """The records of what some units are computed from, each asked for once."""
    wanted = dict.fromkeys(source for unit in units for source in dependencies(run.settings, unit))
    found: dict[Unit, Record] = {}
    for (stage, name), group in groupby(wanted, key=lambda unit: unit[:2]):
        own = list(group)
        found |= zip(own, run.records(stage, name, [shard for _, _, shard in own]), strict=True)
    return found


def check_origin(run: Run, record: Record, known: Mapping[Unit, Record]) -> None:
    """Raises StoreError if a shard was computed from other values than those that are there, whose records are `known`.

    That is so where one of them was computed again and came out otherwise, as it may on a GPU. Records of an older
    netsim do not tell.
    """
    unit = record.stage, record.name, record.shard
    there = made_from(known[source].content for source in dependencies(run.settings, unit))
    if Metadata.of(record).made_from not in (None, there):
        raise StoreError(f"{unit_label(unit)} in {run.url} was computed from other values than are there; {run.mend}")
