"""Coverage of the 95 % intervals, by simulation: `python -m benchmarks.coverage`.

Two representations share four directions, with noise, so CKA of all images has a closed form. Many sets of images are
drawn; each gives a value, a standard error and an interval. An error is right if its mean is the spread of the values
over the sets, and an interval is right if it contains the true value in 95 % of the sets.

A second table does the same over networks: similarities of made-up networks, with effects of architectures, of training
seeds, of pairs of either, and of shards of images, are drawn many times, and the mean over all images, over all
networks, or over both is known. A third is of slopes: networks of several radii of adversarial training, whose
similarity rises with the radius by a known amount, which each architecture and each pair has its own share of.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from rich.console import Console

from flows.cli.console import table_of
from netsim.similarity.blocked import blocked_similarity
from netsim.similarity.cka import linear_cka, similarity
from netsim.similarity.measures import Measure
from netsim.similarity.measures.retrained_agreement import retrained_agreement
from netsim.similarity.retraining import retrained_scores
from netsim.similarity.uncertainty import Estimate, half_sampling, jackknife
from netsim.stages.measure import evaluate
from netsim.statistics.networks import ceiling, mean_between_groups, normalized
from netsim.statistics.slopes import ByEps, similarity_by_eps

SHARED, NOISE, WIDTHS = 4, 2.0, (24, 16)
UNBIASED = Measure("cka", "", "", lambda x, y: linear_cka(x, y, "unbiased"), "representations", None, False, True)
Sides = tuple[np.ndarray, np.ndarray]


def population(rng: np.random.Generator) -> tuple[Callable[[int], Sides], float]:
    """Return a function that draws n images, and CKA of all images: |S_xy|^2 / (|S_xx| |S_yy|) of the covariances."""
    A, B = (rng.normal(size=(SHARED, width)) for width in WIDTHS)
    sxx, syy, sxy = A.T @ A + NOISE * np.eye(WIDTHS[0]), B.T @ B + NOISE * np.eye(WIDTHS[1]), A.T @ B
    truth = np.square(sxy).sum() / np.sqrt(np.square(sxx).sum() * np.square(syy).sum())

    def draw(n: int) -> Sides:
        shared = rng.normal(size=(n, SHARED))
        return tuple(shared @ M + np.sqrt(NOISE) * rng.normal(size=(n, M.shape[1])) for M in (A, B))  # type: ignore[return-value]

    return draw, float(truth)


def estimates(x: np.ndarray, y: np.ndarray, shards: int) -> Iterator[tuple[str, Estimate]]:
    """Estimate CKA and its error on the same images in every way that netsim has."""
    parts = list(zip(np.split(x, shards), np.split(y, shards), strict=True))
    exact = similarity(parts, [(0, 1)])[0, 1]
    yield "exact, jackknife", jackknife(exact.cka_unbiased, exact.leave_one_out_unbiased)
    yield "blocks, jackknife", blocked_similarity(parts, [(0, 1)])[0, 1].estimate
    halves = evaluate(UNBIASED, [lambda: (x, y)])
    yield "exact, half-sampling", half_sampling(halves.value, halves.resampled)


# ---- retrained classifiers --------------------------------------------------------------------------------------


def retrained_agreements(n: int, *, shards: int, sets: int, rng_seed: int = 0) -> list[Estimate]:
    """Estimate the agreement of retrained classifiers of two networks, of many sets of n images of five classes."""
    rng = np.random.default_rng(rng_seed)
    centres, *mixed = 0.8 * rng.normal(size=(5, 20)), rng.normal(size=(20, 16)), rng.normal(size=(20, 24))
    estimated = []
    for _ in range(sets):
        labels = rng.integers(5, size=(shards, n // shards))
        content = centres[labels] + rng.normal(size=(*labels.shape, 20))
        sides = [
            retrained_scores(content @ M + 3 * rng.normal(size=(*labels.shape, M.shape[1])), labels) for M in mixed
        ]
        estimated.append(jackknife(*retrained_agreement([partial(tuple, side) for side in zip(*sides, strict=True)])))
    return estimated


def show_retrained(sets: int) -> None:
    """Print the error of the agreement of retrained classifiers against the spread of its values."""
    table = table_of("agreement after retraining", "mean", "spread of values", "mean error", "interval covers mean")
    for n, shards in ((256, 8), (512, 16)):
        estimated = retrained_agreements(n, shards=shards, sets=sets)
        values, errors = np.array([e.value for e in estimated]), np.array([e.se for e in estimated])
        covered = np.mean([e.interval[0] < values.mean() < e.interval[1] for e in estimated])
        numbers = (f"{number:.4f}" for number in (values.mean(), values.std(ddof=1), errors.mean()))
        table.add_row(f"{n} images in {shards} shards", *numbers, f"{covered:.1%}")
    Console(width=140).print(table)


# ---- networks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Networks:
    """A population of networks: standard deviations of what similarity depends on.

    Attributes
    ----------
    architectures, seeds
        How many are drawn: `seeds` networks of each architecture.
    architecture, pair, seed, cell
        Effects of an architecture (as row and, half the same, as column), of a pair of architectures, of a training
        seed, and of a single cell.
    shard, network_shard, cell_shard
        Effects of one shard of images on all cells, on those of a network, and on a single cell.
    same
        Added to the similarity of two networks of one architecture.
    skewed
        Draw effects of architectures from a lognormal distribution instead of a normal one.
    """

    architectures: int
    seeds: int = 1
    architecture: float = 0.10
    pair: float = 0.05
    seed: float = 0.05
    cell: float = 0.03
    shard: float = 0.04
    network_shard: float = 0.02
    cell_shard: float = 0.04
    same: float = 0.20
    skewed: bool = False


MEAN, SHARDS = 0.25, 16
"""Mean similarity of all networks on all images, and shards of images in a draw."""

POPULATIONS = {
    "9 networks": Networks(9),
    "5 architectures x 3 seeds": Networks(5, 3),
    "9 networks, pairs matter as much": Networks(9, architecture=0.07, pair=0.07),
    "5 x 3, pairs matter as much": Networks(5, 3, architecture=0.07, pair=0.07),
    "9 networks, only pairs matter": Networks(9, architecture=0.0, pair=0.10, seed=0.0),
    "9 networks, skewed": Networks(9, skewed=True),
}


def draw_networks(rng: np.random.Generator, networks: Networks) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Draw similarities (M, M), those without each shard (M, M, G), and the truth that each interval is to cover.

    The truth of `images` is the mean of these networks over all images, of `networks` that of all networks on these
    images, and of `total` that of all networks over all images; `ceiling` and `normalized` are of all networks over all
    images, too.
    """
    kinds, m = networks.architectures, networks.architectures * networks.seeds
    of = np.repeat(np.arange(kinds), networks.seeds)

    def both_ways(count: int, spread: float, *, skewed: bool = False) -> np.ndarray:
        effect = rng.normal(size=(count, 3))
        effect = (np.exp(effect) - np.exp(0.5)) / np.sqrt(np.exp(2) - np.e) if skewed else effect
        return spread * (effect[:, :2] + effect[:, 2:]) / np.sqrt(2)

    kind, net = both_ways(kinds, networks.architecture, skewed=networks.skewed), both_ways(m, networks.seed)
    pairs = networks.pair * rng.normal(size=(kinds, kinds))[np.ix_(of, of)]
    row, column = (kind[of, side] + net[:, side] for side in (0, 1))
    expected = MEAN + row[:, None] + column + pairs + networks.cell * rng.normal(size=(m, m))
    expected += networks.same * (of[:, None] == of)
    common = networks.shard * rng.normal(size=SHARDS)
    seen, looked = networks.network_shard * rng.normal(size=(2, m, SHARDS))
    shards = expected[..., None] + common + seen[:, None] + looked
    shards += networks.cell_shard * rng.normal(size=shards.shape)
    cells = shards.mean(axis=-1)
    replicates = (SHARDS * cells[..., None] - shards) / (SHARDS - 1)
    truth = {"images": float(expected[of[:, None] != of].mean()), "networks": MEAN + common.mean(), "total": MEAN}
    truth |= {"ceiling": MEAN + networks.same, "normalized": MEAN / (MEAN + networks.same)}
    return cells, replicates, truth


