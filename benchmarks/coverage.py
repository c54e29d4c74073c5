"""Coverage of the 95 % intervals, by simulation: `python -m benchmarks.coverage`.

Two representations share four directions, with noise, so CKA of all images has a closed form. Many sets of images are
drawn; each gives a value, a standard error and an interval. An error is right if its mean is the spread of the values
over the sets, and an interval is right if it contains the true value in 95 % of the sets.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console

from flows.cli.console import table_of
from netsim.similarity.blocked import blocked_similarity
from netsim.similarity.cka import linear_cka, similarity
from netsim.similarity.measures import Measure
from netsim.similarity.uncertainty import Estimate, half_sampling, jackknife
from netsim.stages.measure import evaluate

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


def main() -> None:
    """Print a table of each error at 8, 16 and 32 shards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=300, help="sets of images drawn for each line")
    parser.add_argument("--n", type=int, default=512, help="images in a set")
    options = parser.parse_args()
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
