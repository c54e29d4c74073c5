"""Which image is moved towards which: pairs of a seed (the starting image) and a target of another label. n = pairs.

Pair k is a function of the labels, rng_seed and k only, so a longer run keeps the pairs of a shorter one, and any
shard can be drawn alone. Targets are all different images, because CKA counts an image that comes twice as similarity
(science: the naive bootstrap finds 0.026 where there is none). Seeds are drawn freely and may repeat.

Source: Jones et al. 2022, PMLR 180:928-937, and its authors' blog: random pairs with different labels.
"""

from dataclasses import dataclass

import numpy as np

from netsim.errors import DataError, SettingsError

FEWEST_PAIRS = 4  # unbiased CKA is defined from 4 rows on


@dataclass(frozen=True, eq=False)
class Pairs:
    """Positions in the image set, and their labels; all (n,) int64. `seed_label != target_label` everywhere."""

    seed: np.ndarray
    target: np.ndarray
    seed_label: np.ndarray
    target_label: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def draw_pairs(labels: np.ndarray, count: int, *, rng_seed: int = 0, start: int = 0) -> Pairs:
    """Pairs `start` to `start + count` of the endless-looking list that `labels` (images,) and `rng_seed` name.

    Pair k's target is at position k of one permutation of the images; its seed is drawn by rng [rng_seed, k] evenly
    among all images of another label. Neither depends on `count` or `start`.

    Raises DataError for one label only, more pairs than images, fewer than 4 pairs up to `start + count`;
    SettingsError for a negative `start`, a `count` below 1, an rng_seed outside 0 to 2**32 - 1.
    """
    labels = _checked_labels(labels)
    _check_range(labels, count=count, rng_seed=rng_seed, start=start)

    # [rng_seed] alone would be the stream of pair 0: numpy pads names with zeros
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


def _checked_labels(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels are {labels.dtype} of shape {labels.shape}; whole numbers of shape (images,) fit")
    kinds = np.unique(labels)
    if len(kinds) < 2:
        raise DataError(
            f"{len(labels)} images have {len(kinds)} label(s) between them; a pair needs two different labels: "
            "add images of another class"
        )
    return labels.astype(np.int64)


def _check_range(labels: np.ndarray, *, count: int, rng_seed: int, start: int) -> None:
    images = len(labels)
    if start < 0 or count < 1:
        raise SettingsError(f"pairs from {start}, {count} of them; start at 0 or later and take at least 1")
    if not 0 <= rng_seed < 2**32:
        raise SettingsError(f"rng_seed {rng_seed} is out of range; 0 to {2**32 - 1} fit")
    if start + count < FEWEST_PAIRS:
        raise DataError(f"{start + count} pairs are too few for CKA; take at least {FEWEST_PAIRS}")
    if start + count > images:
        raise DataError(
            f"{start + count} pairs need as many different targets, and there are {images} images; "
            f"{images - start if start < images else 0} pairs fit from pair {start}: ask for fewer, or add images"
        )
