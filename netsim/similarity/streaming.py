"""`Hsic` of many pairs of networks over a stream of shards: exact, with leave-one-out sums for every shard.

n = rows (images), d = features, G = shards, m = rows without a shard.

The first pass computes the means; later passes read rows centred at them, in float64, scaled by a power of two if their
products would overflow or vanish. Rows that vary by no more than rounding are read as zeros. A pair then requires

    |C|^2           of all rows          C = X^T Y
    <C, M_s>        of each shard s      M_s = X_s^T Y_s
    |M_s|^2         of each shard s

and some sums that cost next to nothing (`_RowSums`). The three are computed in one of two spaces:

    Gram      blocks K_st = X_s X_t^T of every network, shared by all its pairs:  <M_s, M_t> = <K_st, L_st>.
              n^2 d / 2 multiplications per network; the leave-one-out sums are free.
    feature   C of every pair, then a second pass over the rows: <C, M_s> = sum over rows of x^T C y; |M_s|^2 from Gram
              matrices of the shard. n d d' multiplications per pair (half for a network with itself) in each pass.

The values of a pair depend on its own rows only, to the last bit, not on the other pairs of the call: its space follows
from its own widths, rows are multiplied in tiles that follow from the sizes of the shards, and every sum is taken in
the order of the shards. So a matrix that grows has the same bits as one that is computed at once (with one BLAS and one
number of threads). Memory does not grow with n, except for 8 bytes per feature and shard.

Leave-one-out sums are differences, all rows minus a shard, and as exact as those unless next to nothing is left: an
image 10^4 times larger than the others would put them off by 1 %. So where a shard holds all but `CANCELLATION` of a
network's variance, which at most one shard can, the pairs of that network are summed over the other shards again.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from netsim.errors import DataError
from netsim.similarity.hsic import MIN_ROWS, Hsic, validate_enough_rows
from netsim.similarity.rows import Extent, Rows, precision, to_array, validate_rows, validate_same_rows

Key = Hashable  # a network's name or position inside a shard
Pair = tuple[Any, Any]
Shard = Mapping[Any, Rows] | Sequence[Rows]
ShardSource = Shard | Callable[[], Shard]
Space = Literal["gram", "feature"]

BLOCK_BYTES = 2**29
"""Maximum bytes of centred rows in memory at once in Gram space, unless a single tile has more. All later shards are
read again for every block."""

TILE_ROWS = 512
"""Maximum rows of a tile, unless a single shard has more: enough for BLAS to be efficient."""

PARTNERS = 3
"""Pairs that are assumed to share the Gram matrices of a network, in the choice of a pair's space."""