def coverage(networks: Networks, *, draws: int, rng_seed: int = 0, interval: str | None = None) -> dict[str, float]:
    """Return the share of draws in which each interval contains the truth: of the mean, the ceiling, and their ratio.

    With `interval`, this one interval of the mean is held against each of its truths, instead of each against its own.
    """
    rng = np.random.default_rng(rng_seed)
    m = networks.architectures * networks.seeds
    of = np.repeat(np.arange(networks.architectures), networks.seeds)
    covered: dict[str, list[bool]] = {"images": [], "networks": [], "total": [], "ceiling": [], "normalized": []}
    counted = ~np.eye(m, dtype=bool)
    for _ in range(draws):
        cells, replicates, truth = draw_networks(rng, networks)
        mean, *scaled = (each(cells, replicates, counted, of) for each in (mean_between_groups, ceiling, normalized))
        intervals = {name: getattr(mean, interval or name).interval for name in ("images", "networks", "total")}
        for name, estimate in zip(("ceiling", "normalized"), scaled, strict=True):
            intervals[name] = estimate.total.interval
        for name, (low, high) in intervals.items():
            covered[name].append(low < truth[name] < high)
    return {name: float(np.mean(values)) for name, values in covered.items()}


def show_networks(draws: int) -> None:
    """Print the coverage of the intervals over images, over networks and over both, for each population."""
    table = table_of("networks", "over images", "over networks", "over both", "ceiling", "share of it")
    for name, networks in POPULATIONS.items():
        shares = coverage(networks, draws=draws)
        shown = list(shares)[: 5 if networks.seeds > 1 else 3]
        table.add_row(name, *(f"{shares[kind]:.1%}" for kind in shown))
    Console(width=140).print(table)
    error = 100 * np.sqrt(0.95 * 0.05 / draws)
    print(f"{draws} draws, {SHARDS} shards of images; coverage is known to about -+ {error:.1f} %")


