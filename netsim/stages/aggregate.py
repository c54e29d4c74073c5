"""aggregate: the sums behind one row of a CKA matrix, over all shards and with each left out."""

from functools import partial

import numpy as np

from netsim.similarity.streaming import pair_hsic
from netsim.stages.work import StageResult
from netsim.store.layout import (
    MOMENTS,
    moments_path,
    representation_path,
    row_pairs,
    row_parts,
)
from netsim.store.metadata import Metadata
from netsim.store.provenance import check_weights, made_from
from netsim.store.records import Record
from netsim.store.run import Run


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Compute the sums behind one row of a matrix, over all shards and with each left out.

    Raises
    ------
    StoreError
        If a shard of the set is missing or damaged.
    """
    set_name, _ = row_parts(name)
    pairs = row_pairs(run.settings.names, name)
    needed = tuple(dict.fromkeys(network for pair in pairs for network in pair))
    records = run.records("embed", set_name, range(run.settings.pairs.shards))
    for record in records:
        check_weights(run, record)
    sums = pair_hsic([partial(_representations, run, record, needed) for record in records], pairs)
    moments = np.array([[getattr(sums[pair], moment) for moment in MOMENTS] for pair in pairs])
    metadata = Metadata(made_from=made_from(record.content for record in records))
    return StageResult({moments_path(name): moments}, metadata=metadata)


def _representations(run: Run, record: Record, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    paths = {name: representation_path(record.name, name) for name in names}
    values = run.read_some(record, list(paths.values()))
    return {name: values[path] for name, path in paths.items()}
