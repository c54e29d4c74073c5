"""Pairs of a seed (the image that is moved) and a target (the image it is moved towards).

n = pairs; c = a class. Pair k is a function of the labels, the pictures, `rng_seed`, `seed_draw` and k only, so a
longer run keeps the pairs of a shorter one, and every shard can be drawn independently. All targets are different
pictures, because CKA counts a picture that occurs twice as similarity (0.08, 0.25 and 0.39 where there is none, if 6,
26 and 64 of 256 occur twice). No seed is used again while another fits, because what pairs with the same seed share
makes inverted CKA too low (0.12 instead of 0.20 in a simulation of 20 pairs of 20 images with seeds drawn with
replacement).

Source: Jones et al. 2022, PMLR 180:928-937, and its authors' blog: random pairs with different labels. That makes the
class of the seed a function of the target's where classes are few (docs/concepts/seeds.md), so labels may also be drawn
independently.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from netsim.errors import DataError, SettingsError

# Unbiased CKA is defined from 4 rows on.
FEWEST_PAIRS = 4

SeedLabels = Literal["other", "any"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images: positions in the image set, and their labels.

    Attributes
    ----------
    seed, target : arrays (n,) of int64
        Positions of the images.
    seed_label, target_label : arrays (n,) of int64
        Labels of the images; the two differ in every pair, unless seeds may have any label.
    """

    seed: np.ndarray
    target: np.ndarray
    seed_label: np.ndarray
    target_label: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def draw_pairs(
    labels: np.ndarray,
    count: int,
    *,
    pictures: ArrayLike | None = None,
    rng_seed: int = 0,
    start: int = 0,
    seed_labels: SeedLabels = "other",
    seed_draw: int = 0,
    shard_size: int = 1,
) -> Pairs:
    """Draw pairs of a seed image and a target image, whose labels differ by default.

    Pair k does not depend on `count` or `start`: a longer draw begins with the pairs of a shorter one. The target of
    pair k is at position k of one random permutation of the pictures, so all targets are different. Its seed is drawn
    from the pictures of other labels that were seeds least often so far. All n seeds of all n pairs are different,
    unless more than half of the pictures have one label.

    Parameters
    ----------
    labels
        (images,) whole numbers: the class of each image, at least two different ones.
    count
        Number of pairs, at least 1.
    pictures
        (images,) whole numbers, equal where two images are the same picture: only the first of those takes part.
        Default: all images are different pictures.
    rng_seed
        Seed of the random numbers, 0 to 2**32 - 1.
    start
        Index of the first pair. `start + count` must be at least 4, because unbiased CKA requires 4 pairs, and at most
        the number of pictures.
    seed_labels
        "other": the label of a seed differs from that of its target, as published. "any": the label of a seed says
        nothing about that of its target. Seed and target are different pictures either way.
    seed_draw
        Which draw of seeds, 0 to 2**32 - 1: pair k has the same target in every draw, and its seed is drawn anew.
    shard_size
        Pairs in a shard: if there are too few images, the error message proposes a number of whole shards.

    Returns
    -------
    Pairs
        The pairs `start` to `start + count - 1`: positions `seed` and `target` in `labels`, and the labels there,
        `seed_label` and `target_label`; all int64 of shape (count,).

    Raises
    ------
    DataError
        If `labels` are not whole numbers of shape (images,) or all the same, if `pictures` has another length, or if
        `start + count` is below 4 or exceeds the number of pictures.
    SettingsError
        If `count`, `rng_seed`, `start` or `seed_draw` is out of range, or `seed_labels` is neither.

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
    ([0, 64, 49, 91, 17], [0, 4, 9, 1, 7])

    The last two of these pairs, drawn as a shard, and other seeds for their targets:

    >>> draw_pairs(labels, 2, start=3).target.tolist()
    [45, 35]
    >>> again = draw_pairs(labels, 2, start=3, seed_draw=1)
    >>> again.target.tolist(), again.seed.tolist()
    ([45, 35], [41, 69])
    """
    if seed_labels not in ("other", "any"):
        raise SettingsError(f"seed_labels must be other or any, got {seed_labels!r}")
    labels = _validate_labels(labels)
    distinct = first_of_each(labels, pictures)
    _validate_classes(labels[distinct])
    _validate_range(labels, distinct, count=count, start=start, shard_size=shard_size)
    _validate_streams(rng_seed=rng_seed, seed_draw=seed_draw)

    # [rng_seed] alone would be the stream of [rng_seed, 0]: numpy pads entropy with zeros
    target = distinct[np.random.default_rng([rng_seed, 0, 1]).permutation(len(distinct))]
    rng = np.random.default_rng([rng_seed, seed_draw, 2])
    order = _seed_order(labels[target], start + count, rng) if seed_labels == "other" else _rotated(len(target), rng)
    seed = target[order[start : start + count]]
    target = target[start : start + count]
    return Pairs(seed=seed, target=target, seed_label=labels[seed], target_label=labels[target])