CANCELLATION = 1e-2
"""Share of a network's variance below which what is left without a shard is summed anew. Its square, by which rounding
errors of |C|^2 grow at most, is then 1e-4; shards of ordinary images are far above."""


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
        Space to compute in; by default, that of each pair by `cheaper_space`.

    Raises
    ------
    DataError
        Fewer than 4 rows, row counts that differ, widths that change, or values that are not finite.
    """
    stream = _Stream(sources, pairs)
    validate_enough_rows(stream.n, "across all shards")
    sums = _sums(stream, pairs, space)
    for shard, dominated in _dominated(sums).items():
        affected = [pair for pair in pairs if not dominated.isdisjoint(pair)]
        others = [*sources[:shard], *sources[shard + 1 :]]
        rest = _sums(stream.without(others, affected, dominated), affected, space, left_out=False)
        sums |= {pair: sums[pair].with_entry(1 + shard, rest[pair]) for pair in affected}
    return {pair: sums[pair] for pair in pairs}


def _sums(stream: "_Stream", pairs: Sequence[Pair], space: Space | None, *, left_out: bool = True) -> dict[Pair, Hsic]:
    """Compute the sums of pairs, each in its space; not those without each shard, unless `left_out`."""
    by_space: dict[Space, list[Pair]] = {"gram": [], "feature": []}
    for x, y in pairs:
        by_space[space or cheaper_space(stream.n, stream.widths[x], stream.widths[y])].append((x, y))
    in_features = _in_feature_space(stream, by_space["feature"], left_out=left_out)
    return _in_gram_space(stream, by_space["gram"]) | in_features


def _dominated(sums: Mapping[Pair, Hsic]) -> dict[int, set[Key]]:
    """Find the networks of which a shard holds all variance but `CANCELLATION`, by shard, in the order of shards."""
    shards: dict[int, set[Key]] = {}
    for (x, y), hsic in sums.items():
        for key, t in ((x, hsic.tx), (y, hsic.ty)):
            little = ~(t[1:] > CANCELLATION * t[0]) & (hsic.n[1:] >= MIN_ROWS) & (t[0] > 0)
            for shard in np.flatnonzero(little).tolist():
                shards.setdefault(shard, set()).add(key)
    return dict(sorted(shards.items()))


def cheaper_space(n: int, width: int, other_width: int) -> Space:
    """Return the space in which a pair takes fewer multiplications, if `PARTNERS` pairs share each Gram matrix.

    Examples
    --------
    >>> cheaper_space(10_000, 2048, 2048), cheaper_space(50_000, 2048, 2048)
    ('gram', 'feature')
    """
    gram = n * (width + other_width)
    return "gram" if gram < PARTNERS * 4 * width * other_width else "feature"


def multiplications(n: int, widths: Mapping[Any, int], pairs: Sequence[Pair]) -> int:
    """Count the multiplications of `pairs` in their spaces: Gram matrices once per network, products once per pair."""
    in_gram = [(x, y) for x, y in pairs if cheaper_space(n, widths[x], widths[y]) == "gram"]
    shared = sum(widths[key] for key in {key for pair in in_gram for key in pair})
    products = sum(widths[x] * widths[y] * (3 if x == y else 4) for x, y in set(pairs) - set(in_gram))
    return (n * n * shared + n * products) // 2


# Reading -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Tile:
    """Consecutive shards: centred float64 rows of each network, and the bounds of its shards."""

    shards: range  # their numbers in the stream
    bounds: np.ndarray  # (shards + 1,) row at which each shard begins, then the number of rows
    rows: dict[Key, np.ndarray]

    @property
    def part(self) -> slice:
        """Place of the tile's shards in arrays over all shards."""
        return slice(self.shards.start, self.shards.stop)

    def of_shard(self, shard: int) -> slice:
        """Return the rows of a shard, given its number in the stream."""
        return slice(*self.bounds[shard - self.shards.start : shard - self.shards.start + 2])

    def sums(self, per_row: np.ndarray) -> np.ndarray:
        """Sum over the rows of each shard: (rows, ...) -> (shards, ...)."""
        # not reduceat, which gives an empty shard the next one's first row
        return np.stack([per_row[start:stop].sum(axis=0) for start, stop in pairwise(self.bounds)])


