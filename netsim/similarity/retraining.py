"""Predictions of a linear classifier that was retrained on representations, for images it was not shown.

G = shards, s = images in a shard, n = G s, d = features, k = classes.

The classifier is ridge regression to one-hot labels, which has a closed form: its predictions for a shard B that it was
not trained on follow from those of the classifier that saw all images,

    y_B - (I - H_BB)^-1 (y_B - (H y)_B)

where H = 11'/n + X (X'X + r I)^-1 X' of centred X maps labels to predictions. So one inverse gives the predictions of G
classifiers.

Sources: Klabunde et al. 2025, Revisiting the relation between robustness and universality, arXiv:2510.19427, who
retrain classifiers to see whether networks differ in them or in their representations; Golub, Heath, Wahba 1979,
Generalized cross-validation as a method for choosing a good ridge parameter, Technometrics 21, 215-223, eq. 1.4, for
rows left out (here in blocks).
"""

import numpy as np
from numpy.typing import ArrayLike

from netsim.errors import DataError
from netsim.similarity.rows import moderate, precision, validate_rows, without_rounding

RIDGE = 0.01
"""Penalty of the classifier, as a share of the mean square length of centred representations."""


def retrained_scores(shards: np.ndarray, labels: ArrayLike) -> np.ndarray:
    """Predict every image by a linear classifier that was retrained on the other shards.

    Parameters
    ----------
    shards
        Representations (G, s, d).
    labels
        Classes of the images, (G, s) whole numbers.

    Returns
    -------
    numpy.ndarray
        (G, s, k) scores; the largest is that of the predicted class, in the order of the labels. 0 for
        every class, which predicts none, for a single shard, which leaves none to train on, for constant
        representations, and if all labels are the same.

    Raises
    ------
    DataError
        If representations are not finite, or there is not one label for each image.

    References
    ----------
    Golub, Heath, Wahba 1979; see the module. Scores are those of scikit-learn's Ridge, and classes those of its
    RidgeClassifier, with alpha = `RIDGE` sum |x - mean x|^2 / n of all images, trained once for each shard.

    Examples
    --------
    >>> labels = np.tile([0, 1, 2], (4, 2))
    >>> shards = 5 * np.eye(3)[labels] + np.random.default_rng(0).normal(size=(4, 6, 3))
    >>> scores = retrained_scores(shards, labels)
    >>> scores.shape, float((scores.argmax(axis=-1) == labels).mean())
    ((4, 6, 3), 1.0)
    """
    count, size, _ = shards.shape
    if np.shape(labels) != (count, size):
        raise DataError(f"labels must be {(count, size)}, got {np.shape(labels)}. Give every image its class.")
    kinds, codes = np.unique(np.asarray(labels), return_inverse=True)
    root = _root_of_hat(shards.reshape(count * size, -1))
    if root is None or len(kinds) < 2 or count < 2:
        return np.zeros((count, size, len(kinds)))
    targets = np.eye(len(kinds))[codes.ravel()]
    residuals = targets - targets.mean(axis=0) - root @ (root.T @ targets)
    roots, targets, residuals = (each.reshape(count, size, -1) for each in (root, targets, residuals))
    seen = np.eye(size) - 1 / (count * size) - roots @ roots.swapaxes(1, 2)
    return np.asarray(targets - np.linalg.solve(seen, residuals))


def _root_of_hat(rows: np.ndarray) -> np.ndarray | None:
    """Return Z (n, min(n, d)) so that the hat matrix is 11'/n + Z Z'; None for constant rows."""
    from scipy.linalg import cholesky, solve_triangular

    valid = moderate(without_rounding(validate_rows(rows, "representations"), precision(rows)).astype(np.float64))
    if not len(valid) or not np.ptp(valid, axis=0).any():
        return None
    centred = valid - valid.mean(axis=0)
    if centred.shape[1] > len(centred):  # as many coordinates as images have the same inner products
        centred = np.linalg.qr(centred.T).R.T
    gram = centred.T @ centred
    penalty = RIDGE * np.trace(gram) / len(centred)
    lower = cholesky(gram + penalty * np.eye(len(gram)), lower=True)
    return np.asarray(solve_triangular(lower, centred.T, lower=True).T)
