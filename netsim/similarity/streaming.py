"""`Hsic` of many pairs of networks over a stream of shards, exact, with every shard left out in turn.

n = rows (images), d = features, D = features of all networks together, G = shards, m = rows without a shard.

A first pass finds the means; later passes see rows centred at them, in float64. Everything needed of a pair is then

    |C|^2           of the whole         C = X^T Y
    <C, M_s>        of each shard s      M_s = X_s^T Y_s
    |M_s|^2

and some sums that cost next to nothing (`_Light`). The three come from one of two spaces, whichever multiplies less:

    Gram      blocks K_st = X_s X_t^T of every network, shared by all its pairs:  <M_s, M_t> = <K_st, L_st>.
              n^2 D / 2 multiplications for all pairs, and the left-out values are free.
    feature   C of every pair, then a second look at the rows: <C, M_s> = sum over rows of x^T C y; |M_s|^2 from Gram
              matrices of the shard. n d d' multiplications a pair (half for a network with itself), and once more.

For one pair that is n against about 2 (d + d'). Neither keeps anything that grows with n, but 8 bytes a feature and
shard. Sums are taken in the order of the shards: the same shards and BLAS give the same bits.
"""

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from netsim.errors import DataError
from netsim.similarity.hsic import Hsic, validate_enough_rows

if TYPE_CHECKING:
    from torch import Tensor

Key = Hashable  # how a network is called inside a shard: its name, or its position
Pair = tuple[Any, Any]
Rows: TypeAlias = "np.ndarray | Tensor"
Shard = Mapping[Any, Rows] | Sequence[Rows]
ShardSource = Shard | Callable[[], Shard]
Space = Literal["gram", "feature"]

BLOCK_BYTES: dict[Space, int] = {"gram": 2**29, "feature": 2**28}
"""Most bytes of centred rows held at once, unless a single shard has more. In feature space the products are held too;
in Gram space every block is another look at the shards after it."""

BLOCK_ROWS = 4096
"""Most rows of a block of shards: enough for BLAS at its best, few enough for Gram blocks to stay small."""

COLUMNS = 512
"""Rows of the other side in one Gram block."""


def pair_hsic(sources: Sequence[ShardSource], pairs: Sequence[Pair], *, space: Space | None = None) -> dict[Pair, Hsic]:
    """The sums of all `pairs`, over all rows and with each shard left out. `space` overrides the cheaper one.

    A source is a shard (network -> rows (n_s, d), the same images in the same order), or a function that returns one,
    called again in each pass. Raises DataError for fewer than 4 rows, row counts that differ, widths that change, and
    values that are not finite.
    """
    stream = _Stream(sources, pairs)
    validate_enough_rows(stream.n, "in all shards together")
    light = _Light(stream, pairs)
    if (space or cheaper_space(stream.n, stream.widths, pairs)) == "gram":
        found = _in_gram_space(stream, pairs, light)
    else:
        found = _in_feature_space(stream, pairs, light)
    return {pair: light.hsic(pair, *found[pair]) for pair in pairs}


def cheaper_space(n: int, widths: Mapping[Any, int], pairs: Sequence[Pair]) -> Space:
    """Where `pairs` take fewer multiplications, left-out values included."""
    return "gram" if gram_cost(n, widths, pairs) < feature_cost(n, widths, pairs) else "feature"


def gram_cost(n: int, widths: Mapping[Any, int], pairs: Sequence[Pair]) -> int:
    """Multiplications in Gram space."""
    return n * n * sum(widths[key] for key in {key for pair in pairs for key in pair}) // 2


def feature_cost(n: int, widths: Mapping[Any, int], pairs: Sequence[Pair]) -> int:
    """Multiplications in feature space: the products, half of each symmetric one, and a second look at every row."""
    return n * sum(widths[x] * widths[y] * (3 if x == y else 4) for x, y in pairs) // 2


# Reading -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Block:
    """Consecutive shards: centred float64 rows of each network, and where its shards begin and end."""

    first: int  # the first shard
    bounds: np.ndarray  # (shards + 1,) rows
    rows: dict[Key, np.ndarray]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def shards(self) -> slice:
        return slice(self.first, self.first + len(self))

    def of_shard(self, shard: int) -> slice:
        """Rows of a shard, by its number in the stream."""
        return slice(*self.bounds[shard - self.first : shard - self.first + 2])

    def sums(self, per_row: np.ndarray) -> np.ndarray:
        """Sum over the rows of each shard: (rows, ...) -> (shards, ...)."""
        # not reduceat, which gives an empty shard the next one's first row
        return np.stack([per_row[start:stop].sum(axis=0) for start, stop in pairwise(self.bounds)])


