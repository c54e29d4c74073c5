"""Linear CKA, biased and unbiased, exact over a stream of shards. n = rows (images), d = features, G = shards.

Two questions are answered here. Two representations in memory: `linear_cka(X, Y)`. Many networks and more rows than
memory holds: `similarity(shards, pairs)`, which reads every shard twice and keeps only sums.

    shards = [{"resnet18": X_0, "vgg": Y_0}, {"resnet18": X_1, "vgg": Y_1}, ...]    or functions that return such dicts
    found = similarity(shards, [("resnet18", "vgg")])["resnet18", "vgg"]
    found.cka, found.se, found.cka_unbiased, found.se_unbiased, found.floor

How: `Moments` are plain float64 sums over rows from which a fixed pilot was subtracted, so they add over shards, and a
shard is deleted by subtraction. `Hsic` is what is left of them after centring. CKA of a pair takes the `Hsic` of the
pair and that of each network with itself; the latter are computed once and shared by all partners.

Letters, for centred rows x, y:  k = |x|^2,  l = |y|^2,  C = X^T Y,  T_x = sum k,  T_y = sum l,  Q = sum k l.

    biased    H = |C|_F^2                                                       Kornblith et al. 2019, arXiv:1905.00414
    unbiased  H = |C|_F^2 - n/(n-2) Q + T_x T_y / ((n-1)(n-2)) = n(n-3) HSIC_1  Song et al. 2012, JMLR 13, eq. 5
    CKA = H(X, Y) / sqrt(H(X, X) H(Y, Y))

The second line is Song's U-statistic for linear kernels, without an n x n matrix; the tests hold both together.
Averages of CKA over batches are something else (0.53 for 0.16 at batch 16) and are not offered.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from netsim.errors import DataError, SettingsError, nearest

Estimator = Literal["biased", "unbiased"]
Key = Hashable  # how a network is called inside a shard: its name, or its position
Rows = np.ndarray | Tensor
Shard = Mapping[Any, Rows] | Sequence[Rows]

FEWEST_ROWS = 4  # the unbiased estimator divides by n - 3
ROUNDING = 1e-12  # what is smaller than this part of the sums it was taken from is rounding error, not signal


# What is known of a pair ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairSimilarity:
    """CKA of one pair of networks, and the same with each shard left out in turn. Left-out arrays are (G,).

    NaN where CKA is undefined: a representation that is constant, or whose unbiased H(X, X) is not above 0; in the
    left-out arrays also where fewer than 4 rows are left. Unbiased values may be below 0; they are never clamped.
    `floor` is what the biased estimator gives on average for unrelated rows: see `null_floor`.
    """

    cka: float
    cka_unbiased: float
    left_out: np.ndarray
    left_out_unbiased: np.ndarray
    floor: float

    @property
    def se(self) -> float:
        return float(jackknife_se(self.left_out))

    @property
    def se_unbiased(self) -> float:
        return float(jackknife_se(self.left_out_unbiased))


def similarity(
    shards: Iterable[Shard | Callable[[], Shard]], pairs: Iterable[tuple[Key, Key]]
) -> dict[tuple[Key, Key], PairSimilarity]:
    """CKA, its delete-one-shard values and its floor for every pair of networks in `pairs`, over all rows of `shards`.

    A shard maps each network to its rows (n_s, d), the same images in the same order for all networks; a function that
    returns such a mapping is called once in each of the two passes, so one shard is in memory at a time. Ask for what
    is needed only: a symmetric set needs M(M-1)/2 pairs, a set inverted through r the M pairs (r, observer).
    Memory is one (d, d') float64 matrix for each pair and network, whatever the number of shards and rows.
    The numbers do not depend on how rows are split (to rounding), and are the same bits for the same split and BLAS.

    Raises DataError for no shard, fewer than 4 rows, row counts that differ, widths that change, values not finite.
    """
    if iter(shards) is shards:
        raise DataError(
            f"shards are read twice, and a {type(shards).__name__} can be read once; give a list of functions"
        )
    pairs = list(dict.fromkeys(pairs))
    if not pairs:
        return {}
    reader = _Reader(pairs)

    totals: dict[tuple[Key, Key], Moments] = {}
    for index, shard in enumerate(shards):
        for pair, part in reader.moments(shard, index=index):
            totals[pair] = totals[pair] + part if pair in totals else part
    _check_enough_rows(min((total.n for total in totals.values()), default=0), "in all shards together")
    whole = {pair: total.hsic() for pair, total in totals.items()}

    left_out: dict[tuple[Key, Key], list[_Both]] = {pair: [] for pair in pairs}
    for index, shard in enumerate(shards):
        rest = {pair: (totals[pair] - part).hsic() for pair, part in reader.moments(shard, index=index)}
        for pair in pairs:
            left_out[pair].append(_both(rest, pair))

    return {pair: _pair_similarity(whole, pair, np.array(left_out[pair])) for pair in pairs}


def shard_cka(shards: Iterable[tuple[Rows, Rows]]) -> PairSimilarity:
    """`similarity` of two representations that come as shards (X_s, Y_s)."""
    return similarity(shards, [(0, 1)])[0, 1]


def linear_cka(X: Rows, Y: Rows, estimator: Estimator = "biased") -> float:
    """Linear CKA of two representations (n, d) and (n, d') of the same n rows; 1 = equal up to rotation and scale.

    Shifts, rotations and one common scale of either side do not change it. Computed in float64 whatever comes, from
    features or from Gram matrices, whichever is fewer multiplications. "biased" is in [0, 1], and above 0 for
    unrelated rows (`null_floor`); "unbiased" is about 0 for those and may be below.
    NaN if a side is constant over rows, or its unbiased H(X, X) is not above 0.

    Raises DataError for n < 4, row counts that differ, values that are not finite.
    """
    _check_estimator(estimator)
    x, y = _checked(X, "X"), _checked(Y, "Y")
    _check_same_rows({"X": x, "Y": y}, where="")
    _check_enough_rows(len(x), "in X and Y")
    x, y = x - _mean(x), y - _mean(y)

    (n, dx), dy = x.shape, y.shape[1]
    if n * (dx + dy) < dx * dx + dx * dy + dy * dy:
        K, L = x @ x.T, y @ y.T
        return cka(_gram_hsic(K, L), _gram_hsic(K, K), _gram_hsic(L, L), estimator)
    at_x, at_y = np.zeros(dx), np.zeros(dy)
    cross = Moments.of(x, y, at_x, at_y).hsic()
    return cka(cross, Moments.of(x, x, at_x, at_x).hsic(), Moments.of(y, y, at_y, at_y).hsic(), estimator)


# HSIC, and CKA from three of them ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hsic:
    """What CKA needs of a pair of centred representations, each a sum over rows: see the letters at the top."""

    n: int
    square: float  # |C|_F^2
    q: float  # Q
    tx: float  # T_x
    ty: float  # T_y
    magnitude: float  # of the sums that T_x was taken from: its rounding error is about 1e-16 of this

    def value(self, estimator: Estimator) -> float:
        """H: n(n-3) times Song's unbiased HSIC_1, or (n-1)^2 times the biased one."""
        _check_estimator(estimator)
        _check_enough_rows(self.n, "in these moments")
        if estimator == "biased":
            return self.square
        n = self.n
        return self.square - n / (n - 2) * self.q + self.tx * self.ty / ((n - 1) * (n - 2))

    def self_value(self, estimator: Estimator) -> float:
        """H(X, X), or NaN where X is constant, or H not above 0 by more than rounding: then CKA is undefined.

        Unbiased H(X, X) is at or below 0 when a single row differs from the others, say: nothing repeats.
        """
        value = self.value(estimator)
        constant = self.tx <= ROUNDING * self.magnitude
        return np.nan if constant or value <= ROUNDING * self.square else value


def cka(cross: Hsic, self_x: Hsic, self_y: Hsic, estimator: Estimator = "biased") -> float:
    """H(X, Y) / sqrt(H(X, X) H(Y, Y)); NaN where a self term is undefined, never clamped."""
    assert cross.n == self_x.n == self_y.n, "sums over different rows"
    # two roots, not the root of the product: that overflows at the largest float32 features
    scale = np.sqrt(self_x.self_value(estimator)) * np.sqrt(self_y.self_value(estimator))
    return float(cross.value(estimator) / scale)


def participation_ratio(own: Hsic) -> float:
    """(tr S)^2 / tr(S^2) of the *sample* covariance S: about how many directions carry the variance; 1 to min(d, n-1).

    Smaller than that of the population, r: about n r / (n + r). NaN for a constant representation.
    """
    return float(own.tx * own.ty / own.self_value("biased"))


def null_floor(self_x: Hsic, self_y: Hsic) -> float:
    """What biased CKA is on average over all permutations of Y's rows: T_x T_y / ((n-1) |C_xx| |C_yy|), exactly.

    In sample participation ratios sqrt(r_x r_y) / (n-1); in those of the population, which are larger, about
    sqrt(r_x r_y / ((n + r_x)(n + r_y))). 0.17 at n = 10,000 and d = 2048 isotropic features. Biased values close to
    it tell nothing. NaN if a side is constant.
    """
    _check_enough_rows(self_x.n, "in these moments")
    return float(np.sqrt(participation_ratio(self_x)) * np.sqrt(participation_ratio(self_y)) / (self_x.n - 1))


def jackknife_se(values: np.ndarray) -> np.ndarray:
    """Standard error from delete-one-shard values (G, ...) -> (...): sqrt((G-1)/G sum (v - mean v)^2). Efron 1982.

    For shards of equal size. Says how a value would vary over other images. NaN for a single shard.
    A bootstrap would be wrong here: rows drawn twice look like similarity (0.026 for 0 at n = 400).
    """
    values = np.asarray(values, dtype=np.float64)
    shards = len(values)
    if shards < 2:
        return np.full(values.shape[1:], np.nan)
    return np.sqrt((shards - 1) / shards * np.square(values - values.mean(axis=0)).sum(axis=0))


# Sums over rows ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over rows x - pilot_x, y - pilot_y from which CKA is exact; they add over shards, and subtract again.

    A network with itself is the case Y = X. The pilot is any vector near the mean: without it, float64 sums of
    fourth powers lose what CKA is about when features have a large mean. Both sides of + and - must share it.
    """

    n: int
    x: np.ndarray  # (d,) sum x
    y: np.ndarray  # (d',) sum y
    xy: np.ndarray  # (d, d') sum x y^T
    k: float  # sum |x|^2
    l: float  # sum |y|^2  # noqa: E741 (the letter of the formulas)
    kl: float  # sum |x|^2 |y|^2
    ky: np.ndarray  # (d',) sum |x|^2 y
    lx: np.ndarray  # (d,) sum |y|^2 x
    magnitude: float  # sum |x|^2 over all rows ever added *or subtracted*: never falls
    pilot_x: np.ndarray
    pilot_y: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray, Y: np.ndarray, pilot_x: np.ndarray, pilot_y: np.ndarray) -> "Moments":
        """Sums of one shard: X (n, d), Y (n, d') of the same rows, finite; pilots (d,), (d',)."""
        assert len(X) == len(Y), "rows of different images"
        x = np.subtract(X, pilot_x, dtype=np.float64)
        y = x if Y is X and pilot_y is pilot_x else np.subtract(Y, pilot_y, dtype=np.float64)
        k, l = np.square(x).sum(axis=1), np.square(y).sum(axis=1)  # noqa: E741
        return cls(
            n=len(x),
            x=x.sum(axis=0),
            y=y.sum(axis=0),
            xy=x.T @ y,
            k=float(k.sum()),
            l=float(l.sum()),
            kl=float(k @ l),
            ky=k @ y,
            lx=l @ x,
            magnitude=float(k.sum()),
            pilot_x=pilot_x,
            pilot_y=pilot_y,
        )

    def __add__(self, other: "Moments") -> "Moments":
        return self._combine(other, sign=1)

    def __sub__(self, other: "Moments") -> "Moments":
        """The sums without `other`'s rows, which must be among these."""
        return self._combine(other, sign=-1)

    def _combine(self, other: "Moments", *, sign: int) -> "Moments":
        same = np.array_equal(self.pilot_x, other.pilot_x) and np.array_equal(self.pilot_y, other.pilot_y)
        assert same, "moments about different pilots do not add"
        return Moments(
            n=self.n + sign * other.n,
            x=self.x + sign * other.x,
            y=self.y + sign * other.y,
            xy=self.xy + other.xy if sign > 0 else self.xy - other.xy,  # no third (d, d') matrix
            k=self.k + sign * other.k,
            l=self.l + sign * other.l,
            kl=self.kl + sign * other.kl,
            ky=self.ky + sign * other.ky,
            lx=self.lx + sign * other.lx,
            magnitude=self.magnitude + other.magnitude,
            pilot_x=self.pilot_x,
            pilot_y=self.pilot_y,
        )

    def hsic(self) -> Hsic:
        """Move the origin from the pilots to the means mu, nu. All zero when there are no rows."""
        n = max(self.n, 1)
        mu, nu = self.x / n, self.y / n
        mu2, nu2 = mu @ mu, nu @ nu
        C = np.outer(self.x, nu)
        np.subtract(self.xy, C, out=C)  # in place: (d, d') is 134 MB for a VGG
        # sum (k - 2 mu x + mu^2)(l - 2 nu y + nu^2), multiplied out
        q = self.kl - 2 * nu @ self.ky - 2 * mu @ self.lx + nu2 * self.k + mu2 * self.l
        q += 4 * mu @ self.xy @ nu - 3 * n * mu2 * nu2
        return Hsic(
            n=self.n,
            square=float(np.vdot(C, C)),
            q=float(q),
            tx=float(self.k - n * mu2),
            ty=float(self.l - n * nu2),
            magnitude=self.magnitude,
        )


def _gram_hsic(K: np.ndarray, L: np.ndarray) -> Hsic:
    """The same from centred Gram matrices (n, n): |C|_F^2 = tr(K L)."""
    k, l = np.diag(K), np.diag(L)  # noqa: E741
    tx, ty = float(k.sum()), float(l.sum())
    return Hsic(n=len(K), square=float(np.vdot(K, L)), q=float(k @ l), tx=tx, ty=ty, magnitude=tx)


# Reading shards ------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads the needed networks' rows of a shard, checks them, and knows the pilots: the means of the first shard."""

    def __init__(self, pairs: Sequence[tuple[Key, Key]]) -> None:
        self.keys = list(dict.fromkeys(key for pair in pairs for key in pair))
        self.products = list(dict.fromkeys([*((key, key) for key in self.keys), *pairs]))
        self.pilots: dict[Key, np.ndarray] = {}

    def moments(self, shard: Shard | Callable[[], Shard], *, index: int) -> Iterator[tuple[tuple[Key, Key], Moments]]:
        """One product at a time: of every network with itself, and of every pair."""
        rows = self.read(shard, index=index)
        for x, y in self.products:
            yield (x, y), Moments.of(rows[x], rows[y], self.pilots[x], self.pilots[y])

    def read(self, shard: Shard | Callable[[], Shard], *, index: int) -> dict[Key, np.ndarray]:
        found: Any = shard() if callable(shard) else shard
        rows = {key: _checked(found[key], f"{key!r} in shard {index}") for key in self.keys}
        _check_same_rows(rows, where=f" in shard {index}")
        if not self.pilots:
            self.pilots = {key: _mean(own) for key, own in rows.items()}
        for key, own in rows.items():
            if own.shape[1] != len(self.pilots[key]):
                raise DataError(
                    f"{key!r} has {own.shape[1]} features in shard {index} and {len(self.pilots[key])} in shard 0; "
                    "all shards must come from one network"
                )
        return rows


class _Both(NamedTuple):
    biased: float
    unbiased: float


def _both(hsic: Mapping[tuple[Key, Key], Hsic], pair: tuple[Key, Key]) -> _Both:
    """CKA by both estimators, NaN where too few rows are left."""
    x, y = pair
    parts = hsic[pair], hsic[x, x], hsic[y, y]
    if parts[0].n < FEWEST_ROWS:
        return _Both(np.nan, np.nan)
    return _Both(cka(*parts, "biased"), cka(*parts, "unbiased"))


def _pair_similarity(
    whole: Mapping[tuple[Key, Key], Hsic], pair: tuple[Key, Key], left_out: np.ndarray
) -> PairSimilarity:
    x, y = pair
    found = _both(whole, pair)
    return PairSimilarity(
        cka=found.biased,
        cka_unbiased=found.unbiased,
        left_out=left_out[:, 0],
        left_out_unbiased=left_out[:, 1],
        floor=null_floor(whole[x, x], whole[y, y]),
    )


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean over rows (n, d) -> (d,), exact when they are all equal: so a constant feature is exactly 0 once centred."""
    if not len(rows):
        return np.zeros(rows.shape[1])
    return rows[0] + (rows - rows[0]).mean(axis=0)


def _checked(rows: Rows, name: str) -> np.ndarray:
    """Float64 rows (n, d), finite."""
    if isinstance(rows, Tensor):
        rows = rows.detach().cpu().double().numpy()
    found = np.asarray(rows, dtype=np.float64)
    if found.ndim != 2:
        raise DataError(f"{name} has shape {found.shape}; rows (n, d) fit: flatten what belongs to one image")
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        raise DataError(
            f"{name}: {len(bad)} of {len(found)} rows are not finite, the first is row {bad[0]}; "
            "look at the images and the network's weights"
        )
    return found


def _check_same_rows(rows: Mapping[Any, np.ndarray], *, where: str) -> None:
    counts = {key: len(own) for key, own in rows.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise DataError(f"row counts differ{where}: {told}; every network must see the same images in the same order")


def _check_enough_rows(n: int, where: str) -> None:
    if n < FEWEST_ROWS:
        raise DataError(f"{n} rows {where}; CKA needs at least {FEWEST_ROWS}: take more images")


def _check_estimator(estimator: str) -> None:
    if estimator not in ("biased", "unbiased"):
        raise SettingsError(f"no estimator {estimator!r}{nearest(str(estimator), ('biased', 'unbiased'))}")
