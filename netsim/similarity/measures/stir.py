"""STIR: does a network represent images alike that were made to look alike to another? Differs from inverted CKA."""

import numpy as np

from netsim.similarity.cka import similarity
from netsim.similarity.measures import Shards, measure


@measure(
    title="STIR (unbiased linear CKA)",
    reference="Nanda et al. 2022, ICML (arXiv:2206.11939)",
    takes="two sets",
    streams=True,
)
def stir(shards: Shards) -> tuple[float, np.ndarray]:
    """Compute STIR(observer | through): CKA of the observer's representations of natural and of inverted images.

    It compares one network on two sets, the second inverted through another network; inverted CKA compares two
    networks on one set.

    Returns
    -------
    value : float
        In (-1, 1]; 1 if the observer is invariant to everything to which the network inverted through is.
    replicates : array (G,)
        The value without each shard.
    """
    result = similarity(shards, [(0, 1)])[0, 1]
    return result.cka_unbiased, result.leave_one_out_unbiased
