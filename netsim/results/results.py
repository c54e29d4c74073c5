"""What a run found, as plain arrays: the matrices with their errors, the losses, the accuracies. M = networks.

`Results` is what `netsim results`, the report and the Prefect artifacts all show, so they cannot disagree.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netsim.settings import STOP_REASONS
from netsim.similarity.cka import PairSimilarity, pair_similarities
from netsim.similarity.hsic import Estimator, Hsic
from netsim.similarity.uncertainty import Estimate, half_width, jackknife, jackknife_se
from netsim.store import layout, provenance
from netsim.store.layout import NATURAL
from netsim.store.layout import inverted as inverted_set
from netsim.store.metadata import ComputedMetadata, DrawMetadata, InvertMetadata, TrainMetadata
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import STAGES, Stage, require_finished
from netsim.store.status import left_out


@dataclass(frozen=True)
class Matrix:
    """Similarity of every network to every other on one kind of set. All arrays are (M, M), row = through.

    `floor` is the mean of the biased estimator over all permutations of one side's rows, that is, what it gives for
    unrelated representations of these spectra (`netsim.similarity.hsic.null_floor`). NaN where a value is undefined;
    `undefined` then has the reason, by (estimator, through, observer).

    Means are over cells off the diagonal. Their jackknife deletes a shard of images from *all* cells at once, so the
    error allows for cells sharing images.
    """

    cka: np.ndarray
    cka_se: np.ndarray
    cka_unbiased: np.ndarray
    cka_unbiased_se: np.ndarray
    floor: np.ndarray
    mean: Estimate
    mean_unbiased: Estimate
    rows: tuple[Estimate, ...]  # (M,) mean over observers
    rows_unbiased: tuple[Estimate, ...]
    undefined: dict[tuple[Estimator, str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """Relative distance ||rep - target|| / ||target|| of one network's inversions (0 = perfect); arrays are (n,)."""

    initial: np.ndarray
    final: np.ndarray
    distance: np.ndarray  # L2 distance of the inverted image from its seed, in pixels of [0, 1]
    iterations: np.ndarray  # steps taken; fewer than the setting where an image reached `stop_loss`
    stopped: int  # images that reached it
    stalled: int  # images whose gradient was zero at some iteration
    nonfinite: int  # images whose loss was not finite at some iteration
    history: np.ndarray  # (len(history_iterations),) median over images
    history_iterations: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.final))


@dataclass(frozen=True)
class NetworkSummary:
    name: str
    reference: str
    accuracy: float  # on the test images, in [0, 1]; NaN if it tells other classes apart
    parameters: int
    width: int  # d of the representation
    weights_hash: str  # BLAKE3 over the names, dtypes, shapes and bytes of the state dict
    trained_here: bool
    other_size: int | None = None  # pixels a side that its weights are made for, where the images have others


@dataclass(frozen=True)
class Results:
    networks: tuple[str, ...]
    n: int  # pairs
    shards: int
    natural: Matrix
    inverted: Matrix
    difference: Estimate  # natural minus inverted, biased; paired, as the next two
    difference_unbiased: Estimate
    row_differences: dict[tuple[str, str], Estimate]  # inverted row of one minus that of a later one, unbiased
    loss: dict[str, Loss]
    facts: dict[str, NetworkSummary]
    tolerance: float  # a row whose median final loss is above this is "not converged"
    chance: float  # accuracy of guessing, in [0, 1]
    preset: str  # by whose steps images were inverted
    left_out: dict[str, tuple[int, int]] = field(default_factory=dict)  # split -> images unreadable, of how many
    provenance: dict[str, str] = field(default_factory=dict)  # digest, versions, device, created, ...

    @property
    def df(self) -> int:
        """Degrees of freedom of every standard error here."""
        return self.shards - 1

    @property
    def converged(self) -> dict[str, bool]:
        return {name: self.loss[name].median <= self.tolerance for name in self.networks}


# ---- from the store


def load_results(run: Run) -> Results:
    """Everything a finished run found. Raises StoreError naming what is missing, if anything is, or what is damaged."""
    require_finished(run, STAGES[:-1])
    names, shards = run.settings.names, run.settings.pairs.shards
    records = {stage.name: _records(run, stage) for stage in STAGES[:-1]}
    _check(run, records)
    natural, inverted = _natural(run), _inverted(run)
    facts = {name: _facts(name, records["train"][name][0]) for name in names}
    draw = records["draw"]["pairs"][0]
    return Results(
        networks=names,
        n=run.settings.pairs.count,
        shards=shards,
        natural=_matrix(natural, names),
        inverted=_matrix(inverted, names),
        row_differences=_row_differences(inverted, names),
        difference=_difference(natural, inverted, "cka"),
        difference_unbiased=_difference(natural, inverted, "cka_unbiased"),
        loss={name: _loss(run, name, records["invert"][name]) for name in names},
        facts=facts,
        tolerance=run.settings.inversion.tolerance,
        preset=run.settings.inversion.preset,
        chance=1 / len(DrawMetadata.of(draw).classes),
        left_out=left_out(run),
        provenance=_provenance(run, records),
    )