class _Stream:
    """Validated shards, with the results of the first pass: row counts, means, sums of centred rows."""

    def __init__(
        self, sources: Sequence[ShardSource], pairs: Sequence[Pair], extents: Mapping[Key, Extent] | None = None
    ) -> None:
        """Read the shards once; `extents`, where given, decide how a network's rows are scaled."""
        self._sources = sources
        self.keys = keys_of(pairs)
        self.widths: dict[Key, int] = {}
        self.means: dict[Key, np.ndarray] = {}
        self._extents = {key: Extent() for key in self.keys}
        self._given = extents or {}
        self.sums: dict[Key, np.ndarray] = {}  # (G, d) sum of x - mean over each shard
        self.counts = self._survey()
        self.n = int(self.counts.sum())

    def without(self, others: Sequence[ShardSource], pairs: Sequence[Pair], dominated: Collection[Key]) -> "_Stream":
        """Read the other shards of one left out, scaled as here, but those `dominated` by it by their own size."""
        scaled_as_here = {key: self._extents[key] for key in keys_of(pairs) if key not in dominated}
        return _Stream(others, pairs, scaled_as_here)

    def _survey(self) -> np.ndarray:
        origins: dict[Key, np.ndarray] = {}  # a row near the mean: differences of large numbers would lose digits
        counts, sums = [], {key: [] for key in self.keys}  # type: ignore[var-annotated]
        for index in range(len(self._sources)):
            unread = self._read(index, self.keys)
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

    def _read(self, index: int, keys: Sequence[Key]) -> dict[Key, Rows]:
        source = self._sources[index]
        shard: Any = source() if callable(source) else source
        return {key: shard[key] for key in keys}

    def shard(self, index: int, keys: Sequence[Key]) -> dict[Key, np.ndarray]:
        """Read the centred rows of a shard, float64, scaled."""
        return {
            key: self._scaled(key, to_array(rows, f"{key!r} in shard {index}") - self.means[key])
            for key, rows in self._read(index, keys).items()
        }

    def _scaled(self, key: Key, centred: np.ndarray) -> np.ndarray:
        """Scale centred rows, or their sums, so that products of four are finite; 0 where only rounding is left."""
        extent = self._given.get(key, self._extents[key])
        if extent.constant:
            return np.zeros_like(centred)
        return np.ldexp(centred, -extent.exponent) if extent.exponent else centred

    def tiles(self) -> list[range]:
        """Cut the shards into tiles: consecutive shards of at most `TILE_ROWS` rows together, whatever their widths."""
        tiles, first, rows = [], 0, 0
        for shard, count in enumerate(self.counts.tolist()):
            if shard > first and rows + count > TILE_ROWS:
                tiles.append(range(first, shard))
                first, rows = shard, 0
            rows += count
        return [*tiles, range(first, len(self.counts))]

    def read_tile(self, shards: range, keys: Sequence[Key]) -> _Tile:
        """Read the centred rows of a tile."""
        counts = self.counts[shards.start : shards.stop]
        bounds = np.concatenate([[0], np.cumsum(counts)])
        rows = {key: np.empty((int(bounds[-1]), self.widths[key])) for key in keys}
        for shard, (start, stop) in zip(shards, pairwise(bounds), strict=True):
            for key, centred in self.shard(shard, keys).items():
                rows[key][start:stop] = centred
        return _Tile(shards, bounds, rows)


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
        self._lengths = {key: np.zeros(shards) for key in keys_of(pairs)}
        names = ("kl", "kb", "la", "ab")
        self._all: dict[Pair, dict[str, np.ndarray]] = {p: {name: np.zeros(shards) for name in names} for p in pairs}
        self._within: dict[Pair, dict[str, np.ndarray]] = {p: {name: np.zeros(shards) for name in names} for p in pairs}

    def add(self, tile: _Tile) -> None:
        """Add a tile. Call it once for every tile, in order."""
        lengths = {key: np.einsum("rd,rd->r", rows, rows) for key, rows in tile.rows.items()}
        onto = {key: rows @ self._stream.sums[key].T for key, rows in tile.rows.items()}
        shard_of_row = np.repeat(tile.shards, np.diff(tile.bounds))
        onto_same = {key: a[np.arange(len(a)), shard_of_row] for key, a in onto.items()}
        for key, k in lengths.items():
            self._lengths[key][tile.part] = tile.sums(k)
        for (x, y), sums in self._all.items():
            k, l, a, b = lengths[x], lengths[y], onto[x], onto[y]  # noqa: E741 (the letter of the formulas)
            sums["kb"] += k @ b
            sums["la"] += l @ a
            sums["ab"] += np.einsum("rs,rs->s", a, b)
            a_same, b_same = onto_same[x], onto_same[y]
            for name, per_row in {"kl": k * l, "kb": k * b_same, "la": l * a_same, "ab": a_same * b_same}.items():
                self._within[x, y][name][tile.part] = tile.sums(per_row)

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


