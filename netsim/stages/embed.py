"""embed: the representations of one shard of a set by a cohort of networks."""

import numpy as np

from netsim.errors import NetworkError
from netsim.stages.inputs import computed_on, network, represent, set_images
from netsim.stages.work import StageResult
from netsim.store.layout import representation_path
from netsim.store.metadata import ComputedMetadata
from netsim.store.provenance import made_from, weights_hash
from netsim.store.run import Run


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Compute the representations of one shard of a set by every network of a cohort; `name` is `<set>/<cohort>`.

    Raises
    ------
    NetworkError
        If a representation is not finite.
    """
    set_name, _, cohort = name.rpartition("/")
    images, upstream = set_images(run, set_name, shard)
    arrays, weights = {}, {}
    for observer in run.cohort(cohort):
        representation = represent(network(run, observer), images).numpy().astype(np.float32)
        if not np.isfinite(representation).all():
            raise NetworkError(f"the representation of {set_name} shard {shard} by {observer} must be finite")
        arrays[representation_path(set_name, observer)] = representation
        weights[observer] = weights_hash(run, observer)
    origin = made_from(run, ("embed", name, shard), [upstream])
    return StageResult(arrays, metadata=ComputedMetadata(weights=weights, made_from=origin, **computed_on()))
