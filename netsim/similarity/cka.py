"""Linear CKA, biased and unbiased, exact over any number of shards. n = rows (images), d = features, G = shards.

Use `linear_cka(X, Y)` for two representations in memory. Use `similarity(shards, pairs)` for many networks and more
rows than memory holds: it reads shards a few at a time and keeps only sums.

    shards = [{"resnet18": X_0, "vgg": Y_0}, {"resnet18": X_1, "vgg": Y_1}, ...]    or functions that return such dicts
    result = similarity(shards, [("resnet18", "vgg")])["resnet18", "vgg"]
    result.cka, result.cka_unbiased, result.floor, jackknife_se(result.leave_one_out_unbiased)

netsim/similarity/hsic.py defines the sums and CKA from them; netsim/similarity/streaming.py accumulates them over
shards; `netsim.similarity.uncertainty.jackknife_se` gives standard errors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netsim.errors import DataError
from netsim.similarity.hsic import (
    Estimator,
    EstimatorName,
    Hsic,
    cka,
    null_floor,
    validate_enough_rows,
    validate_estimator,
)
from netsim.similarity.rows import Rows, validate_rows, validate_same_rows
from netsim.similarity.streaming import Pair, ShardSource, pair_hsic


@dataclass(frozen=True)
class PairSimilarity:
    """CKA of one pair of networks, with leave-one-out replicates.

    Attributes
    ----------
    cka, cka_unbiased : float
        CKA over all rows. NaN where undefined: a representation is constant, or its unbiased H(X, X) is not positive.
        Unbiased values may be below 0; they are never clamped.
    leave_one_out, leave_one_out_unbiased : arrays (G,)
        CKA without each shard. NaN also where fewer than 4 rows remain.
    floor : float
        Mean of the biased estimator for unrelated rows; see `netsim.similarity.hsic.null_floor`.
    undefined, undefined_unbiased : str
        Which network makes the value undefined, and why; "" where the value is defined.
    undefined_error, undefined_error_unbiased : str
        Likewise for the standard error: the first shard without which a value is undefined, and why.
    """

    cka: float
    cka_unbiased: float
    leave_one_out: np.ndarray
    leave_one_out_unbiased: np.ndarray
    floor: float
    undefined: str = ""
    undefined_unbiased: str = ""
    undefined_error: str = ""
    undefined_error_unbiased: str = ""

    @property
    def reason(self) -> str:
        """Why the value or, if that is defined, its error is undefined; "" where both are defined."""
        return self.undefined or self.undefined_error

    @property
    def reason_unbiased(self) -> str:
        """As `reason`, of the unbiased estimator."""
        return self.undefined_unbiased or self.undefined_error_unbiased


def similarity(shards: Sequence[ShardSource], pairs: Iterable[Pair]) -> dict[Pair, PairSimilarity]:
    """Compute CKA, its leave-one-out replicates and its floor for pairs of networks, over all rows of `shards`.

    Memory depends on widths and the size of a shard, not on n. The values do not depend on how rows are split (up to
    rounding), and are bit for bit the same for the same split and BLAS.

    Parameters
    ----------
    shards
        A shard maps each network to its rows (n_s, d), the same images in the same order for all networks. A function
        that returns such a mapping is called whenever its rows are needed, a few times in all.
    pairs
        Pairs of networks. Pass only those you need: a symmetric matrix takes M(M-1)/2 pairs, a set inverted through r
        the M pairs (r, observer).

    Raises
    ------
    DataError
        No shard, fewer than 4 rows, row counts that differ, widths that change, or values that are not finite.
    """
    if not isinstance(shards, Sequence):
        raise DataError(
            "shards must be a sequence, because they are read more than once, "
            f"got {type(shards).__name__}. Pass a list of functions."
        )
    pairs = list(dict.fromkeys(pairs))
    if not pairs:
        return {}
    return pair_similarities(pair_hsic(shards, with_self(pairs)), pairs)


def with_self(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the pairs whose sums CKA of `pairs` requires: each network with itself, then `pairs`."""
    wanted = list(pairs)
    return list(dict.fromkeys([*((key, key) for pair in wanted for key in pair), *wanted]))


def pair_similarities(sums: Mapping[Pair, Hsic], pairs: Iterable[Pair]) -> dict[Pair, PairSimilarity]:
    """Compute the similarity of `pairs` from the sums of `with_self(pairs)`."""
    return {pair: _pair_similarity(sums, pair) for pair in pairs}


