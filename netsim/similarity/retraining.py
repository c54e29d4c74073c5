"""Classes that a linear classifier predicts after it was retrained on representations, for images it was not shown.

G = shards, s = images in a shard, n = G s, d = features, k = classes.

The classifier is ridge regression to one-hot labels, which has a closed form: its predictions for a shard (or two) that
it was not trained on follow from those of the classifier that saw all images,

    y_B - (I - H_BB)^-1 (y_B - (H y)_B)

where H = 11'/n + X (X'X + r I)^-1 X' of centred X maps labels to predictions, and B are the rows left out. So all
n (1 + G) predictions cost one inverse of d features and small systems, instead of a training for each two shards.

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


def retrained_classes(shards: np.ndarray, labels: ArrayLike) -> np.ndarray:
    """Predict the class of every image by a linear classifier that was retrained on the other shards.

    Parameters
    ----------
    shards
        Representations (G, s, d).
    labels
        Classes of the images, (G, s) whole numbers.

    Returns
    -------
    numpy.ndarray
        (G, s, 1 + G) numbers of predicted classes, from 0, in the order of their labels. In the first column the
        classifier was trained on all shards but that of the image, in column 1 + g without shard g as well. NaN in
        column 1 + g of shard g itself, where no shard is left to train on, and for constant representations or labels.

    Raises
    ------
    DataError
        If representations are not finite, or there is not one label for each image.

    References
    ----------
    Golub, Heath, Wahba 1979; see the module. It is scikit-learn's RidgeClassifier with alpha =
    `RIDGE` sum |x - mean x|^2 / n, trained once for each two shards.

    Examples
    --------
    >>> labels = np.tile([0, 1, 2], (4, 2))
    >>> shards = 5 * np.eye(3)[labels] + np.random.default_rng(0).normal(size=(4, 6, 3))
    >>> predicted = retrained_classes(shards, labels)
    >>> predicted.shape, float((predicted[..., 0] == labels).mean()), bool(np.isnan(predicted[2, :, 3]).all())
    ((4, 6, 5), 1.0, True)
    """
    count, size, _ = shards.shape
    kinds, codes = np.unique(np.asarray(labels), return_inverse=True)
    if np.shape(labels) != (count, size):
        raise DataError(f"labels must be {(count, size)}, got {np.shape(labels)}. Give every image its class.")
    classes = np.full((count, size, 1 + count), np.nan)
    hat = _square_root_of_hat(shards.reshape(count * size, -1))
    if hat is None or len(kinds) < 2 or count < 2:
        return classes
    one_hot = np.eye(len(kinds))[codes.ravel()]
    residual = one_hot - one_hot.mean(axis=0) - hat @ (hat.T @ one_hot)
    hats, targets, residuals = (each.reshape(count, size, -1) for each in (hat, one_hot, residual))
    for shard in range(count):
        classes[shard, :, 0] = _left_out(hats[[shard]], targets[[shard]], residuals[[shard]], of=count * size)
        for other in range(count) if count > 2 else ():
            if other != shard:
                rows = [shard, other]
                classes[shard, :, 1 + other] = _left_out(hats[rows], targets[rows], residuals[rows], of=count * size)
    return classes


def _square_root_of_hat(rows: np.ndarray) -> np.ndarray | None:
    """Return Z (n, min(n, d)) so that the hat matrix is 11'/n + Z Z'; None for constant rows."""
    from scipy.linalg import cholesky, solve_triangular

    valid = without_rounding(validate_rows(rows, "representations"), precision(rows))
    centred = moderate(valid.astype(np.float64))
    centred = centred - centred.mean(axis=0) if len(centred) and np.ptp(centred, axis=0).any() else centred[:0]
    if not len(centred):
        return None
    if centred.shape[1] > len(centred):  # as many coordinates as images have the same inner products
        centred = np.linalg.qr(centred.T, mode="r").T
    gram = centred.T @ centred
    penalty = RIDGE * np.trace(gram) / len(centred)
    lower = cholesky(gram + penalty * np.eye(len(gram)), lower=True)
    return np.asarray(solve_triangular(lower, centred.T, lower=True).T)


def _left_out(hats: np.ndarray, targets: np.ndarray, residuals: np.ndarray, *, of: int) -> np.ndarray:
    """Predict classes of the first of some shards that are left out of n rows: (s,)."""
    size = hats.shape[1]
    hat, target, residual = (each.reshape(-1, each.shape[-1]) for each in (hats, targets, residuals))
    among = np.eye(len(hat)) - 1 / of - hat @ hat.T
    scores = (target - np.linalg.solve(among, residual))[:size]
    return np.asarray(scores.argmax(axis=1), dtype=np.float64)