def _records(run: Run, stage: Stage) -> dict[str, list[Record]]:
    return {name: run.records(stage.name, name, range(n)) for name, n in stage.shards(run.settings).items()}


def _check(run: Run, records: dict[str, dict[str, list[Record]]]) -> None:
    """Raises StoreError if a shard was computed with other weights, or from other values, than the run has now."""
    every = [record for by_name in records.values() for own in by_name.values() for record in own]
    known = {(record.stage, record.name, record.shard): record for record in every}
    for record in every:
        provenance.check_weights(run, record)
        provenance.check_origin(run, record, known)


MATRICES = ("cka", "cka_se", "cka_unbiased", "cka_unbiased_se", "floor")
"""What there is of both matrices, by its name in `Matrix`."""


def both_matrices(results: Results) -> dict[str, np.ndarray]:
    """The natural and the inverted matrix in one: arrays (2, M, M)."""
    both = (results.natural, results.inverted)
    return {kind: np.stack([getattr(matrix, kind) for matrix in both]) for kind in MATRICES}


def interval(results: Results, values: np.ndarray, se: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 95 % intervals of cells (M, M)."""
    half = half_width(se, results.df)
    return values - half, values + half


def off_diagonal(cells: np.ndarray) -> np.ndarray:
    """(M, M, ...) -> (M(M-1), ...)"""
    return cells[~np.eye(len(cells), dtype=bool)]


def _matrix(found: dict[str, np.ndarray], names: tuple[str, ...]) -> Matrix:
    errors = {kind: jackknife_se(np.moveaxis(found[f"{kind}_left_out"], -1, 0)) for kind in ("cka", "cka_unbiased")}
    reasons: tuple[tuple[Estimator, str], ...] = (("biased", "undefined"), ("unbiased", "undefined_unbiased"))
    return Matrix(
        cka=found["cka"],
        cka_se=errors["cka"],
        cka_unbiased=found["cka_unbiased"],
        cka_unbiased_se=errors["cka_unbiased"],
        floor=found["floor"],
        mean=_mean(found, "cka"),
        mean_unbiased=_mean(found, "cka_unbiased"),
        rows=_rows(found, "cka"),
        rows_unbiased=_rows(found, "cka_unbiased"),
        undefined={
            (estimator, names[row], names[column]): str(reason)
            for estimator, kind in reasons
            for (row, column), reason in np.ndenumerate(found[kind])
            if reason
        },
    )


def _mean(found: dict[str, np.ndarray], kind: str) -> Estimate:
    """The mean off the diagonal, and its error from the same mean with each shard left out."""
    return jackknife(off_diagonal(found[kind]).mean(), off_diagonal(found[f"{kind}_left_out"]).mean(axis=0))


def _rows(found: dict[str, np.ndarray], kind: str) -> tuple[Estimate, ...]:
    return tuple(jackknife(value, left_out) for value, left_out in zip(*_row_means(found, kind), strict=True))


def _row_means(found: dict[str, np.ndarray], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each row without the diagonal (M,), and the same with each shard left out (M, G)."""
    m = len(found[kind])
    value, left_out = off_diagonal(found[kind]), off_diagonal(found[f"{kind}_left_out"])
    return value.reshape(m, m - 1).mean(axis=1), left_out.reshape(m, m - 1, -1).mean(axis=1)


def _row_differences(inverted: dict[str, np.ndarray], names: tuple[str, ...]) -> dict[tuple[str, str], Estimate]:
    """Paired: every network was inverted on the same pairs, so a shard is left out of both rows at once."""
    values, left_out = _row_means(inverted, "cka_unbiased")
    return {
        (names[i], names[j]): jackknife(values[i] - values[j], left_out[i] - left_out[j])
        for i, j in zip(*np.triu_indices(len(names), k=1), strict=True)
    }


def _difference(natural: dict[str, np.ndarray], inverted: dict[str, np.ndarray], kind: str) -> Estimate:
    """Paired: both sets come from the same pairs, so a shard is left out of both at once."""
    return _mean({key: natural[key] - inverted[key] for key in (kind, f"{kind}_left_out")}, kind)


def row_sums(run: Run, row: str) -> dict[tuple[str, str], Hsic]:
    """Read the sums behind one row of a matrix, by model pair."""
    record, pairs = run.record("aggregate", row), run.settings.pairs
    n = np.array([pairs.count, *[pairs.count - pairs.shard_size] * pairs.shards])
    moments = run.read(record, layout.moments_path(row))
    return {pair: Hsic(n, *own) for pair, own in zip(layout.row_pairs(run.settings.names, row), moments, strict=True)}


def _natural(run: Run) -> dict[str, np.ndarray]:
    """CKA of every model pair on natural images: arrays (M, M), left-out values (M, M, G)."""
    names = run.settings.names
    sums = {pair: own for name in names for pair, own in row_sums(run, f"{NATURAL}/{name}").items()}
    pairs = [(x, y) if (x, y) in sums else (y, x) for x in names for y in names]
    return _cells(pair_similarities(sums, pairs), pairs, shape=(len(names), len(names)))


def _inverted(run: Run) -> dict[str, np.ndarray]:
    """The same of inverted images: each row from the sums over its own set."""
    names, rows = run.settings.names, []
    for through in names:
        pairs = [(through, observer) for observer in names]
        found = pair_similarities(row_sums(run, inverted_set(through)), pairs)
        rows.append(_cells(found, pairs, shape=(len(names),)))
    return {kind: np.stack([row[kind] for row in rows]) for kind in rows[0]}


def _cells(
    found: dict[tuple[Any, Any], PairSimilarity], pairs: list[tuple[str, str]], *, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    cells = [_cell(found[pair], same=pair[0] == pair[1]) for pair in pairs]
    return {kind: np.array([cell[kind] for cell in cells]).reshape(*shape, *cells[0][kind].shape) for kind in cells[0]}


def _cell(pair: PairSimilarity, *, same: bool) -> dict[str, np.ndarray]:
    found: dict[str, Any] = {"cka": pair.cka, "cka_unbiased": pair.cka_unbiased, "floor": pair.floor}
    found |= {"cka_left_out": pair.leave_one_out, "cka_unbiased_left_out": pair.leave_one_out_unbiased}
    # a network is like itself: 1, not 1 give or take rounding, and NaN if its representation is constant
    cell = {
        kind: np.where(np.isnan(value), np.nan, 1.0 if same and kind != "floor" else value)
        for kind, value in found.items()
    }
    return cell | {"undefined": np.array(pair.undefined), "undefined_unbiased": np.array(pair.undefined_unbiased)}


def _loss(run: Run, through: str, records: list[Record]) -> Loss:
    losses = run.read_all(records, f"{inverted_set(through)}/losses")
    column = {name: layout.quantity(losses, name) for name in layout.QUANTITIES}
    return Loss(
        initial=column["initial_loss"],
        final=column["final_loss"],
        distance=column["distance"],
        iterations=column["iterations"].astype(int),
        stopped=int((column["stop_reason"] == STOP_REASONS.index("loss")).sum()),
        stalled=int(column["stalled"].sum()),
        nonfinite=int(column["nonfinite"].sum()),
        history=np.median(run.read_all(records, f"{inverted_set(through)}/history"), axis=0),
        history_iterations=layout.history_iterations(run.settings.inversion.iterations),
    )


def _facts(name: str, record: Record) -> NetworkSummary:
    facts = TrainMetadata.of(record)
    size = facts.preprocessing.get("size")  # records of an older netsim have none
    return NetworkSummary(
        name=name,
        reference=facts.reference,
        accuracy=math.nan if facts.accuracy is None else facts.accuracy,
        parameters=facts.parameters,
        width=facts.width,
        weights_hash=facts.weights_hash,
        trained_here=facts.trained_here,
        other_size=None if size == facts.input_shape[-1] else size,
    )


def _provenance(run: Run, records: dict[str, dict[str, list[Record]]]) -> dict[str, str]:
    drawn = DrawMetadata.of(records["draw"]["pairs"][0])
    computed = [record for stage in ("invert", "embed") for own in records[stage].values() for record in own]
    seconds = {
        stage: sum(record.seconds for own in by.values() for record in own) for stage, by in records.items() if by
    }
    return {
        "run": run.digest,
        "created": run.attributes["created"],
        "images": f"{drawn.source}, BLAKE3 {drawn.images_hash[:16]}",
        "preset": run.settings.inversion.preset,
        "precision": _precisions({name: own[0] for name, own in records["invert"].items()}),
        "device": _distinct(
            f"{on.device}, {on.threads} thread(s) a worker" for on in map(ComputedMetadata.of, computed)
        ),
        "task seconds": ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
        **{
            f"version of {name}": _distinct(record.versions.get(name, "unknown") for record in computed)
            for name in computed[0].versions
        },
    }


def _device(record: Record) -> str:
    on = ComputedMetadata.of(record)
    return f"{on.device}, {on.threads} thread(s) a worker"


def _distinct(values: Iterable[str]) -> str:
    """Workers may differ."""
    return "; ".join(dict.fromkeys(values))


def _precisions(records: dict[str, Record]) -> str:
    """What networks worked in while they were inverted, each precision with the networks where they differ."""
    found: dict[str, list[str]] = {}
    for name, record in records.items():
        found.setdefault(InvertMetadata.of(record).precision, []).append(name)
    return next(iter(found)) if len(found) == 1 else "; ".join(f"{key}: {', '.join(of)}" for key, of in found.items())
