"""`Hsic` of many pairs of networks over a stream of shards: exact, with leave-one-out sums for every shard.

n = rows (images), d = features, D = features of all networks together, G = shards, m = rows without a shard.

The first pass computes the means; later passes read rows centred at them, in float64, scaled by a power of two if their
products would overflow or vanish. Rows that vary by no more than rounding are read as zeros. A pair then requires

    |C|^2           of all rows          C = X^T Y
    <C, M_s>        of each shard s      M_s = X_s^T Y_s
    |M_s|^2         of each shard s

and some sums that cost next to nothing (`_RowSums`). The three are computed in one of two spaces, whichever takes
fewer multiplications:

    Gram      blocks K_st = X_s X_t^T of every network, shared by all its pairs:  <M_s, M_t> = <K_st, L_st>.
              n^2 D / 2 multiplications for all pairs; the leave-one-out sums are free.
    feature   C of every pair, then a second pass over the rows: <C, M_s> = sum over rows of x^T C y; |M_s|^2 from Gram
              matrices of the shard. n d d' multiplications per pair (half for a network with itself) in each pass.

For one pair, Gram space is cheaper up to about n = 2 (d + d'). Memory does not grow with n, except for 8 bytes per
feature and shard. Sums are taken in the order of the shards: the same shards and BLAS give the same bits.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from netsim.errors import DataError
from netsim.similarity.hsic import Hsic, validate_enough_rows
from netsim.similarity.rows import Extent, Rows, precision, to_array, validate_rows, validate_same_rows

Key = Hashable  # a network's name or position inside a shard
Pair = tuple[Any, Any]
Shard = Mapping[Any, Rows] | Sequence[Rows]
ShardSource = Shard | Callable[[], Shard]
Space = Literal["gram", "feature"]

BLOCK_BYTES: dict[Space, int] = {"gram": 2**29, "feature": 2**28}
"""Maximum bytes of centred rows in memory at once, unless a single shard has more. Feature space also holds the
products; Gram space reads all later shards again for every block."""

BLOCK_ROWS = 4096
"""Maximum rows in a block of shards: enough for BLAS to be efficient, few enough to keep Gram blocks small."""

COLUMNS = 512
"""Rows of the other side in one Gram block."""


def pair_hsic(sources: Sequence[ShardSource], pairs: Sequence[Pair], *, space: Space | None = None) -> dict[Pair, Hsic]:
    """Compute the sums of all `pairs`, over all rows and without each shard.

    Parameters
    ----------
    sources
        Shards (network -> rows (n_s, d), the same images in the same order), or functions that return one; a function
        is called again in each pass.
    pairs
        Pairs of networks; a network may be paired with itself.
    space
        Space to compute in; the cheaper one by default.

    Raises
    ------
    DataError
        Fewer than 4 rows, row counts that differ, widths that change, or values that are not finite.
    """
    stream = _Stream(sources, pairs)
    validate_enough_rows(stream.n, "across all shards")
    row_sums = _RowSums(stream, pairs)
    if (space or cheaper_space(stream.n, stream.widths, pairs)) == "gram":
        squares = _in_gram_space(stream, pairs, row_sums)
    else:
        squares = _in_feature_space(stream, pairs, row_sums)
    return {pair: row_sums.hsic(pair, *squares[pair]) for pair in pairs}


def cheaper_space(n: int, widths: Mapping[Any, int], pairs: Sequence[Pair]) -> Space:
    """Return the space in which `pairs` take fewer multiplications, leave-one-out sums included."""
    return "gram" if gram_cost(n, widths, pairs) < feature_cost(n, widths, pairs) else "feature"


def gram_cost(n: int, widths: Mapping[Any, int], pairs: Sequence[Pair]) -> int:
    """Count the multiplications of `pairs` in Gram space."""
    return n * n * sum(widths[key] for key in {key for pair in pairs for key in pair}) // 2


def feature_cost(n: int, widths: Mapping[Any, int], pairs: Sequence[Pair]) -> int:
    """Count the multiplications in feature space: the products (half if symmetric) and a second pass over the rows."""
    return n * sum(widths[x] * widths[y] * (3 if x == y else 4) for x, y in pairs) // 2


# Reading -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Block:
    """Consecutive shards: centred float64 rows of each network, and the bounds of its shards."""

    first: int  # number of the first shard
    bounds: np.ndarray  # (shards + 1,) row at which each shard begins, then the number of rows
    rows: dict[Key, np.ndarray]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def shards(self) -> slice:
        """Numbers of the block's shards in the stream."""
        return slice(self.first, self.first + len(self))

    def of_shard(self, shard: int) -> slice:
        """Return the rows of a shard, given its number in the stream."""
        return slice(*self.bounds[shard - self.first : shard - self.first + 2])

    def sums(self, per_row: np.ndarray) -> np.ndarray:
        """Sum over the rows of each shard: (rows, ...) -> (shards, ...)."""
        # not reduceat, which gives an empty shard the next one's first row
        return np.stack([per_row[start:stop].sum(axis=0) for start, stop in pairwise(self.bounds)])