# ---- slopes -----------------------------------------------------------------------------------------------------

EPS = (0.0, 0.25, 0.5, 1.0)
"""Levels of the networks of a draw."""

SLOPE, ASYMMETRY = 0.2, 0.05
"""Mean slope of all networks on all images, and what a robust row and a standard column have above the mirrored."""

SLOPE_POPULATIONS = {
    "9 architectures": Networks(9),
    "9 x 2 seeds": Networks(9, 2),
    "5 x 2 seeds": Networks(5, 2),
    "9, pairs matter as much": Networks(9, architecture=0.07, pair=0.07),
    "9, only pairs matter": Networks(9, architecture=0.0, pair=0.10, seed=0.0),
    "9 x 2, a fifth of the networks missing": Networks(9, 2),
}


@dataclass(frozen=True)
class SlopeDraw:
    """Similarities (M, M) of networks of all levels, those without each shard, labels, and what is known of them."""

    cells: np.ndarray
    replicates: np.ndarray
    counted: np.ndarray
    architectures: np.ndarray
    eps: np.ndarray
    expected: np.ndarray
    common_slope: float
    own_slope: np.ndarray

    def fit(self, *, expected: bool = False) -> ByEps:
        """Compute means and slopes, of what was drawn or of its expected values over images."""
        cells, replicates = (self.cells, self.replicates)
        if expected:
            cells, replicates = self.expected, np.repeat(self.expected[..., None], 2, -1)
        return similarity_by_eps(cells, replicates, self.counted, self.architectures, self.eps)


def draw_slopes(rng: np.random.Generator, networks: Networks, *, missing: float = 0.0) -> SlopeDraw:
    """Draw networks of every architecture, level and seed; effects of `networks` are those of slopes, too.

    Each network is missing with a probability of `missing`, which does not depend on its similarities.
    """
    kinds, repeats = networks.architectures, networks.seeds
    of = np.repeat(np.arange(kinds), len(EPS) * repeats)
    eps = np.tile(np.repeat(EPS, repeats), kinds)
    m = len(of)
    shape = kinds, kinds
    row, column, row_slope, column_slope = networks.architecture * rng.normal(size=(4, kinds))
    pair, pair_slope = (networks.pair * rng.normal(size=shape)[np.ix_(of, of)] for _ in range(2))
    net, seen = networks.seed * rng.normal(size=(2, m))
    both = (eps[:, None] + eps) / 2  # a slope is of the level of both networks
    expected = MEAN + (row[of] + net)[:, None] + column[of] + seen + pair + networks.cell * rng.normal(size=(m, m))
    expected += (SLOPE + row_slope[of][:, None] + column_slope[of] + pair_slope) * both
    expected += ASYMMETRY / 2 * (np.sign(eps)[:, None] - np.sign(eps))
    common, common_slope = networks.shard * rng.normal(size=(2, SHARDS))
    shards = expected[..., None] + common + common_slope * both[..., None]
    shards += networks.cell_shard * rng.normal(size=shards.shape)
    cells = shards.mean(axis=-1)
    kept = np.flatnonzero(rng.random(m) >= missing)
    cut = np.ix_(kept, kept)
    # of all other architectures, as they are, seen by the networks of this row as they are
    own = SLOPE + row_slope + np.array([_line(eps[of == a], net[of == a]) for a in range(kinds)])
    return SlopeDraw(
        cells=cells[cut],
        replicates=((SHARDS * cells[..., None] - shards) / (SHARDS - 1))[cut],
        counted=np.ones((len(kept), len(kept)), dtype=bool),
        architectures=of[kept],
        eps=eps[kept],
        expected=expected[cut],
        common_slope=float(common_slope.mean()),
        own_slope=own,
    )


