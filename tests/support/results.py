"""Made-up results and galleries, plausible and quick to make, for tests of what is shown."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from netsim.results.controls import Controls
from netsim.results.gallery import Gallery
from netsim.results.matrices import ESTIMATORS, SETS, Cells
from netsim.results.results import Loss, NetworkSummary, Results
from netsim.results.stopping import Verdict
from netsim.settings import UntilSettings
from netsim.similarity.uncertainty import Estimate

NINE = ("densenet", "mobilenet", "resnext", "resnet18", "resnet50", "shufflenet", "vgg", "wrn2", "wrn4")


def make_matrix(rng, count: int, observers: int, *, center: float, symmetric: bool) -> dict[str, np.ndarray]:
    """Return plausible similarities, unbiased then biased: ones on the diagonal, biased above unbiased."""
    shape = count, count + observers
    cka = np.clip(center + 0.25 * center * rng.standard_normal(shape), 0.01, 0.99)
    if symmetric:
        cka[:, :count] = (cka[:, :count] + cka[:, :count].T) / 2
    unbiased = cka - 0.02 - 0.03 * (1 - cka)
    np.fill_diagonal(cka, 1)
    np.fill_diagonal(unbiased, 1)
    off = ~np.eye(*shape, dtype=bool)
    error, floor = 0.004 + 0.002 * rng.random((2, *shape))
    return {"cka": np.stack([unbiased, cka]), "se": np.stack([1.1 * error * off, error * off]), "floor": 10 * floor}


def make_estimates(
    matrices: dict[str, dict[str, np.ndarray]], names: tuple[str, ...], observers: tuple[str, ...]
) -> dict[str, dict]:
    """Return means, rows, columns and row differences of such matrices, with errors of a plausible size."""
    count, means, rows, columns = len(names), {}, {}, {}
    off = ~np.eye(count, count + len(observers), dtype=bool)
    for kind, matrix in matrices.items():
        for estimator, cells in zip(ESTIMATORS, matrix["cka"], strict=True):
            square, inside = cells[:, :count], off[:, :count]
            biased = estimator == "biased"
            means[kind, estimator] = Estimate(float(square[inside].mean()), 0.0042, 15, biased)
            rows[kind, estimator] = {
                name: Estimate(float(row[others].mean()), 0.005, 15, biased)
                for name, row, others in zip(names, square, inside, strict=True)
            }
            columns[kind, estimator] = {
                name: Estimate(float(column[others].mean()), 0.005, 15, biased)
                for name, column, others in zip((*names, *observers), cells.T, off.T, strict=True)
            }
    for estimator, se in zip(ESTIMATORS, (0.0053, 0.0051), strict=True):
        difference = means["natural", estimator].value - means["inverted", estimator].value
        means["difference", estimator] = Estimate(difference, se, 15, estimator == "biased")
    inverted = rows["inverted", "biased"]
    differences = {
        (one, other): Estimate(inverted[one].value - inverted[other].value, 0.006, 15)
        for one, other in itertools.combinations(names, 2)
    }
    return {"means": means, "rows": rows, "columns": columns, "row_differences": differences}


def make_cells(matrix: dict[str, np.ndarray], *, symmetric: bool, shards: int = 16) -> Cells:
    """Return a matrix with leave-one-out replicates that have the errors of its cells."""
    rng = np.random.default_rng(len(matrix["floor"]))
    noise = rng.standard_normal((*matrix["cka"].shape, shards))
    if symmetric:
        count = noise.shape[1]
        noise[:, :, :count] += noise[:, :, :count].swapaxes(1, 2)
    noise -= noise.mean(axis=-1, keepdims=True)
    noise *= np.sqrt(shards / (shards - 1) / np.square(noise).sum(axis=-1, keepdims=True))
    return Cells(
        cka=matrix["cka"],
        leave_one_out=matrix["cka"][..., None] + matrix["se"][..., None] * noise,
        floor=matrix["floor"],
        undefined=np.full(matrix["cka"].shape, "", str),
        comparable=~np.eye(*matrix["floor"].shape, dtype=bool),
    )


def make_loss(rng, n: int, *, final: float) -> Loss:
    """Return losses that fall from about 0.9 to about `final`."""
    iterations = np.unique(np.geomspace(1, 401, 60).astype(int)) - 1
    start = float(rng.uniform(0.7, 1.1))
    history = final + (start - final) * np.exp(-iterations / rng.uniform(20, 60))
    return Loss(
        initial=start * rng.lognormal(0, 0.1, n),
        final=final * np.exp(rng.uniform(-0.5, 0.5, n)),
        distance=rng.uniform(2, 6, n),
        iterations=np.full(n, 400),
        stopped=0,
        stalled=0,
        nonfinite=0,
        history=history,
        history_iterations=iterations,
    )


def make_controls(rng: np.random.Generator, networks: int, observers: int, n: int) -> Controls:
    """Return controls as those of a sweep over ten classes, with 16 leave-one-out values each."""
    shape, centers = (networks, networks + observers), {
        "natural_seed": 0.012, "inverted_seed": 0.02, "seen_seed": 0.39, "seen_target": 0.2, "adjusted": 0.21,
        "predicts_seed": 0.36, "predicts_target": 0.25, "unreached": 0.05,
    }  # fmt: skip
    values = {name: center * rng.uniform(0.7, 1.3, shape) for name, center in centers.items()}
    return Controls(
        values=values,
        leave_one_out={name: cells[..., None] + rng.normal(0, 1e-3, (*shape, 16)) for name, cells in values.items()},
        comparable=~np.eye(*shape, dtype=bool),
    )


def make_results(count: int = 9, n: int = 512, rng_seed: int = 0, observers: tuple[str, ...] = ()) -> Results:
    """Return results of `count` networks on n pairs in 16 shards, without any reason to doubt them."""
    rng = np.random.default_rng([rng_seed, count])
    names = NINE[:count] + tuple(f"network_{index:02d}" for index in range(9, count))
    matrices = {
        "natural": make_matrix(rng, count, len(observers), center=0.75, symmetric=True),
        "inverted": make_matrix(rng, count, len(observers), center=0.18, symmetric=False),
    }
    summaries = {
        name: NetworkSummary(
            name=name,
            reference=f"small:{name}",
            accuracy=float(rng.uniform(0.86, 0.92)),
            parameters=int(rng.integers(20_000, 900_000)),
            width=int(rng.choice([64, 128, 256])),
            weights_hash=rng.bytes(32).hex(),
            trained_here=name in names,
        )
        for name in (*names, *observers)
    }
    return Results(
        networks=names,
        observers=observers,
        n=n,
        shards=16,
        **make_estimates(matrices, names, observers),
        matrices={name: make_cells(matrices[name], symmetric=name == "natural") for name in SETS},
        groups={name: name for name in (*names, *observers)},
        loss={name: make_loss(rng, n, final=float(rng.uniform(0.01, 0.03))) for name in names},
        summaries=summaries,
        controls=make_controls(np.random.default_rng([rng_seed, count, 1]), count, len(observers), n),
        on_converged=matrices["inverted"]["cka"][0] + rng.normal(0, 1e-3, (17, count, count + len(observers))),
        tolerance=0.05,
        classes=10,
        seed_labels="any",  # those of ten classes would be warned of
        preset="published",
        provenance={"settings digest": "0f3a" * 16, "torch": "2.14.1", "device": "cpu", "created": "2025-01-02 03:04"},
    )


def make_gallery(results: Results, *, pairs: int = 4, shape: tuple[int, int, int] = (1, 28, 28)) -> Gallery:
    """Return a gallery of blobs; inverted images are the seed with a trace of the target's blob."""
    rng = np.random.default_rng(7)
    channels, height, width = shape
    y, x = np.mgrid[:height, :width] / height

    def blobs() -> np.ndarray:
        cx, cy, r = rng.uniform(0.3, 0.7, (3, pairs, channels, 1, 1))
        return np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (0.15 * r) ** 1.2)

    seed, target = blobs(), blobs()
    inverted = {
        name: np.clip(seed + 0.15 * target + 0.08 * rng.standard_normal(seed.shape), 0, 1) for name in results.networks
    }
    labels = ["Ankle boot", "T-shirt/top", "Bag", "Dress", "Coat", "Sandal", "Shirt", "Sneaker"]
    return Gallery(
        pairs=np.arange(pairs) * 3,
        seed=np.round(255 * seed).astype(np.uint8),
        target=np.round(255 * target).astype(np.uint8),
        inverted=inverted,
        seed_labels=[labels[index % 8] for index in range(pairs)],
        target_labels=[labels[(index + 3) % 8] for index in range(pairs)],
    )


