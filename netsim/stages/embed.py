"""embed: every network's representations of one shard of a set."""

import numpy as np

from netsim.errors import NetworkError
from netsim.stages.inputs import computed_on, network, represent, set_images
from netsim.stages.work import StageResult
from netsim.store.layout import (
    representation_path,
)
from netsim.store.metadata import ComputedMetadata
from netsim.store.provenance import made_from, weights_hash
from netsim.store.run import Run


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Compute every network's representations of one shard of the set `name`.

    Raises
    ------
    NetworkError
        If a representation is not finite.
    """
    images, upstream = set_images(run, name, shard)
    arrays = {}
    for observer in run.settings.names:
        representation = represent(network(run, observer), images).numpy().astype(np.float32)
        if not np.isfinite(representation).all():
            raise NetworkError(f"the representation of {name} shard {shard} by {observer} must be finite")
        arrays[representation_path(name, observer)] = representation
    weights = {observer: weights_hash(run, observer) for observer in run.settings.names}
    metadata = ComputedMetadata(weights=weights, made_from=made_from([upstream.content]), **computed_on())
    return StageResult(arrays, metadata=metadata)
