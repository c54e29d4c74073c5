"""Cohen's kappa: agreement of predicted classes beyond chance. n = images, k = classes."""

import numpy as np
from sklearn.metrics import cohen_kappa_score

from netsim.similarity.measures import measure


@measure(
    title="Cohen's kappa of predicted classes",
    source="Cohen 1960, Educational and Psychological Measurement 20:37-46",
    takes="predictions",
)
def cohen_kappa(X: np.ndarray, Y: np.ndarray) -> float:
    """(a - c) / (1 - c) of the classes with the largest logit in X (n, k) and Y (n, k).

    a is `agreement`, c what it would be if the networks were independent, each with its own frequencies of classes. In
    [-1, 1]; 1 if all classes are the same, about 0 for unrelated rows. Any increasing function of the logits
    leaves it as it is. Of predictions, not of being right: the error consistency of Geirhos et al. 2020 is another.
    NaN without images, for different numbers of classes, and if both sides always predict one and the same.
    """
    x, y = np.asarray(X), np.asarray(Y)
    if not len(x) or x.shape != y.shape:
        return float("nan")
    classes = x.argmax(axis=1), y.argmax(axis=1)
    if len(np.union1d(*classes)) == 1:  # 0 / 0, of which scikit-learn warns
        return float("nan")
    return float(cohen_kappa_score(*classes))