def with_verdict(results: Results, **until: Any) -> Results:
    """Make results those of a sweep that stopped at its third look, of 12 more pairs at most, with this rule."""
    rule, rows = UntilSettings(**until), results.rows["inverted", "unbiased"]
    if rule.differ:
        first, second = (rows[name] for name in rule.differ)
        estimates = {" − ".join(rule.differ): Estimate(first.value - second.value, 0.006, 15)}
    else:
        estimates = rows if rule.of == "rows" else {"mean": results.means["inverted", "unbiased"]}
    verdict = Verdict(rule, estimates, n=results.n, at_most=results.n + 512, looks=3)
    return dataclasses.replace(results, verdict=verdict)


def with_loss(results: Results, name: str, **changes) -> Results:
    """Change the losses of one network."""
    return dataclasses.replace(results, loss={**results.loss, name: dataclasses.replace(results.loss[name], **changes)})


def with_summary(results: Results, name: str, **changes) -> Results:
    """Change the summary of one network."""
    summaries = {**results.summaries, name: dataclasses.replace(results.summaries[name], **changes)}
    return dataclasses.replace(results, summaries=summaries)


def with_eps(results: Results, *levels: float, architectures: int, norm: str = "l2") -> Results:
    """Make the first networks those of some architectures, each at all levels of eps in turn; robust ones are worse."""
    for index in range(architectures * len(levels)):
        kind, eps = index // len(levels), levels[index % len(levels)]
        attacked = {"robust": 0.9 - 0.2 * eps, "norm": norm} if eps else {}
        results = with_summary(
            results, results.networks[index], reference=f"small:a{kind}", eps=eps, accuracy=0.9 - 0.1 * eps, **attacked
        )
    return results


