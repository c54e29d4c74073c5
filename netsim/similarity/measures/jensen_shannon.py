"""Jensen-Shannon divergence: how differently two networks distribute probability. n = images, k = classes."""

import numpy as np

from netsim.similarity.measures import measure


@measure(
    title="Jensen-Shannon divergence of predictions (nats)",
    reference="Lin 1991, IEEE Transactions on Information Theory 37:145-151, eq. 4.1",
    takes="predictions",
)
def jensen_shannon(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute the mean over images of (KL(p | m) + KL(q | m)) / 2, where m = (p + q) / 2.

    p and q are the softmax of the logits X (n, k) and Y (n, k). Adding a number to all logits of an image does not
    change it; a scale (a temperature) does.

    Returns
    -------
    float
        A divergence in nats, in [0, ln 2]: 0 if all predictions are the same, ln 2 if no class has probability in
        both. NaN without images, and for different numbers of classes, which then are not the same classes.
    """
    from scipy.special import rel_entr, softmax

    x, y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    if not len(x) or x.shape != y.shape:
        return float("nan")
    p, q = softmax(x, axis=1), softmax(y, axis=1)
    m = (p + q) / 2
    # not scipy.spatial.distance.jensenshannon, whose root is NaN where rounding leaves a little less than 0
    return float((rel_entr(p, m) + rel_entr(q, m)).sum(axis=1).mean() / 2)