class _Stream:
    """Validated shards, with the results of the first pass: row counts, means, sums of centred rows."""

    def __init__(self, sources: Sequence[ShardSource], pairs: Sequence[Pair]) -> None:
        self._sources = sources
        self.keys = list(dict.fromkeys(key for pair in pairs for key in pair))
        self.widths: dict[Key, int] = {}
        self.means: dict[Key, np.ndarray] = {}
        self._extents = {key: Extent() for key in self.keys}
        self.sums: dict[Key, np.ndarray] = {}  # (G, d) sum of x - mean over each shard
        self.counts = self._survey()
        self.n = int(self.counts.sum())

    def _survey(self) -> np.ndarray:
        origins: dict[Key, np.ndarray] = {}  # a row near the mean: differences of large numbers would lose digits
        counts, sums = [], {key: [] for key in self.keys}  # type: ignore[var-annotated]
        for index in range(len(self._sources)):
            unread = self._read(index)
            shard = {key: validate_rows(rows, f"{key!r} in shard {index}") for key, rows in unread.items()}
            validate_same_rows(shard, where=f" in shard {index}")
            self._check_widths(shard, index)
            counts.append(len(shard[self.keys[0]]))
            for key, rows in shard.items():
                self._extents[key].add(rows, precision(unread[key]))
                if key not in origins and len(rows):
                    origins[key] = rows[0].astype(np.float64)
                sums[key].append(_sum_from(rows, origins.get(key, 0.0)))
        rows_per_shard = np.array(counts, dtype=np.int64)
        for key in self.keys:
            from_origin = np.stack(sums[key]) if counts else np.zeros((0, 0))
            shift = from_origin.sum(axis=0) / max(rows_per_shard.sum(), 1)
            self.means[key] = origins.get(key, 0.0) + shift  # exact for a constant feature, which is then exactly 0
            self.sums[key] = self._scaled(key, from_origin - rows_per_shard[:, None] * shift)
        return rows_per_shard

    def _check_widths(self, shard: Mapping[Key, np.ndarray], index: int) -> None:
        for key, rows in shard.items():
            if rows.shape[1] != self.widths.setdefault(key, rows.shape[1]):
                raise DataError(
                    f"{key!r} must have {self.widths[key]} features as in shard 0, "
                    f"got {rows.shape[1]} in shard {index}. Use shards of the same network."
                )

    def _read(self, index: int) -> dict[Key, Rows]:
        source = self._sources[index]
        shard: Any = source() if callable(source) else source
        return {key: shard[key] for key in self.keys}

    def shard(self, index: int) -> dict[Key, np.ndarray]:
        """Read the centred rows of a shard, float64, scaled."""
        return {
            key: self._scaled(key, to_array(rows, f"{key!r} in shard {index}") - self.means[key])
            for key, rows in self._read(index).items()
        }

    def _scaled(self, key: Key, centred: np.ndarray) -> np.ndarray:
        """Scale centred rows, or their sums, so that products of four are finite; 0 where only rounding is left."""
        extent = self._extents[key]
        if extent.constant:
            return np.zeros_like(centred)
        return np.ldexp(centred, -extent.exponent) if extent.exponent else centred

    def blocks(self, space: Space) -> Iterator[_Block]:
        """Yield all shards in order, as many per block as the limits allow."""
        max_rows = min(BLOCK_ROWS, BLOCK_BYTES[space] // (8 * max(sum(self.widths.values()), 1)))
        first = 0
        while first < len(self.counts):
            last, rows = first + 1, int(self.counts[first])
            while last < len(self.counts) and rows + self.counts[last] <= max_rows:
                rows += int(self.counts[last])
                last += 1
            yield self._block(first, last, rows)
            first = last

    def _block(self, first: int, last: int, count: int) -> _Block:
        bounds = np.concatenate([[0], np.cumsum(self.counts[first:last])])
        rows = {key: np.empty((count, width)) for key, width in self.widths.items()}
        for index, (start, stop) in enumerate(pairwise(bounds), start=first):
            for key, centred in self.shard(index).items():
                rows[key][start:stop] = centred
        return _Block(first, bounds, rows)


def _sum_from(rows: np.ndarray, origin: np.ndarray | float) -> np.ndarray:
    return (rows - origin).sum(axis=0, dtype=np.float64)


# Sums that cost little -----------------------------------------------------------------------------------------------


class _RowSums:
    """Sums of each pair over all rows and within each shard, from the squared lengths of rows and their projections.

    With a = x . sigma_x, where sigma_x is the sum of a shard's rows (so every row has G of them), and b likewise of y:
    sums of k, l, k l, k b, l a, a b. They determine how the sums change as the mean moves without a shard.
    """

    def __init__(self, stream: _Stream, pairs: Sequence[Pair]) -> None:
        self._stream, shards = stream, len(stream.counts)
        self._lengths = {key: np.zeros(shards) for key in stream.keys}
        names = ("kl", "kb", "la", "ab")
        self._all: dict[Pair, dict[str, np.ndarray]] = {p: {name: np.zeros(shards) for name in names} for p in pairs}
        self._within: dict[Pair, dict[str, np.ndarray]] = {p: {name: np.zeros(shards) for name in names} for p in pairs}

    def add(self, block: _Block) -> None:
        """Add a block. Call it once for every block, in order."""
        lengths = {key: np.einsum("rd,rd->r", rows, rows) for key, rows in block.rows.items()}
        onto = {key: rows @ self._stream.sums[key].T for key, rows in block.rows.items()}
        shard_of_row = np.repeat(np.arange(len(block)) + block.first, np.diff(block.bounds))
        onto_same = {key: a[np.arange(len(a)), shard_of_row] for key, a in onto.items()}
        for key, k in lengths.items():
            self._lengths[key][block.shards] = block.sums(k)
        for (x, y), sums in self._all.items():
            k, l, a, b = lengths[x], lengths[y], onto[x], onto[y]  # noqa: E741 (the letter of the formulas)
            sums["kb"] += k @ b
            sums["la"] += l @ a
            sums["ab"] += np.einsum("rs,rs->s", a, b)
            a_same, b_same = onto_same[x], onto_same[y]
            for name, per_row in {"kl": k * l, "kb": k * b_same, "la": l * a_same, "ab": a_same * b_same}.items():
                self._within[x, y][name][block.shards] = block.sums(per_row)

    def hsic(self, pair: Pair, square: float, inner: np.ndarray, shard_square: np.ndarray) -> Hsic:
        """Return the sums of a pair, given |C|^2, <C, M_s> (G,) and |M_s|^2 (G,).

        Without shard s the mean moves by -sigma / m from that of all rows; the sums are expanded about it.
        """
        x, y = pair
        counts, n = self._stream.counts, self._stream.n
        m = np.where(counts < n, n - counts, 1)
        sx, sy = (np.einsum("sd,sd->s", self._stream.sums[key], self._stream.sums[key]) for key in pair)
        k, l = self._lengths[x], self._lengths[y]  # noqa: E741
        tx, ty = k.sum(), l.sum()
        within = self._within[pair]
        rest = {name: self._all[pair][name] - within[name] for name in ("kb", "la", "ab")}
        q = within["kl"].sum()

        rest_square = square + shard_square - 2 * inner - 2 / m * rest["ab"] + sx * sy / m**2
        rest_q = q - within["kl"] + 2 / m * (rest["kb"] + rest["la"]) + (sy * (tx - k) + sx * (ty - l)) / m**2
        rest_q += 4 / m**2 * rest["ab"] - 3 * sx * sy / m**3
        return Hsic(
            n=np.concatenate([[n], n - counts]),
            square=np.concatenate([[square], rest_square]),
            q=np.concatenate([[q], rest_q]),
            tx=np.concatenate([[tx], tx - k - sx / m]),
            ty=np.concatenate([[ty], ty - l - sy / m]),
        )


# Sums that cost much -------------------------------------------------------------------------------------------------

Squares = tuple[float, np.ndarray, np.ndarray]  # |C|^2, <C, M_s> (G,), |M_s|^2 (G,)


def _in_gram_space(stream: _Stream, pairs: Sequence[Pair], row_sums: _RowSums) -> dict[Pair, Squares]:
    shards, networks = len(stream.counts), len(stream.keys)
    inner = np.zeros((shards, networks, networks))
    squares = np.zeros((shards, networks, networks))
    for block in stream.blocks("gram"):
        row_sums.add(block)
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
                        squares[t] += products
    position = {key: index for index, key in enumerate(stream.keys)}
    cells = {(x, y): (slice(None), position[x], position[y]) for x, y in pairs}
    return {pair: (float(inner[cell].sum()), inner[cell], squares[cell]) for pair, cell in cells.items()}


def _grams(block: _Block, columns: Mapping[Key, np.ndarray], *, rows: int) -> np.ndarray:
    """Return the first `rows` rows of the block times other rows c, for every network: (M, rows, c)."""
    count = len(next(iter(columns.values())))
    grams = np.empty((len(columns), rows, count))
    for index, (key, others) in enumerate(columns.items()):
        np.matmul(block.rows[key][:rows], others.T, out=grams[index])
    return grams


def _inner_products(grams: np.ndarray) -> np.ndarray:
    """Return the inner product of every two Gram matrices: (M, a, b) -> (M, M)."""
    flat = grams.reshape(len(grams), -1)
    return flat @ flat.T


def _in_feature_space(stream: _Stream, pairs: Sequence[Pair], row_sums: _RowSums) -> dict[Pair, Squares]:
    C = {(x, y): np.zeros((stream.widths[x], stream.widths[y])) for x, y in pairs}
    for block in stream.blocks("feature"):
        row_sums.add(block)
        for x, y in pairs:
            C[x, y] += block.rows[x].T @ block.rows[y]  # numpy halves the work where x is y
    shards = len(stream.counts)
    inner = {pair: np.zeros(shards) for pair in pairs}
    squares = {pair: np.zeros(shards) for pair in pairs}
    if shards > 1:  # no leave-one-out values with a single shard
        for block in stream.blocks("feature"):
            for x, y in pairs:
                per_row = np.einsum("rd,rd->r", block.rows[x] @ C[x, y], block.rows[y])
                inner[x, y][block.shards] = block.sums(per_row)
            for pair, values in _shard_squares(block, pairs).items():
                squares[pair][block.shards] = values
    return {pair: (float(np.vdot(C[pair], C[pair])), inner[pair], squares[pair]) for pair in pairs}


def _shard_squares(block: _Block, pairs: Sequence[Pair]) -> dict[Pair, np.ndarray]:
    """Compute |M_s|^2 of every pair and shard of a block, from the Gram matrices of each shard."""
    position = {key: index for index, key in enumerate(block.rows)}
    squares = {pair: np.zeros(len(block)) for pair in pairs}
    for index in range(len(block)):
        bounds = block.of_shard(block.first + index)
        shard = {key: rows[bounds] for key, rows in block.rows.items()}
        for start in range(0, bounds.stop - bounds.start, COLUMNS):
            columns = {key: rows[start : start + COLUMNS] for key, rows in shard.items()}
            grams = np.stack([shard[key] @ columns[key].T for key in block.rows])
            products = _inner_products(grams)
            for x, y in pairs:
                squares[x, y][index] += products[position[x], position[y]]
    return squares
