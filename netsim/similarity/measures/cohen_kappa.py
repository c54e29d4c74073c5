"""Cohen's kappa: agreement of predicted classes beyond chance. n = images, k = classes."""

import numpy as np

from netsim.similarity.measures import measure


@measure(
    title="Cohen's kappa of predicted classes",
    reference="Cohen 1960, Educational and Psychological Measurement 20:37-46",
    takes="predictions",
)
def cohen_kappa(X: np.ndarray, Y: np.ndarray) -> float:
    """Compute (a - c) / (1 - c) for the classes with the largest logit in X (n, k) and Y (n, k).

    a is `agreement`; c is the agreement expected of independent networks with the same class frequencies. Increasing
    functions of the logits do not change it. It compares predictions, not correctness: the error consistency of
    Geirhos et al. 2020 is a different measure.

    Returns
    -------
    float
        In [-1, 1]; 1 if all classes are the same, about 0 for unrelated rows. NaN without images, for different
        numbers of classes, and if both sides always predict the same single class.
    """
    from sklearn.metrics import cohen_kappa_score

    x, y = np.asarray(X), np.asarray(Y)
    if not len(x) or x.shape != y.shape:
        return float("nan")
    classes = x.argmax(axis=1), y.argmax(axis=1)
    if len(np.union1d(*classes)) == 1:  # 0 / 0, of which scikit-learn warns
        return float("nan")
    return float(cohen_kappa_score(*classes))
