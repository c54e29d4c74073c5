"""Twins: networks of a run that are the same network, because their weights are equal. M = networks.

The similarity of twins is 1 whatever the images are, as is that of a network with itself, so means leave both out.
"""

from collections.abc import Sequence

import numpy as np


def counted_cells(weights: Sequence[str], observers: Sequence[str] = ()) -> np.ndarray:
    """Select the cells that can be averaged, (M, C): those of two networks with different weights.

    Parameters
    ----------
    weights
        Hash of each network's weights: the rows, and the first columns.
    observers
        Those of the networks that only look: further columns.

    Examples
    --------
    >>> counted_cells(["x", "y", "x"]).tolist()
    [[False, True, False], [True, False, True], [False, True, False]]
    >>> counted_cells(["x", "y"], ["x"]).tolist()
    [[False, True, False], [True, False, True]]
    """
    return np.array(list(weights))[:, None] != np.array([*weights, *observers])


def comparable_cells(distinct: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Select of the cells of different weights (M, C) those of two networks of different groups, (C,).

    Examples
    --------
    >>> comparable_cells(counted_cells(["x", "y", "z"]), ["vgg", "vgg", "resnet"]).tolist()
    [[False, False, True], [False, False, True], [True, True, False]]
    """
    labels = np.array(list(groups))
    return distinct & (labels[: len(distinct), None] != labels)


def twin_groups(names: Sequence[str], weights: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Group the networks whose weights another one has too, in the order of `names`.

    Examples
    --------
    >>> twin_groups(["a", "b", "c"], ["x", "y", "x"])
    (('a', 'c'),)
    """
    groups: dict[str, list[str]] = {}
    for name, key in zip(names, weights, strict=True):
        groups.setdefault(key, []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def counted_mean(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Average cells (M, M, ...) that are `counted` (M, M), or of one row (M, ...), (M,); NaN if there is none."""
    cells = values[counted]
    return cells.mean(axis=0) if len(cells) else np.full(cells.shape[1:], np.nan)
