"""Sweeps that stop when their results are known, by simulation: `python -m benchmarks.until`.

Made-up sweeps of four networks, whose CKA over all images has a closed form, are drawn many times and looked at after
every shard from the eighth on, with netsim's estimator and its jackknife. Each question is put twice: with the interval
of `netsim.statistics.sequential`, and with the usual 95 % interval, which takes no notice of being looked at. Printed
are how often the interval covers the truth where the sweep stops, how often it does so at all looks, and how many
images are saved against a sweep of a fixed number of pairs that answers as well for the worst row in 95 % of draws.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.console import Console

from flows.cli.console import table_of
from netsim.similarity.hsic import Hsic
from netsim.similarity.uncertainty import half_width, jackknife_se
from netsim.statistics.sequential import FIRST_LOOK, anytime_factor, looks, width_factor

NETWORKS, WIDTH, SHARD, SHARDS = 4, 4, 32, 64
"""Networks, features of each, images of a shard, and shards at most."""

FIXED = 48
"""Shards of the fixed sweep that each question is scaled to."""

ITSELF, NOISE = 2.0, 1.0
"""Share of the target in a network's representations of its own inversions, and of noise in all."""

BLOCK = 25
"""Draws at once."""


@dataclass(frozen=True)
class Population:
    """A kind of sweep.

    Attributes
    ----------
    shares
        How much of the target each row's images show to the other networks.
    tails
        Standard deviation of the logarithm of an image's length: with 0, representations are normal.
    """

    shares: tuple[float, ...]
    tails: float = 0.0


POPULATIONS = {
    "low": Population((0.5, 0.5, 0.6, 0.9)),
    "middle": Population((0.9, 0.9, 1.0, 1.4)),
    "high": Population((2.0, 2.0, 2.4, 3.0)),
    "low, heavy tails": Population((0.5, 0.5, 0.6, 0.9), tails=0.5),
    "middle, heavy tails": Population((0.9, 0.9, 1.0, 1.4), tails=0.5),
}


def mixing(rng_seed: int = 0) -> np.ndarray:
    """Return how each network turns what targets are made of into features: (M, d, d)."""
    rng = np.random.default_rng(rng_seed)
    turns = [np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0] for _ in range(NETWORKS)]
    return np.stack([np.diag(1 / np.sqrt(1 + np.arange(WIDTH))) @ turn for turn in turns])


def strengths(population: Population, row: int) -> np.ndarray:
    """Return how much of a target each network sees in a row's images, (M,)."""
    return np.where(np.arange(NETWORKS) == row, ITSELF, population.shares[row])


def true_rows(population: Population) -> np.ndarray:
    """Compute the mean CKA of each row over all images, (M,): |S_xy|^2 / (|S_xx| |S_yy|) of the covariances."""
    rows, turns = [], mixing()
    for row in range(NETWORKS):
        seen = strengths(population, row)[:, None, None] * turns
        covariance = np.einsum("ika,jkb->ijab", seen, seen)
        covariance[np.arange(NETWORKS), np.arange(NETWORKS)] += NOISE**2 * np.eye(WIDTH)
        size = np.sqrt(np.square(covariance).sum(axis=(2, 3)))
        cells = size[row] ** 2 / (size[row, row] * size.diagonal())
        rows.append(np.delete(cells, row).mean())
    return np.array(rows)


def draw(rng: np.random.Generator, population: Population, draws: int, shards: int) -> Iterator[np.ndarray]:
    """Draw what every network sees of each row's images: (draws, shards, images, M, d). Rows share targets."""
    shape = (draws, shards, SHARD)
    targets = rng.normal(size=(*shape, WIDTH))
    length = np.exp(population.tails * rng.normal(size=(*shape, 1, 1)))
    for row in range(NETWORKS):
        seen = strengths(population, row)[:, None, None] * mixing()
        yield length * (
            np.einsum("dgnk,jka->dgnja", targets, seen) + NOISE * rng.normal(size=(*shape, NETWORKS, WIDTH))
        )


# ---- CKA at every look, from sums over shards


class Sums(NamedTuple):
    """Sums over the images of a shard, or of several: what CKA of one network with the others depends on.

    Letters as in `netsim.similarity.hsic`, before centring: x, y rows of two networks, k = |x|^2, l = |y|^2.
    """

    x: np.ndarray  # (..., M, d)
    xy: np.ndarray  # (..., M, d, d), one network with each
    xx: np.ndarray  # (..., M, d, d), each with itself
    k: np.ndarray  # (..., M)
    kl: np.ndarray  # (..., M)
    kk: np.ndarray  # (..., M)
    ky: np.ndarray  # (..., M, d), k of the one network
    lx: np.ndarray  # (..., M, d), x of the one network
    kx: np.ndarray  # (..., M, d)

    @classmethod
    def of(cls, rows: np.ndarray, row: int) -> "Sums":
        """Sum over the images of each shard, (draws, shards, images, M, d)."""
        one, k = rows[..., row, :], np.square(rows).sum(axis=-1)
        return cls(
            rows.sum(axis=2),
            np.einsum("dgna,dgnjb->dgjab", one, rows, optimize=True),
            np.einsum("dgnja,dgnjb->dgjab", rows, rows, optimize=True),
            k.sum(axis=2),
            (k[..., [row]] * k).sum(axis=2),
            (k * k).sum(axis=2),
            np.einsum("dgn,dgnjb->dgjb", k[..., row], rows, optimize=True),
            np.einsum("dgnj,dgna->dgja", k, one, optimize=True),
            np.einsum("dgnj,dgnja->dgja", k, rows, optimize=True),
        )

    def without_each(self, shards: int) -> "Sums":
        """Sum over the first shards, then over those without each of them: (draws, 1 + G, ...)."""

        def both(values: np.ndarray) -> np.ndarray:
            total = values[:, :shards].sum(axis=1, keepdims=True)
            return np.concatenate([total, total - values[:, :shards]], axis=1)

        return Sums(*map(both, self))


