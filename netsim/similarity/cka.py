"""Linear CKA, biased and unbiased, exact over any number of shards. n = rows (images), d = features, G = shards.

Two questions are answered here. Two representations in memory: `linear_cka(X, Y)`. Many networks and more rows than
memory holds: `similarity(shards, pairs)`, which reads shards a few at a time and keeps only sums.

    shards = [{"resnet18": X_0, "vgg": Y_0}, {"resnet18": X_1, "vgg": Y_1}, ...]    or functions that return such dicts
    found = similarity(shards, [("resnet18", "vgg")])["resnet18", "vgg"]
    found.cka, found.se, found.cka_unbiased, found.se_unbiased, found.floor

What is summed, and CKA of it: netsim/similarity/hsic.py. How it is summed over shards: netsim/similarity/streaming.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.errors import DataError
from netsim.similarity.hsic import Estimator, Hsic, cka, null_floor, validate_enough_rows, validate_estimator
from netsim.similarity.streaming import Pair, Rows, ShardSource, pair_hsic, validate_rows, validate_same_rows
from netsim.similarity.uncertainty import jackknife_se


@dataclass(frozen=True)
class PairSimilarity:
    """CKA of one pair of networks, and the same with each shard left out in turn. Left-out arrays are (G,).

    NaN where CKA is undefined: a representation that is constant, or whose unbiased H(X, X) is not above 0; in the
    left-out arrays also where fewer than 4 rows are left. Unbiased values may be below 0; they are never clamped.
    `floor` is what the biased estimator gives on average for unrelated rows: see `null_floor`.
    `undefined` says which network is at fault and why, for either estimator; "" where the value is defined.
    """

    cka: float
    cka_unbiased: float
    left_out: np.ndarray
    left_out_unbiased: np.ndarray
    floor: float
    undefined: str = ""
    undefined_unbiased: str = ""

    @property
    def se(self) -> float:
        return float(jackknife_se(self.left_out))

    @property
    def se_unbiased(self) -> float:
        return float(jackknife_se(self.left_out_unbiased))


def similarity(shards: Sequence[ShardSource], pairs: Iterable[Pair]) -> dict[Pair, PairSimilarity]:
    """CKA, its delete-one-shard values and its floor for every pair of networks in `pairs`, over all rows of `shards`.

    A shard maps each network to its rows (n_s, d), the same images in the same order for all networks; a function that
    returns such a mapping is called when its rows are needed, a few times in all. Ask for what is needed only: a
    symmetric set needs M(M-1)/2 pairs, a set inverted through r the M pairs (r, observer).
    Memory depends on widths and the size of a shard, not on n. The numbers do not depend on how rows are split (to
    rounding), and are the same bits for the same split and BLAS.

    Raises DataError for no shard, fewer than 4 rows, row counts that differ, widths that change, values not finite.
    """
    if not isinstance(shards, Sequence):
        raise DataError(
            f"shards are read more than once, and a {type(shards).__name__} may not be; give a list of functions"
        )
    pairs = list(dict.fromkeys(pairs))
    if not pairs:
        return {}
    return pair_similarities(pair_hsic(shards, with_self(pairs)), pairs)


def with_self(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs whose sums `pairs` need: each network with itself, and themselves."""
    wanted = list(pairs)
    return list(dict.fromkeys([*((key, key) for pair in wanted for key in pair), *wanted]))


def pair_similarities(sums: Mapping[Pair, Hsic], pairs: Iterable[Pair]) -> dict[Pair, PairSimilarity]:
    """CKA of `pairs` from the sums of `with_self(pairs)`."""
    return {pair: _pair_similarity(sums, pair) for pair in pairs}


def _pair_similarity(sums: Mapping[Pair, Hsic], pair: Pair) -> PairSimilarity:
    x, y = pair
    parts = sums[pair], sums[x, x], sums[y, y]
    biased, unbiased = cka(*parts, "biased"), cka(*parts, "unbiased")
    return PairSimilarity(
        cka=float(biased[0]),
        cka_unbiased=float(unbiased[0]),
        left_out=biased[1:],
        left_out_unbiased=unbiased[1:],
        floor=float(null_floor(parts[1], parts[2])[0]),
        undefined=_why_undefined(sums, pair, "biased"),
        undefined_unbiased=_why_undefined(sums, pair, "unbiased"),
    )


def _why_undefined(sums: Mapping[Pair, Hsic], pair: Pair, estimator: Estimator) -> str:
    reasons = {key: sums[key, key].why_undefined(estimator) for key in pair}
    return "; ".join(f"{key}: {reason}" for key, reason in reasons.items() if reason)


def linear_cka(X: Rows, Y: Rows, estimator: Estimator = "biased") -> float:
    """Linear CKA of two representations (n, d) and (n, d') of the same n rows; 1 = equal up to rotation and scale.

    Shifts, rotations and one common scale of either side do not change it. Computed in float64 whatever comes, from
    features or from Gram matrices, whichever is fewer multiplications. "biased" is in [0, 1], and above 0 for
    unrelated rows (`null_floor`); "unbiased" is about 0 for those and may be below.
    NaN if a side is constant over rows, or its unbiased H(X, X) is not above 0.

    Raises DataError for n < 4, row counts that differ, values that are not finite.
    """
    validate_estimator(estimator)
    rows: dict[Any, Any] = {"X": validate_rows(X, "X"), "Y": validate_rows(Y, "Y")}
    validate_same_rows(rows, where="")
    validate_enough_rows(len(rows["X"]), "in X and Y")
    sums = pair_hsic([rows], with_self([("X", "Y")]))
    return float(cka(sums["X", "Y"], sums["X", "X"], sums["Y", "Y"], estimator)[0])