def _line(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(x, y, 1)[0])


def slope_coverage(networks: Networks, *, draws: int, missing: float = 0.0, rng_seed: int = 0) -> dict[str, float]:
    """Return the share of draws in which each interval contains the truth.

    They are those of the slope over images (truth: the slope of these networks over all images), over networks (of all
    networks on these images) and over both, of the slope of one architecture's rows over both (without missing
    networks, for which its truth is another), and of robust against standard over both.
    """
    rng = np.random.default_rng(rng_seed)
    covered: dict[str, list[bool]] = {}
    for _ in range(draws):
        draw = draw_slopes(rng, networks, missing=missing)
        fitted, slope_of_all = draw.fit(), draw.fit(expected=True).slope.value
        checked = {
            "images": (fitted.slope.images, slope_of_all),
            "networks": (fitted.slope.networks, SLOPE + draw.common_slope),
            "total": (fitted.slope.total, SLOPE),
            "asymmetry": (fitted.asymmetry.total, ASYMMETRY),
        }
        if not missing:
            checked["rows"] = (fitted.slopes["0"].total, float(draw.own_slope[0]))
        for name, (estimate, truth) in checked.items():
            covered.setdefault(name, []).append(estimate.interval[0] < truth < estimate.interval[1])
    return {name: float(np.mean(values)) for name, values in covered.items()}


def show_slopes(draws: int) -> None:
    """Print the coverage of the intervals of slopes, and of robust against standard networks."""
    names = {"images": "over images", "networks": "over networks", "total": "over both"}
    names |= {"rows": "one architecture", "asymmetry": "robust − standard"}
    table = table_of(f"networks at eps {', '.join(map(str, EPS))}", *names.values())
    for name, networks in SLOPE_POPULATIONS.items():
        shares = slope_coverage(networks, draws=draws, missing=0.2 if "missing" in name else 0)
        table.add_row(name, *(f"{shares[kind]:.1%}" if kind in shares else "" for kind in names))
    Console(width=140).print(table)
    print(f"{draws} draws, {SHARDS} shards of images, slope {SLOPE}")


def main() -> None:
    """Print tables of errors over networks, of slopes, of retrained classifiers, and of each error over images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=300, help="sets of images drawn for each line")
    parser.add_argument("--n", type=int, default=512, help="images in a set")
    parser.add_argument("--draws", type=int, default=2000, help="draws of networks for each line")
    parser.add_argument("--slopes", type=int, default=1000, help="draws of networks for each line of slopes")
    options = parser.parse_args()
    show_networks(options.draws)
    show_slopes(options.slopes)
    show_retrained(options.sets)
    rng = np.random.default_rng(0)
    draw, truth = population(rng)
    table = table_of(
        "error", "shards", "spread of values", "mean error", "interval covers truth", "value -+ 1.96 errors"
    )
    for shards in (8, 16, 32):
        results: dict[str, list[Estimate]] = {}
        for _ in range(options.sets):
            for name, estimate in estimates(*draw(options.n), shards):
                results.setdefault(name, []).append(estimate)
        for name, estimated in results.items():
            values, errors = np.array([e.value for e in estimated]), np.array([e.se for e in estimated])
            covered = np.mean([e.interval[0] < truth < e.interval[1] for e in estimated])
            normal = np.mean(np.abs(values - truth) < 1.96 * errors)
            table.add_row(
                name, str(shards), f"{values.std():.4f}", f"{errors.mean():.4f}", f"{covered:.1%}", f"{normal:.1%}"
            )
    Console(width=140).print(table)
    print(f"{options.sets} sets of {options.n} images, true CKA {truth:.3f}; coverage is known to about -+ 1 %")


if __name__ == "__main__":
    main()