def _in_gram_space(stream: _Stream, pairs: Sequence[Pair]) -> dict[Pair, Hsic]:
    shards, keys, row_sums = len(stream.counts), keys_of(pairs), _RowSums(stream, pairs)
    inner, squares = np.zeros((shards, len(pairs))), np.zeros((shards, len(pairs)))
    products = _InnerProducts(keys, pairs)
    tiles = stream.tiles() if pairs else []
    for block in _blocks(stream, tiles, keys):
        for tile in block:
            row_sums.add(tile)
        for shards_of_tile in tiles[tiles.index(block[0].shards) :]:
            inside = next((tile for tile in block if tile.shards == shards_of_tile), None)
            columns = inside or stream.read_tile(shards_of_tile, keys)
            for tile in block:
                if tile.shards.start > columns.shards.start:
                    break
                grams = np.stack([tile.rows[key] @ columns.rows[key].T for key in keys])
                for t in columns.shards:
                    for s in range(tile.shards.start, min(tile.shards.stop, t + 1)):
                        values = products(grams[:, tile.of_shard(s), columns.of_shard(t)])
                        inner[t] += values
                        if s < t:
                            inner[s] += values
                        else:
                            squares[t] += values
    every = enumerate(pairs)
    return {pair: row_sums.hsic(pair, float(inner[:, p].sum()), inner[:, p], squares[:, p]) for p, pair in every}


def _blocks(stream: _Stream, tiles: Sequence[range], keys: Sequence[Key]) -> Iterator[list[_Tile]]:
    """Read all tiles in order, as many at a time as `BLOCK_BYTES` allows."""
    width, first = sum(stream.widths[key] for key in keys), 0
    while first < len(tiles):
        last, rows = first, 0
        while last < len(tiles) and (last == first or 8 * width * (rows + _rows(stream, tiles[last])) <= BLOCK_BYTES):
            rows += _rows(stream, tiles[last])
            last += 1
        yield [stream.read_tile(tile, keys) for tile in tiles[first:last]]
        first = last


def _rows(stream: _Stream, shards: range) -> int:
    return int(stream.counts[shards.start : shards.stop].sum())


class _InnerProducts:
    """Inner products of the Gram matrices of pairs, each from its own two matrices by one BLAS dot product."""

    def __init__(self, keys: Sequence[Key], pairs: Sequence[Pair]) -> None:
        self._sides = [[keys.index(pair[side]) for pair in pairs] for side in (0, 1)]

    def __call__(self, grams: np.ndarray) -> np.ndarray:
        """Multiply: (networks, a, b) -> (pairs,)."""
        flat = grams.reshape(len(grams), -1)
        return np.vecdot(*(flat[side] for side in self._sides))


def _in_feature_space(stream: _Stream, pairs: Sequence[Pair], *, left_out: bool) -> dict[Pair, Hsic]:
    keys, row_sums, tiles = keys_of(pairs), _RowSums(stream, pairs), stream.tiles() if pairs else []
    C = {(x, y): np.zeros((stream.widths[x], stream.widths[y])) for x, y in pairs}
    for shards in tiles:
        tile = stream.read_tile(shards, keys)
        row_sums.add(tile)
        for x, y in pairs:
            C[x, y] += tile.rows[x].T @ tile.rows[y]  # numpy halves the work where x is y
    inner = {pair: np.zeros(len(stream.counts)) for pair in pairs}
    squares = np.zeros((len(stream.counts), len(pairs)))
    products = _InnerProducts(keys, pairs)
    for shards in tiles if left_out and len(stream.counts) > 1 else ():  # a single shard leaves nothing
        tile = stream.read_tile(shards, keys)
        for x, y in pairs:
            per_row = np.vecdot(tile.rows[x] @ C[x, y], tile.rows[y])
            inner[x, y][tile.part] = tile.sums(per_row)
        for shard in tile.shards:
            rows = {key: each[tile.of_shard(shard)] for key, each in tile.rows.items()}
            squares[shard] = products(np.stack([rows[key] @ rows[key].T for key in keys]))
    return {
        pair: row_sums.hsic(pair, float(np.vdot(C[pair], C[pair])), inner[pair], squares[:, p])
        for p, pair in enumerate(pairs)
    }


def keys_of(pairs: Sequence[Pair]) -> list[Key]:
    """List the networks of pairs, each once, in order."""
    return list(dict.fromkeys(key for pair in pairs for key in pair))
