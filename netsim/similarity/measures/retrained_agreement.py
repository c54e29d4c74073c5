"""Agreement of two networks after retraining the linear classifier of each. n = images, G = shards."""

import numpy as np

from netsim.similarity.measures import Shards, measure


@measure(
    title="Agreement after retraining classifiers",
    reference="Klabunde et al. 2025 (arXiv:2510.19427); ridge regression to one-hot labels, cross-fitted over shards",
    takes="retrained classes",
    streams=True,
)
def retrained_agreement(shards: Shards) -> tuple[float, np.ndarray]:
    """Compute the share of images that classifiers retrained on either network's representations put into one class.

    Where it is high and `agreement` is low, networks differ in their last layer more than in what is linearly decodable
    from their representations. Classifiers are trained on the same set that they classify, natural or inverted, with
    the labels of the targets, and each image is classified by one that was not shown its shard
    (`netsim.similarity.retraining.retrained_classes`).

    Returns
    -------
    value : float
        In [0, 1]; 1 if all classes are the same, right or wrong. NaN for fewer than 2 shards, and where a side is
        constant.
    replicates : array (G,)
        The value without each shard, with classifiers that were trained without it; NaN for fewer than 3.
    """
    parts = [shard() for shard in shards]
    both = np.concatenate([np.where(np.isnan(x) | np.isnan(y), np.nan, x == y) for x, y in parts])
    defined = ~np.isnan(both)
    value, *replicates = (
        float(column[kept].mean()) if kept.any() else float("nan")
        for column, kept in zip(both.T, defined.T, strict=True)
    )
    return value, np.array(replicates)