class _Stream:
    """The shards, checked once, and what the first pass finds: row counts, means, sums of centred rows."""

    def __init__(self, sources: Sequence[ShardSource], pairs: Sequence[Pair]) -> None:
        self._sources = sources
        self.keys = list(dict.fromkeys(key for pair in pairs for key in pair))
        self.widths: dict[Key, int] = {}
        self.means: dict[Key, np.ndarray] = {}
        self.sums: dict[Key, np.ndarray] = {}  # (G, d) sum over the shard of x - mean
        self.counts = self._survey()
        self.n = int(self.counts.sum())

    def _survey(self) -> np.ndarray:
        origins: dict[Key, np.ndarray] = {}  # near the mean: float64 would lose small differences of large numbers
        counts, sums = [], {key: [] for key in self.keys}  # type: ignore[var-annotated]
        for index in range(len(self._sources)):
            shard = {key: validate_rows(rows, f"{key!r} in shard {index}") for key, rows in self._read(index).items()}
            validate_same_rows(shard, where=f" in shard {index}")
            self._check_widths(shard, index)
            counts.append(len(shard[self.keys[0]]))
            for key, rows in shard.items():
                if key not in origins and len(rows):
                    origins[key] = rows[0].astype(np.float64)
                sums[key].append(_sum_from(rows, origins.get(key, 0.0)))
        found = np.array(counts, dtype=np.int64)
        for key in self.keys:
            from_origin = np.stack(sums[key]) if counts else np.zeros((0, 0))
            shift = from_origin.sum(axis=0) / max(found.sum(), 1)
            self.means[key] = origins.get(key, 0.0) + shift  # exact for a constant feature, which is then exactly 0
            self.sums[key] = from_origin - found[:, None] * shift
        return found

    def _check_widths(self, shard: Mapping[Key, np.ndarray], index: int) -> None:
        for key, rows in shard.items():
            if rows.shape[1] != self.widths.setdefault(key, rows.shape[1]):
                raise DataError(
                    f"{key!r} has {rows.shape[1]} features in shard {index} and {self.widths[key]} in shard 0; "
                    "all shards must come from one network"
                )

    def _read(self, index: int) -> dict[Key, Rows]:
        source = self._sources[index]
        shard: Any = source() if callable(source) else source
        return {key: shard[key] for key in self.keys}

    def shard(self, index: int) -> dict[Key, np.ndarray]:
        """Centred rows of a shard, float64."""
        return {key: _as_array(rows) - self.means[key] for key, rows in self._read(index).items()}

    def blocks(self, space: Space) -> Iterator[_Block]:
        """All shards in order, as many at once as fit."""
        most = min(BLOCK_ROWS, BLOCK_BYTES[space] // (8 * max(sum(self.widths.values()), 1)))
        first = 0
        while first < len(self.counts):
            last, rows = first + 1, int(self.counts[first])
            while last < len(self.counts) and rows + self.counts[last] <= most:
                rows += int(self.counts[last])
                last += 1
            yield self._block(first, last, rows)
            first = last

    def _block(self, first: int, last: int, count: int) -> _Block:
        bounds = np.concatenate([[0], np.cumsum(self.counts[first:last])])
        rows = {key: np.empty((count, width)) for key, width in self.widths.items()}
        for index, (start, stop) in enumerate(pairwise(bounds), start=first):
            for key, own in self.shard(index).items():
                rows[key][start:stop] = own
        return _Block(first, bounds, rows)


def _sum_from(rows: np.ndarray, origin: np.ndarray | float) -> np.ndarray:
    return (rows - origin).sum(axis=0, dtype=np.float64)


# What costs little ---------------------------------------------------------------------------------------------------


class _Light:
    """Sums of a pair, over all rows and over each shard's own, from the lengths of rows and their projections.

    With a = x . sigma_x, where sigma_x is the sum of a shard's rows (so every row has G of them), and b likewise of y:
    sums of k, l, k l, k b, l a, a b. They say how the left-out sums move with the mean.
    """

    def __init__(self, stream: _Stream, pairs: Sequence[Pair]) -> None:
        self._stream, shards = stream, len(stream.counts)
        self._lengths = {key: np.zeros(shards) for key in stream.keys}
        names = ("kl", "kb", "la", "ab")
        self._all: dict[Pair, dict[str, np.ndarray]] = {p: {name: np.zeros(shards) for name in names} for p in pairs}
        self._own: dict[Pair, dict[str, np.ndarray]] = {p: {name: np.zeros(shards) for name in names} for p in pairs}

    def add(self, block: _Block) -> None:
        """Take in a block; every block once, in order."""
        lengths = {key: np.einsum("rd,rd->r", rows, rows) for key, rows in block.rows.items()}
        onto = {key: rows @ self._stream.sums[key].T for key, rows in block.rows.items()}
        shard_of_row = np.repeat(np.arange(len(block)) + block.first, np.diff(block.bounds))
        onto_own = {key: a[np.arange(len(a)), shard_of_row] for key, a in onto.items()}
        for key, k in lengths.items():
            self._lengths[key][block.shards] = block.sums(k)
        for (x, y), sums in self._all.items():
            k, l, a, b = lengths[x], lengths[y], onto[x], onto[y]  # noqa: E741 (the letter of the formulas)
            sums["kb"] += k @ b
            sums["la"] += l @ a
            sums["ab"] += np.einsum("rs,rs->s", a, b)
            own, a_own, b_own = self._own[x, y], onto_own[x], onto_own[y]
            for name, per_row in {"kl": k * l, "kb": k * b_own, "la": l * a_own, "ab": a_own * b_own}.items():
                own[name][block.shards] = block.sums(per_row)

    def hsic(self, pair: Pair, square: float, inner: np.ndarray, own_square: np.ndarray) -> Hsic:
        """Everything of a pair, given |C|^2, <C, M_s> (G,) and |M_s|^2 (G,).

        Without shard s the mean moves by -sigma / m from that of all rows; the sums are multiplied out about it.
        """
        x, y = pair
        counts, n = self._stream.counts, self._stream.n
        m = np.where(counts < n, n - counts, 1)
        sx, sy = (np.einsum("sd,sd->s", self._stream.sums[key], self._stream.sums[key]) for key in pair)
        k, l = self._lengths[x], self._lengths[y]  # noqa: E741
        tx, ty = k.sum(), l.sum()
        own = self._own[pair]
        rest = {name: self._all[pair][name] - own[name] for name in ("kb", "la", "ab")}
        q = own["kl"].sum()

        left_square = square + own_square - 2 * inner - 2 / m * rest["ab"] + sx * sy / m**2
        left_q = q - own["kl"] + 2 / m * (rest["kb"] + rest["la"]) + (sy * (tx - k) + sx * (ty - l)) / m**2
        left_q += 4 / m**2 * rest["ab"] - 3 * sx * sy / m**3
        return Hsic(
            n=np.concatenate([[n], n - counts]),
            square=np.concatenate([[square], left_square]),
            q=np.concatenate([[q], left_q]),
            tx=np.concatenate([[tx], tx - k - sx / m]),
            ty=np.concatenate([[ty], ty - l - sy / m]),
        )


# What costs much -----------------------------------------------------------------------------------------------------

Squares = tuple[float, np.ndarray, np.ndarray]  # |C|^2, <C, M_s> (G,), |M_s|^2 (G,)


def _in_gram_space(stream: _Stream, pairs: Sequence[Pair], light: _Light) -> dict[Pair, Squares]:
    shards, networks = len(stream.counts), len(stream.keys)
    inner = np.zeros((shards, networks, networks))
    own = np.zeros((shards, networks, networks))
    for block in stream.blocks("gram"):
        light.add(block)
        for t in range(block.first, shards):
            inside = t < block.shards.stop
            others = {key: rows[block.of_shard(t)] for key, rows in block.rows.items()} if inside else stream.shard(t)
            last = t if inside else block.shards.stop - 1
            for start in range(0, int(stream.counts[t]), COLUMNS):
                columns = {key: rows[start : start + COLUMNS] for key, rows in others.items()}
                grams = _grams(block, columns, rows=int(block.bounds[last - block.first + 1]))
                for s in range(block.first, last + 1):
                    products = _inner_products(grams[:, block.of_shard(s)])
                    inner[t] += products
                    if s < t:
                        inner[s] += products
                    else:
                        own[t] += products
    at = {key: index for index, key in enumerate(stream.keys)}
    each = {(x, y): (inner[:, at[x], at[y]], own[:, at[x], at[y]]) for x, y in pairs}
    return {pair: (float(of_all.sum()), of_all, of_own) for pair, (of_all, of_own) in each.items()}


def _grams(block: _Block, columns: Mapping[Key, np.ndarray], *, rows: int) -> np.ndarray:
    """(M, rows, c): the first rows of the block times other rows, for every network."""
    count = len(next(iter(columns.values())))
    found = np.empty((len(columns), rows, count))
    for index, (key, others) in enumerate(columns.items()):
        np.matmul(block.rows[key][:rows], others.T, out=found[index])
    return found


def _inner_products(grams: np.ndarray) -> np.ndarray:
    """(M, a, b) -> (M, M): sum over all entries of each two."""
    flat = grams.reshape(len(grams), -1)
    return flat @ flat.T


def _in_feature_space(stream: _Stream, pairs: Sequence[Pair], light: _Light) -> dict[Pair, Squares]:
    C = {(x, y): np.zeros((stream.widths[x], stream.widths[y])) for x, y in pairs}
    for block in stream.blocks("feature"):
        light.add(block)
        for x, y in pairs:
            C[x, y] += block.rows[x].T @ block.rows[y]  # numpy halves the work where x is y
    shards = len(stream.counts)
    inner = {pair: np.zeros(shards) for pair in pairs}
    own = {pair: np.zeros(shards) for pair in pairs}
    if shards > 1:  # a single shard has none to leave out
        for block in stream.blocks("feature"):
            for x, y in pairs:
                per_row = np.einsum("rd,rd->r", block.rows[x] @ C[x, y], block.rows[y])
                inner[x, y][block.shards] = block.sums(per_row)
            for pair, values in _own_squares(block, pairs).items():
                own[pair][block.shards] = values
    return {pair: (float(np.vdot(C[pair], C[pair])), inner[pair], own[pair]) for pair in pairs}


def _own_squares(block: _Block, pairs: Sequence[Pair]) -> dict[Pair, np.ndarray]:
    """|M_s|^2 of every pair and shard of a block, from the Gram matrices of each shard."""
    at = {key: index for index, key in enumerate(block.rows)}
    found = {pair: np.zeros(len(block)) for pair in pairs}
    for position in range(len(block)):
        rows = block.of_shard(block.first + position)
        shard = {key: own[rows] for key, own in block.rows.items()}
        for start in range(0, rows.stop - rows.start, COLUMNS):
            columns = {key: own[start : start + COLUMNS] for key, own in shard.items()}
            grams = np.stack([shard[key] @ columns[key].T for key in block.rows])
            products = _inner_products(grams)
            for x, y in pairs:
                found[x, y][position] += products[at[x], at[y]]
    return found


# What comes in -------------------------------------------------------------------------------------------------------


def _as_array(rows: Rows) -> np.ndarray:
    """An array of float64 or float32; anything else as float64."""
    torch = sys.modules.get("torch")  # where it was never imported, nothing is a tensor
    if torch is not None and isinstance(rows, torch.Tensor):
        tensor: Tensor = rows.detach().cpu()
        wide = tensor.dtype.is_floating_point and tensor.element_size() >= 4
        rows = tensor.numpy() if wide else tensor.double().numpy()
    found = np.asarray(rows)
    return found if found.dtype in (np.float64, np.float32) else found.astype(np.float64)


def validate_rows(rows: Rows, name: str) -> np.ndarray:
    """Rows (n, d), finite. Raises DataError naming them otherwise."""
    found = _as_array(rows)
    if found.ndim != 2:
        raise DataError(f"{name} has shape {found.shape}; rows (n, d) fit: flatten what belongs to one image")
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        raise DataError(
            f"{name}: {len(bad)} of {len(found)} rows are not finite, the first is row {bad[0]}; "
            "look at the images and the network's weights"
        )
    return found


def validate_same_rows(rows: Mapping[Any, np.ndarray], *, where: str) -> None:
    """Raises DataError unless all have as many rows."""
    counts = {key: len(own) for key, own in rows.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise DataError(f"row counts differ{where}: {told}; every network must see the same images in the same order")
