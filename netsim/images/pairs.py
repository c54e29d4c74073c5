"""Pairs of a seed (the image that is moved) and a target (the image it is moved towards) with different labels.

n = pairs. Pair k is a function of the labels, `rng_seed` and k only, so a longer run keeps the pairs of a shorter one,
and every shard can be drawn independently. All targets are different images, because CKA counts an image that occurs
twice as similarity (the naive bootstrap reports 0.026 where there is none). Seeds are drawn independently and may
repeat.

Source: Jones et al. 2022, PMLR 180:928-937, and its authors' blog: random pairs with different labels.
"""

from dataclasses import dataclass

import numpy as np

from netsim.errors import DataError, SettingsError

# Unbiased CKA is defined from 4 rows on.
FEWEST_PAIRS = 4


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images: positions in the image set, and their labels.

    Attributes
    ----------
    seed, target : arrays (n,) of int64
        Positions of the images.
    seed_label, target_label : arrays (n,) of int64
        Labels of the images; the two differ in every pair.
    """

    seed: np.ndarray
    target: np.ndarray
    seed_label: np.ndarray
    target_label: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def draw_pairs(labels: np.ndarray, count: int, *, rng_seed: int = 0, start: int = 0) -> Pairs:
    """Draw pairs of a seed image and a target image whose labels differ.

    Pair k does not depend on `count` or `start`: a longer draw begins with the pairs of a shorter one. The target of
    pair k is at position k of one random permutation of the images, so all targets are different. Its seed is drawn
    uniformly from all images with another label, and may occur again in another pair.

    Parameters
    ----------
    labels
        (images,) whole numbers: the class of each image, at least two different ones.
    count
        Number of pairs, at least 1.
    rng_seed
        Seed of the random numbers, 0 to 2**32 - 1.
    start
        Index of the first pair. `start + count` must be at least 4, because unbiased CKA requires 4 pairs, and at most
        the number of images.

    Returns
    -------
    Pairs
        The pairs `start` to `start + count - 1`: positions `seed` and `target` in `labels`, and the labels there,
        `seed_label` and `target_label`; all int64 of shape (count,).

    Raises
    ------
    DataError
        If `labels` are not whole numbers of shape (images,) or all the same, or if `start + count` is below 4 or
        exceeds the number of images.
    SettingsError
        If `count`, `rng_seed` or `start` is out of range.

    References
    ----------
    Jones, Springer, Kenyon, Moore 2022, "If you've trained one you've trained them all: inter-architecture similarity
    increases with robustness", UAI, PMLR 180:928-937.

    Examples
    --------
    >>> import numpy as np
    >>> from netsim import draw_pairs
    >>> labels = np.arange(100) % 10
    >>> pairs = draw_pairs(labels, 5)
    >>> pairs.target.tolist(), pairs.target_label.tolist()
    ([74, 67, 17, 45, 35], [4, 7, 7, 5, 5])
    >>> pairs.seed.tolist(), pairs.seed_label.tolist()
    ([68, 64, 89, 54, 4], [8, 4, 9, 4, 4])

    The last two of these pairs, drawn as a shard:

    >>> draw_pairs(labels, 2, start=3).target.tolist()
    [45, 35]
    """
    labels = _validate_labels(labels)
    _validate_range(labels, count=count, rng_seed=rng_seed, start=start)

    # [rng_seed] alone would be the stream of pair 0: numpy pads entropy with zeros
    permutation = np.random.default_rng([rng_seed, 0, 1]).permutation(len(labels))
    target = permutation[start : start + count].astype(np.int64)

    # sorted by label, the images of one label are a block; draw among the others and step over the block
    by_label = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[by_label], labels[target], side="left")
    block = np.searchsorted(labels[by_label], labels[target], side="right") - first
    others = len(labels) - block
    drawn = np.array([_draw(rng_seed, start + k, below=others[k]) for k in range(count)], dtype=np.int64)
    seed = by_label[np.where(drawn < first, drawn, drawn + block)].astype(np.int64)

    return Pairs(seed=seed, target=target, seed_label=labels[seed], target_label=labels[target])


def _draw(rng_seed: int, pair: int, *, below: int) -> int:
    return int(np.random.default_rng([rng_seed, pair]).integers(below))


def _validate_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels as int64. Raise DataError unless they are whole numbers (images,) and not all the same."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels must be whole numbers of shape (images,), got {labels.dtype} of shape {labels.shape}")
    classes = len(np.unique(labels))
    if classes < 2:
        raise DataError(
            f"labels must have at least 2 different values, got {classes} in {len(labels)} images; "
            "add images of another class"
        )
    return labels.astype(np.int64)


def _validate_range(labels: np.ndarray, *, count: int, rng_seed: int, start: int) -> None:
    """Raise SettingsError or DataError unless the pairs `start` to `start + count - 1` can be drawn."""
    images = len(labels)
    if start < 0:
        raise SettingsError(f"start must be at least 0, got {start}")
    if count < 1:
        raise SettingsError(f"count must be at least 1, got {count}")
    if not 0 <= rng_seed < 2**32:
        raise SettingsError(f"rng_seed must be 0 to {2**32 - 1}, got {rng_seed}")
    if start + count < FEWEST_PAIRS:
        raise DataError(f"CKA requires at least {FEWEST_PAIRS} pairs, got {start + count}; draw more pairs")
    if start + count > images:
        raise DataError(
            f"{start + count} pairs require as many different targets, got {images} images; "
            f"draw at most {max(images - start, 0)} pairs from pair {start} on, or add images"
        )
