"""aggregate: the sums behind one row of a CKA matrix, over all shards and with each left out."""

import numpy as np

from netsim.similarity.streaming import pair_hsic
from netsim.stages.inputs import Represented
from netsim.stages.work import StageResult
from netsim.store.coverage import SUMS
from netsim.store.layout import MOMENTS, RowUnit, moments_path, row_parts
from netsim.store.metadata import Metadata
from netsim.store.provenance import made_from
from netsim.store.run import Run


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Compute the sums behind the cells of a cohort in one row, over all shards and with each left out.

    Raises
    ------
    StoreError
        If a shard of the set is missing or damaged.
    """
    parts, pairs = RowUnit.parse(name), SUMS.of_unit(run, name)
    needed = tuple(dict.fromkeys(network for pair in pairs for network in pair))
    represented = Represented(run, row_parts(parts.row)[0], needed, parts.shards)
    sums = pair_hsic(represented.sources, pairs)
    moments = np.array([[getattr(sums[pair], moment) for moment in MOMENTS] for pair in pairs])
    metadata = Metadata(made_from=made_from(run, ("aggregate", name, shard), represented.records))
    return StageResult({moments_path(name): moments}, metadata=metadata)
