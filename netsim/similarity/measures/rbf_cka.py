"""CKA with a Gaussian kernel: similarity that is not only linear."""

import numpy as np

from netsim.similarity.blocked import blocked_similarity
from netsim.similarity.measures import Shards, measure


@measure(
    title="RBF CKA (unbiased, blocks)",
    source="Kornblith et al. 2019, ICML (arXiv:1905.00414), section 4; Nguyen et al. 2021 (arXiv:2010.15327), eq. 3",
    streams=True,
)
def rbf_cka(shards: Shards) -> tuple[float, np.ndarray]:
    """Unbiased CKA of X (n, d) and Y (n, d') with kernel exp(-|x - y|^2 / (2 sigma^2)); each shard is a block.

    sigma is the median distance of two images of the side's first shard. At most about 1, which is reached by sides
    that are equal up to rotation, shift and scale; these do not change it. About 0 for unrelated rows, and may be
    below. NaN if a side is constant. Raises DataError for a shard of fewer than 4 images.
    """
    found = blocked_similarity(shards, [(0, 1)], kernel="rbf")[0, 1]
    return found.cka, found.left_out
