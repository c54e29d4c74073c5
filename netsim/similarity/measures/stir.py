"""STIR: does a network see the same in images as another that they were made for? Not the same as inverted CKA."""

import numpy as np

from netsim.similarity.cka import similarity
from netsim.similarity.measures import Shards, measure


@measure(
    title="STIR (unbiased linear CKA)",
    source="Nanda et al. 2022, ICML (arXiv:2206.11939)",
    takes="two sets",
    streams=True,
)
def stir(shards: Shards) -> tuple[float, np.ndarray]:
    """STIR(observer | through) = CKA of what the observer says of natural images, and of those inverted through.

    One network on two sets, where inverted CKA is two networks on one set. In (-1, 1]; 1 if the observer is
    invariant to everything that the network inverted through is.
    """
    found = similarity(shards, [(0, 1)])[0, 1]
    return found.cka_unbiased, found.left_out_unbiased
