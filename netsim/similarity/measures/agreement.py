"""Agreement: how often two networks predict the same class. n = images, k = classes."""

import numpy as np

from netsim.similarity.measures import Shards, leave_one_out, measure


@measure(
    title="Agreement of predicted classes",
    reference="Klabunde et al. 2023 (arXiv:2305.06329), section 4: 1 - disagreement",
    takes="predictions",
    streams=True,
)
def agreement(shards: Shards) -> tuple[float, np.ndarray]:
    """Compute the share of images whose largest logit is of the same class in X (n, k) and Y (n, k).

    Two networks agree by chance too, and must if both are nearly always right: `cohen_kappa` corrects for chance.
    Increasing functions of the logits do not change it. Among equal logits the first counts.

    Returns
    -------
    value : float
        In [0, 1]; 1 if all classes are the same, right or wrong. NaN without images, and for different numbers of
        classes, which then are not the same classes. Defined for a constant side.
    replicates : array (G,)
        The value without each shard.
    """
    return leave_one_out(_agreement, shards)


def _agreement(X: np.ndarray, Y: np.ndarray) -> float:
    return float((X.argmax(axis=1) == Y.argmax(axis=1)).mean()) if len(X) and X.shape == Y.shape else float("nan")
