"""CKA with a Gaussian kernel: similarity that includes nonlinear relations."""

import numpy as np

from netsim.similarity.blocked import blocked_similarity
from netsim.similarity.measures import Shards, measure


@measure(
    title="RBF CKA (unbiased, blocks)",
    reference="Kornblith et al. 2019, ICML (arXiv:1905.00414), section 4; Nguyen et al. 2021 (arXiv:2010.15327), eq. 3",
    streams=True,
)
def rbf_cka(shards: Shards) -> tuple[float, np.ndarray]:
    """Compute unbiased CKA of X (n, d) and Y (n, d') with kernel exp(-|x - y|^2 / (2 sigma^2)); each shard is a block.

    sigma is the median distance of two images of one shard, over all shards of the side. Rotation, shift and scale of
    either side do not change the value, nor does the order of shards.

    Returns
    -------
    value : float
        At most about 1, for sides that are equal up to these. About 0 for unrelated rows, and may be below. NaN if a
        side is constant, or if at least half of those distances are 0, so that there is no bandwidth: most images are
        then represented alike. `netsim.similarity.blocked.blocked_similarity` returns which side, and why.
    replicates : array (G,)
        The value without each shard.

    Raises
    ------
    DataError
        A shard of fewer than 4 images.
    """
    result = blocked_similarity(shards, [(0, 1)], kernel="rbf")[0, 1]
    return result.cka, result.leave_one_out