def _rotated(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return the order of n targets as seeds: the same one, begun elsewhere. It is random, and none is its own seed."""
    return np.roll(np.arange(n), -int(rng.integers(1, n)))


def first_of_each(labels: np.ndarray, pictures: ArrayLike | None) -> np.ndarray:
    """Return the positions of the first image of each picture, in order: (different pictures,) int64."""
    identities = np.arange(len(labels)) if pictures is None else np.asarray(pictures)
    if identities.shape != labels.shape:
        raise DataError(f"pictures must have the shape of labels, {labels.shape}, got {identities.shape}")
    return np.sort(np.unique(identities, return_index=True)[1]).astype(np.int64)


def _seed_order(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the seeds of the first `count` of n targets with these labels (n,), each a position among the targets.

    A class whose unused seeds and targets to come are as many as all pairs to come must give the seed now, or else its
    targets would be too many for the seeds of others in the end (Hall's condition).
    """
    n = len(labels)
    size, first, members, label = _shuffled_classes(labels, rng)
    uniform = rng.random(n)
    used, coming = np.zeros_like(size), size.copy()
    seeds = np.empty(count, dtype=np.int64)
    for k in range(count):
        other = np.arange(len(size)) != label[k]
        critical = other & (np.maximum(size - used, 0) + coming == n - k)
        c = int(critical.argmax()) if critical.any() else _draw_class(size, used, other, uniform[k])
        seeds[k] = members[first[c] + used[c] % size[c]]
        used[c] += 1
        coming[label[k]] -= 1
    return seeds


def _shuffled_classes(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return the size of each class, its first place in `members`, `members` (n,) shuffled by class, and labels < c."""
    _, label, size = np.unique(labels, return_inverse=True, return_counts=True)
    shuffled = rng.permutation(len(labels))
    return size, np.cumsum(size) - size, shuffled[np.argsort(label[shuffled], kind="stable")], label


def _draw_class(size: np.ndarray, used: np.ndarray, allowed: np.ndarray, uniform: float) -> int:
    """Draw a class with the number of its images that were used least often as weight."""
    rounds = used // size
    weights = np.where(allowed & (rounds == rounds[allowed].min()), size - used % size, 0)
    return int(np.searchsorted(np.cumsum(weights), uniform * weights.sum(), side="right"))


def _validate_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels as int64. Raise DataError unless they are whole numbers (images,)."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels must be whole numbers of shape (images,), got {labels.dtype} of shape {labels.shape}")
    return labels.astype(np.int64)


def _validate_classes(labels: np.ndarray) -> None:
    """Raise DataError if all labels are the same."""
    classes = len(np.unique(labels))
    if classes < 2:
        raise DataError(
            f"labels must have at least 2 different values, got {classes} in {len(labels)} images; "
            "add images of another class"
        )


def _validate_streams(**numbers: int) -> None:
    """Raise SettingsError unless the numbers can name streams of random numbers."""
    for name, number in numbers.items():
        if not 0 <= number < 2**32:
            raise SettingsError(f"{name} must be 0 to {2**32 - 1}, got {number}")


def _validate_range(labels: np.ndarray, distinct: np.ndarray, *, count: int, start: int, shard_size: int) -> None:
    """Raise SettingsError or DataError unless the pairs `start` to `start + count - 1` can be drawn."""
    images = len(distinct)
    if start < 0:
        raise SettingsError(f"start must be at least 0, got {start}")
    if count < 1:
        raise SettingsError(f"count must be at least 1, got {count}")
    if start + count < FEWEST_PAIRS:
        raise DataError(f"CKA requires at least {FEWEST_PAIRS} pairs, got {start + count}; draw more pairs")
    if start + count > images:
        got = f"{images} images" if images == len(labels) else f"{images} different pictures in {len(labels)} images"
        most = max(images - start, 0) // shard_size
        shards = f" ({most} shards of {shard_size})" if shard_size > 1 else ""
        behind = f" from pair {start} on" if start else ""
        raise DataError(
            f"{start + count} pairs require as many different targets, got {got}; "
            f"draw at most {most * shard_size} pairs{shards}{behind}, or add images"
        )