def _pair_similarity(sums: Mapping[Pair, Hsic], pair: Pair) -> PairSimilarity:
    x, y = pair
    parts = sums[pair], sums[x, x], sums[y, y]
    biased, unbiased = cka(*parts, "biased"), cka(*parts, "unbiased")
    return PairSimilarity(
        cka=float(biased[0]),
        cka_unbiased=float(unbiased[0]),
        leave_one_out=biased[1:],
        leave_one_out_unbiased=unbiased[1:],
        floor=float(null_floor(parts[1], parts[2])[0]),
        undefined=_why_undefined(sums, pair, "biased"),
        undefined_unbiased=_why_undefined(sums, pair, "unbiased"),
        undefined_error=_why_error_undefined(sums, pair, "biased", biased[1:]),
        undefined_error_unbiased=_why_error_undefined(sums, pair, "unbiased", unbiased[1:]),
    )


def _why_error_undefined(sums: Mapping[Pair, Hsic], pair: Pair, estimator: Estimator, left_out: np.ndarray) -> str:
    undefined = np.flatnonzero(np.isnan(left_out))
    if not len(undefined):
        return ""
    return f"no standard error: without shard {undefined[0]}, {_why_undefined(sums, pair, estimator, 1 + undefined[0])}"


def _why_undefined(sums: Mapping[Pair, Hsic], pair: Pair, estimator: Estimator, entry: int = 0) -> str:
    reasons = {key: sums[key, key].why_undefined(estimator, entry) for key in pair}
    return "; ".join(f"{key}: {reason}" for key, reason in reasons.items() if reason)


def linear_cka(X: Rows, Y: Rows, estimator: EstimatorName = "biased") -> float:
    """Compute linear CKA of two representations of the same images.

    CKA = H(X, Y) / sqrt(H(X, X) H(Y, Y)), where H is HSIC with linear kernels. Shifts, rotations and a common scale of
    either side do not change it. Computed in float64 whatever the dtype, from features or from Gram matrices,
    whichever takes fewer multiplications.

    Parameters
    ----------
    X, Y : array or tensor, (n, d) and (n, d')
        Real numbers, one row per image, the same n >= 4 images in the same order. Widths may differ. Images must be
        different pictures: two copies of one look like similarity, with either estimator.
    estimator : {"biased", "unbiased", "debiased"}
        Estimator of HSIC; "debiased" is another name of "unbiased". "biased" is what most papers report; it is well
        above 0 for unrelated rows unless n is much larger than d (`netsim.similarity.hsic.null_floor`). "unbiased" is
        about 0 for unrelated rows.

    Returns
    -------
    float
        1 if the sides are equal up to rotation, scale and shift. "biased" is in [0, 1]; "unbiased" may be below 0.
        NaN if a side is constant over images but for the rounding of its dtype, or its unbiased H(X, X) is not
        positive; `similarity` returns which side it is, and why. Pass float32 numbers as float32: in float64, their
        rounding counts as a signal.

    Raises
    ------
    DataError
        Fewer than 4 rows, row counts that differ, values that are complex, masked or not finite, or arrays that are
        not (n, d).
    SettingsError
        Unknown estimator.

    References
    ----------
    Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, ICML, arXiv:1905.00414, eq. 3.
    Song et al. 2012, Feature Selection via Dependence Maximization, JMLR 13, eq. 5 (unbiased HSIC).

    Examples
    --------
    >>> import numpy as np
    >>> from netsim import linear_cka
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 20))
    >>> rotation = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    >>> round(linear_cka(X, 3 * X @ rotation + 1), 6)
    1.0
    >>> unrelated = rng.normal(size=(100, 20))
    >>> round(linear_cka(X, unrelated), 2)
    0.16
    >>> abs(linear_cka(X, unrelated, "unbiased")) < 0.05
    True
    """
    estimator = validate_estimator(estimator)
    arrays = {"X": validate_rows(X, "X"), "Y": validate_rows(Y, "Y")}
    validate_same_rows(arrays, where="")
    validate_enough_rows(len(arrays["X"]), "in X and Y")
    sums = pair_hsic([{"X": X, "Y": Y}], with_self([("X", "Y")]))
    return float(cka(sums["X", "Y"], sums["X", "X"], sums["Y", "Y"], estimator)[0])