def row_means(sums: Sums, row: int, shards: int) -> np.ndarray:
    """Compute the mean CKA of a row, over the first shards and without each: (draws, 1 + G)."""
    s = sums.without_each(shards)
    n = SHARD * np.array([shards, *[shards - 1] * shards], dtype=np.float64)[:, None]
    mean = s.x / n[..., None]
    one = np.broadcast_to(mean[..., [row], :], mean.shape)
    cross = _hsic(n, s.xy, s.kl, s.k[..., [row]], s.k, s.ky, s.lx, one, mean)
    itself = _hsic(n, s.xx, s.kk, s.k, s.k, s.kx, s.kx, mean, mean)
    cells = cross / np.sqrt(itself[..., [row]] * itself)
    return np.delete(cells, row, axis=-1).mean(axis=-1)


def _hsic(
    n: np.ndarray,
    xy: np.ndarray,
    kl: np.ndarray,
    k: np.ndarray,
    l: np.ndarray,  # noqa: E741
    ky: np.ndarray,
    lx: np.ndarray,
    mean_x: np.ndarray,
    mean_y: np.ndarray,
) -> np.ndarray:
    """Compute unbiased HSIC from sums before centring, by expanding |x - mean x|^2."""
    a, b = np.square(mean_x).sum(axis=-1), np.square(mean_y).sum(axis=-1)
    square = np.square(xy - n[..., None, None] * mean_x[..., :, None] * mean_y[..., None, :]).sum(axis=(-2, -1))
    q = kl - 2 * (mean_y * ky).sum(axis=-1) - 2 * (mean_x * lx).sum(axis=-1) + b * k + a * l - 3 * n * a * b
    q += 4 * np.einsum("...a,...ab,...b->...", mean_x, xy, mean_y)
    return Hsic(n, square, q, k - n * a, l - n * b).value("unbiased")


@dataclass(frozen=True)
class Looks:
    """What draws of a population show at every look: values and standard errors (draws, looks), and the truth."""

    values: np.ndarray
    errors: np.ndarray
    truth: float

    @classmethod
    def of(cls, replicates: list[np.ndarray], truth: float) -> "Looks":
        """Estimate at each look from the values over all shards and without each, (draws, 1 + G)."""
        values = np.stack([each[:, 0] for each in replicates], axis=1)
        errors = np.stack([jackknife_se(each[:, 1:].T) for each in replicates], axis=1)
        return cls(values, errors, truth)


def simulate(population: Population, draws: int, shards: int = SHARDS, rng_seed: int = 0) -> list[list[np.ndarray]]:
    """Compute the row means at every look: look -> row -> (draws, 1 + G)."""
    blocks = []
    for number, first in enumerate(range(0, draws, BLOCK)):
        rng = np.random.default_rng([rng_seed, number])
        sums = [Sums.of(rows, row) for row, rows in enumerate(draw(rng, population, min(BLOCK, draws - first), shards))]
        blocks.append(
            [[row_means(each, row, look) for row, each in enumerate(sums)] for look in range(FIRST_LOOK, shards + 1)]
        )
    return [[np.concatenate(rows) for rows in zip(*look, strict=True)] for look in zip(*blocks, strict=True)]


# ---- questions


@dataclass(frozen=True)
class Question:
    """What a sweep is to find out, and when it may stop.

    Attributes
    ----------
    name
        The question in words.
    looks
        What the draws show of it.
    factor
        Half the width of the interval that decides, in standard errors, at each look.
    stops
        The rule, of values and half widths.
    fixed
        Shards of the fixed sweep that answers as well for the worst row, or the worst two, in 95 % of draws.
    """

    name: str
    looks: Looks
    factor: np.ndarray
    stops: Callable[[np.ndarray, np.ndarray], np.ndarray]
    fixed: int


LOOKED = np.arange(FIRST_LOOK, SHARDS + 1)
"""Shards at each look."""

USUAL = np.array([float(half_width(np.asarray(1.0), shards - 1)) for shards in LOOKED])
"""Half the width of the usual interval, in standard errors."""


