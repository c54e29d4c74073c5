"""Agreement of two networks after retraining the linear classifier of each. n = images, k = classes, G = shards."""

import numpy as np

from netsim.similarity.measures import Shards, measure, valid_sides


@measure(
    title="Agreement after retraining classifiers",
    reference="Klabunde et al. 2025 (arXiv:2510.19427); ridge regression to one-hot labels, cross-fitted over shards",
    takes="retrained predictions",
    streams=True,
)
def retrained_agreement(shards: Shards) -> tuple[float, np.ndarray]:
    """Compute the share of images that classifiers retrained on either network's representations put into one class.

    Where it is high and `agreement` is low, networks differ in their last layer more than in what is linearly decodable
    from their representations. Classifiers are trained on the set that they classify, natural or inverted, with the
    labels of the targets, and each image is classified by one that was not shown its shard
    (`netsim.similarity.retraining.retrained_scores`).

    Returns
    -------
    value : float
        In [0, 1]; 1 if all classes are the same, right or wrong. NaN for fewer than 2 shards, where a side is
        constant, and for different numbers of classes, which then are not the same classes.
    replicates : array (G,)
        The value without the images of each shard, by the same classifiers. Training them without it as well would make
        errors 1.5 times too large: the share of images of one class is no smooth function of what it is trained on.
    """
    same = [_same_class(*valid_sides(*shard())) for shard in shards]
    without = [np.concatenate([*same[:g], *same[g + 1 :], []]) for g in range(len(same))]
    return _mean(np.concatenate(same)), np.array([_mean(values) for values in without])


def _same_class(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Compare the classes of largest score of X (n, k) and Y (n, k): 1, 0, or NaN where all of a side's are equal."""
    if not len(X) or X.shape != Y.shape:
        return np.full(len(X), np.nan)
    undefined = np.any([np.ptp(scores, axis=1) == 0 for scores in (X, Y)], axis=0)
    return np.where(undefined, np.nan, X.argmax(axis=1) == Y.argmax(axis=1))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