def with_inverted(results: Results, row: int, column: int, value: float) -> Results:
    """Change one unbiased cell of the inverted matrix."""
    inverted = results.matrices["inverted"]
    cka, leave_one_out = inverted.cka.copy(), inverted.leave_one_out.copy()
    leave_one_out[0, row, column] += value - cka[0, row, column]
    cka[0, row, column] = value
    changed = dataclasses.replace(inverted, cka=cka, leave_one_out=leave_one_out)
    return dataclasses.replace(results, matrices={**results.matrices, "inverted": changed})


def with_cells(results: Results, name: str, **changes: Any) -> Results:
    """Change arrays of one matrix."""
    return dataclasses.replace(
        results, matrices={**results.matrices, name: dataclasses.replace(results.matrices[name], **changes)}
    )


def with_groups(results: Results, *groups: str) -> Results:
    """Put the networks into groups."""
    return dataclasses.replace(results, groups=results.groups | dict(zip(results.networks, groups, strict=True)))


def renamed(results: Results, old: str, new: str) -> Results:
    """Give one network of the results, which have no observers, another name."""

    def swap(mapping):
        return {new if name == old else name: value for name, value in mapping.items()}

    summaries = swap(results.summaries)
    summaries[new] = dataclasses.replace(summaries[new], name=new)
    names = tuple(new if name == old else name for name in results.networks)
    return dataclasses.replace(
        results,
        networks=names,
        rows={key: swap(rows) for key, rows in results.rows.items()},
        columns={key: swap(columns) for key, columns in results.columns.items()},
        row_differences={
            tuple(new if name == old else name for name in pair): value
            for pair, value in results.row_differences.items()
        },
        groups=swap(results.groups),
        loss=swap(results.loss),
        summaries=summaries,
    )