def narrow(width: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the rule that stops where half the width is at most `width`."""
    return lambda values, half: half <= width


def decided(delta: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the rule that stops where the interval excludes 0, or lies within -+ delta."""
    return lambda values, half: (np.abs(values) > half) | (np.abs(values) + half < delta)


def fixed_shards(met: np.ndarray) -> int:
    """Return the shards at which a rule is met in 95 % of draws (draws, looks), or the most there are."""
    enough = met.mean(axis=0) >= 0.95
    return int(LOOKED[enough.argmax() if enough.any() else -1])


def questions(population: Population, draws: int) -> Iterator[Question]:
    """Draw sweeps of a population and yield what can be asked of them.

    Widths and deltas are such that a fixed sweep of `FIXED` shards reaches them in 95 % of draws: the width for the
    worst row, delta for two rows that do not differ.
    """
    shown, truth = simulate(population, draws), true_rows(population)
    rows = [Looks.of([look[row] for look in shown], truth[row]) for row in range(NETWORKS)]
    mean = Looks.of([sum(look) / NETWORKS for look in shown], truth.mean())
    at_fixed = int(FIXED - FIRST_LOOK)
    width = max(np.quantile(USUAL[at_fixed] * row.errors[:, at_fixed], 0.95) for row in rows)
    yield Question("mean", mean, width_factor(LOOKED), narrow(width), FIXED)
    for number, row in enumerate(rows):
        yield Question(f"row {number}", row, width_factor(LOOKED), narrow(width), FIXED)
    pairs = {
        (a, b): Looks.of([look[a] - look[b] for look in shown], truth[a] - truth[b])
        for a, b in ((0, 1), (0, 2), (2, 3), (0, 3))
    }
    equal = pairs[0, 1]
    delta = np.quantile(np.abs(equal.values[:, at_fixed]) + USUAL[at_fixed] * equal.errors[:, at_fixed], 0.95)
    fixed = max(fixed_shards(decided(delta)(each.values, USUAL * each.errors)) for each in pairs.values())
    for (a, b), shows in pairs.items():
        name = f"{a} - {b}: {shows.truth:+.3f}, delta {delta:.3f}"
        yield Question(name, shows, anytime_factor(LOOKED), decided(delta), fixed)


@dataclass(frozen=True)
class Outcome:
    """How the sweeps of a question ended.

    Attributes
    ----------
    shards
        Shards at which each draw stopped.
    covered, always
        Share of draws whose interval covers the truth where it stopped, and at all looks.
    """

    shards: np.ndarray
    covered: float
    always: float

    @classmethod
    def of(cls, question: Question, factor: np.ndarray, seen: np.ndarray) -> "Outcome":
        """Stop each draw at the first look of those that are `seen` where the rule is met, or at the last."""
        values, half = question.looks.values[:, seen], factor[seen] * question.looks.errors[:, seen]
        met, inside = question.stops(values, half), np.abs(values - question.looks.truth) <= half
        stop = np.where(met.any(axis=1), met.argmax(axis=1), met.shape[1] - 1)
        covered = inside[np.arange(len(stop)), stop].mean()
        return cls(LOOKED[seen][stop], float(covered), float(inside.all(axis=1).mean()))


EVERY, PLANNED = np.ones(len(LOOKED), dtype=bool), np.isin(LOOKED, list(looks(SHARDS)))
"""Looks after every shard, and those that netsim takes."""


def kind_of(question: Question) -> str:
    """Return what a question is about."""
    return "mean" if question.name == "mean" else "difference" if "delta" in question.name else "row"


def main() -> None:
    """Print, for each population and question, coverage with either interval and the images saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000, help="draws of each population")
    options = parser.parse_args()
    saved: dict[str, list[float]] = {"mean": [], "row": [], "difference": []}
    for name, population in POPULATIONS.items():
        table = table_of(name, "usual: at the stop", "at all looks", "netsim: at the stop", "anytime: at all looks")
        for column in ("shards", "of", "saved", "planned looks"):
            table.add_column(column, justify="right")
        for question in questions(population, options.draws):
            usual, ours = (Outcome.of(question, factor, EVERY) for factor in (USUAL, question.factor))
            anytime = Outcome.of(question, anytime_factor(LOOKED), EVERY)
            planned = Outcome.of(question, question.factor, PLANNED)
            shares = [1 - float(np.median(each.shards)) / question.fixed for each in (ours, planned)]
            saved[kind_of(question)].append(shares[1])
            table.add_row(
                question.name,
                *(f"{share:.1%}" for share in (usual.covered, usual.always, ours.covered, anytime.always)),
                f"{np.median(ours.shards):.0f}",
                str(question.fixed),
                *(f"{share:.0%}" for share in shares),
            )
        Console(width=150).print(table)
    for kind, all_saved in saved.items():
        print(f"{kind}: {np.median(all_saved):.0%} saved in the median ({min(all_saved):.0%} to {max(all_saved):.0%})")
    print(
        f"{options.draws} draws of each population, shards of {SHARD} images, {SHARDS} at most; looks after every shard"
    )


if __name__ == "__main__":
    main()
