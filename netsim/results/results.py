"""The results of a finished run: both matrices with their errors, losses, accuracies.

M = networks, C = M + those that only observe, n = pairs.

`Results` is what `netsim results`, the report, the Prefect artifacts and `open_run` all show, so they cannot disagree.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from netsim.results.controls import Controls, load_controls, seed_only
from netsim.results.inference import Inference
from netsim.results.matrices import ESTIMATORS, SETS, Cells, groups_of, matrices, sums_of
from netsim.results.stopping import Verdict, verdict_of
from netsim.results.twins import comparable_cells, counted_cells, counted_mean, twin_groups
from netsim.settings import STOP_REASONS
from netsim.similarity.hsic import Estimator, EstimatorName, validate_estimator
from netsim.similarity.uncertainty import Estimate, half_width, jackknife, jackknife_se
from netsim.statistics.multiple import holm
from netsim.storage.concurrency import concurrently
from netsim.store import layout
from netsim.store.layout import inverted as inverted_set
from netsim.store.metadata import ComputedMetadata, DrawMetadata, InvertMetadata, Metadata, TrainMetadata
from netsim.store.provenance import Contents, check_origin, check_weights, weights_hash
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import REPORT, STAGES, Unit, require_finished
from netsim.store.status import unreadable_counts

if TYPE_CHECKING:
    import xarray as xr

QUANTILE = 0.9
"""Share of images of `Loss.quantile`."""

MAX_ABOVE = 0.05
"""Share of images that may be above the tolerance in a network's inversions that count as converged."""


DIMS = ("estimator", "set", "through", "observer")
"""Dimensions of `Results.similarity`."""

Kind = Literal["cka", "se", "low", "high", "undefined"]
"""Kind of number that a cell has."""


@dataclass(frozen=True)
class Loss:
    """Relative losses ||rep - target|| / ||target|| of one network's inversions (0 is perfect); arrays are (n,).

    Attributes
    ----------
    distance
        L2 distance of the inverted image from its seed, pixels in [0, 1].
    iterations
        Steps taken; fewer than the setting where an image reached `stop_loss`.
    stopped, stalled, nonfinite
        Images that reached `stop_loss`, that had a zero gradient, that had a loss that is not finite.
    history
        (len(history_iterations),), median over images.
    """

    initial: np.ndarray
    final: np.ndarray
    distance: np.ndarray
    iterations: np.ndarray
    stopped: int
    stalled: int
    nonfinite: int
    history: np.ndarray
    history_iterations: np.ndarray

    @property
    def median(self) -> float:
        """Median final loss."""
        return float(np.median(self.final))

    @property
    def quantile(self) -> float:
        """Final loss that `QUANTILE` of the images are at or below."""
        return float(np.quantile(self.final, QUANTILE))

    @property
    def halfway(self) -> float:
        """Median loss at half of the iterations, or the last before of those that are kept."""
        return float(self.history[np.flatnonzero(2 * self.history_iterations <= self.history_iterations[-1])[-1]])

    def above(self, tolerance: float) -> float:
        """Return the share of images whose final loss is above `tolerance`, or not finite."""
        return float(np.mean(~(self.final <= tolerance)))


@dataclass(frozen=True)
class NetworkSummary:
    """One network of a run, as recorded when it was trained or checked.

    Attributes
    ----------
    accuracy
        Top-1 accuracy on the test images, in [0, 1]; NaN for a network trained on other classes.
    width
        Features of the representation.
    weights_hash
        BLAKE3 over the names, dtypes, shapes and bytes of the state dict.
    other_size
        Pixels per side that its weights were made for, if the images have another size.
    robust
        Accuracy under attack, in [0, 1], of a network that was trained adversarially in the run; None for others.
    eps, norm
        The attack that it was trained and is measured on; 0 and "" for others.
    """

    name: str
    reference: str
    accuracy: float
    parameters: int
    width: int
    weights_hash: str
    trained_here: bool
    other_size: int | None = None
    robust: float | None = None
    eps: float = 0.0
    norm: str = ""


@dataclass(frozen=True)
class Results:
    """The results of a finished run.

    Attributes
    ----------
    networks, observers
        Names of the networks that are inverted and look, and of those that only look.
    n, shards
        Number of pairs, and of shards, which the jackknife deletes one at a time.
    means
        (set, estimator) -> mean over the cells of two networks with different weights and of different groups. The set
        "difference" is natural minus inverted, paired. Errors are over images; `inference` has those over networks.
    rows
        (set, estimator) -> through -> mean of its row over networks of other weights and groups.
    columns
        (set, estimator) -> observer -> mean of its column over networks of other weights and groups.
    row_differences
        (through, other) -> mean of the first inverted row minus that of the second, unbiased, paired; of networks with
        different weights and groups.
    matrices
        Both matrices with their leave-one-out replicates, by name.
    groups
        Network or observer -> its group: networks of one group are replicates of each other.
    controls
        What the cells of the inverted matrix owe to the seeds, and what observers see.
    on_converged
        The inverted matrix, unbiased, over those images only whose final loss is at most the tolerance: (1 + G, M, C),
        of all shards, then without each. None where no report on the sweep was written.
    tolerance
        A network with more than `MAX_ABOVE` of its images above this final loss is "not converged".
    classes
        Number of classes of the images.
    seed_labels
        Labels that the seed of a pair may have: "other" than the target's, or "any".
    preset
        Update rule that images were inverted with.
    skipped
        Split -> (unreadable images, images listed).
    notes
        What stages noted of images and networks, in sentences: doubles, and orders of classes that fit better.
    provenance
        Digest, versions, device, creation time and so on, as text.
    verdict
        What a sweep that stops when its results are known (`pairs.until`) knows of its question; None for any other.
    """

    networks: tuple[str, ...]
    observers: tuple[str, ...]
    n: int
    shards: int
    means: Mapping[tuple[str, Estimator], Estimate]
    rows: Mapping[tuple[str, Estimator], Mapping[str, Estimate]]
    columns: Mapping[tuple[str, Estimator], Mapping[str, Estimate]]
    row_differences: Mapping[tuple[str, str], Estimate]
    matrices: Mapping[str, Cells]
    groups: Mapping[str, str]
    loss: Mapping[str, Loss]
    summaries: Mapping[str, NetworkSummary]
    controls: Controls
    on_converged: np.ndarray | None
    tolerance: float
    classes: int
    seed_labels: str
    preset: str
    skipped: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None

    @property
    def df(self) -> int:
        """Degrees of freedom of every standard error."""
        return self.shards - 1

    @property
    def converged(self) -> dict[str, bool]:
        """Map each network to whether at most `MAX_ABOVE` of its images have a final loss above the tolerance."""
        return {name: self.loss[name].above(self.tolerance) <= MAX_ABOVE for name in self.networks}

    @property
    def chance(self) -> float:
        """Accuracy of guessing, in [0, 1]."""
        return 1 / self.classes

    @property
    def seed_only(self) -> float:
        """Similarity that two ideal networks have where one sees targets and the other seeds; 0 for seeds of any label.

        Source: `netsim.results.controls.seed_only`.
        """
        return seed_only(self.classes, self.seed_labels)

    @property
    def unreached(self) -> dict[str, Estimate]:
        """Map each network to the share of the variance of its targets that its inversions do not reach."""
        return dict(zip(self.networks, self.controls.itself("unreached"), strict=True))

    @property
    def fidelity(self) -> dict[str, Estimate]:
        """Map each network to the CKA of its representations of its inverted images with its own of the targets."""
        return dict(zip(self.networks, self.controls.itself("seen_target"), strict=True))

    @property
    def mean_on_converged(self) -> Estimate | None:
        """Mean of the inverted matrix over converged images only; None where it is unknown."""
        if self.on_converged is None:
            return None
        value, *replicates = (
            float(counted_mean(cells[:, : len(self.networks)], self.counted)) for cells in self.on_converged
        )
        return jackknife(value, np.array(replicates))

    @property
    def everyone(self) -> tuple[str, ...]:
        """All networks that look: the columns of both matrices."""
        return (*self.networks, *self.observers)

    @property
    def twins(self) -> tuple[tuple[str, ...], ...]:
        """Groups of networks with equal weights."""
        return twin_groups(self.everyone, self._weights(self.everyone))

    @property
    def counted(self) -> np.ndarray:
        """The cells (M, M) that means are taken over."""
        return self.comparable[:, : len(self.networks)]

    @property
    def comparable(self) -> np.ndarray:
        """The cells (M, C) of two networks with different weights and of different groups."""
        return comparable_cells(self.distinct, [self.groups[name] for name in self.everyone])

    @property
    def distinct(self) -> np.ndarray:
        """The cells (M, C) of two networks with different weights."""
        return counted_cells(self._weights(self.networks), self._weights(self.observers))

    @property
    def adjusted_p_values(self) -> dict[tuple[str, str], float]:
        """The p-values of `row_differences`, adjusted together by Holm's method."""
        p_values = [difference.p_value for difference in self.row_differences.values()]
        return dict(zip(self.row_differences, holm(p_values).tolist(), strict=True))

    @cached_property
    def inference(self) -> Inference:
        """Errors over networks, the ceiling of replicates, asymmetry, clusters and maps."""
        groups = tuple(self.groups[name] for name in self.everyone)
        controls = {
            name: (self.controls.values[f"{name}_seed"], self.controls.leave_one_out[f"{name}_seed"]) for name in SETS
        }
        return Inference(self.networks, self.observers, groups, self.distinct, self.matrices, controls)

    def _weights(self, names: Iterable[str]) -> list[str]:
        return [self.summaries[name].weights_hash for name in names]

    def cells(self, set_name: str, estimator: EstimatorName = "unbiased", *, kind: Kind = "cka") -> np.ndarray:
        """Return one kind of number of a matrix (M, C); row = through, column = observer.

        `kind` is "cka", its standard error "se", the ends "low" and "high" of its 95 % interval (of the expected value
        at this n for the biased estimator, and never clipped to [0, 1]), or "undefined", the reason where a value or
        its error is NaN.
        """
        matrix, e = self.matrices[set_name], ESTIMATORS.index(validate_estimator(estimator))
        if kind == "undefined":
            return matrix.undefined[e]
        if kind == "cka":
            return matrix.cka[e]
        se = jackknife_se(np.moveaxis(matrix.leave_one_out[e], -1, 0))
        if kind == "se":
            return se
        half = half_width(se, self.df)
        return np.asarray(matrix.cka[e] + (half if kind == "high" else -half))

    @cached_property
    def similarity(self) -> "xr.Dataset":
        """Every cell, labelled: one variable for each `kind` of `cells`, and `floor` without the first dimension.

        Dimensions are (estimator, set, through, observer).
        """
        import xarray as xr  # half a second that results in a terminal do not wait for

        def stacked(kind: Kind) -> np.ndarray:
            return np.stack([[self.cells(name, each, kind=kind) for name in SETS] for each in ESTIMATORS])

        variables = {kind: (DIMS, stacked(kind)) for kind in get_args(Kind)}
        return xr.Dataset(
            {**variables, "floor": (DIMS[1:], np.stack([self.floor(name) for name in SETS]))},
            coords=dict(
                zip(DIMS, (list(ESTIMATORS), list(SETS), list(self.networks), list(self.everyone)), strict=True)
            ),
        )

    def floor(self, set_name: str) -> np.ndarray:
        """Return the floor of the biased estimator (M, C), its mean for unrelated representations."""
        return self.matrices[set_name].floor


# ---- from the store


def load_results(run: Run, *, on_converged: Callable[[Mapping[str, Loss]], np.ndarray] | None = None) -> Results:
    """Read the results of a finished run.

    Parameters
    ----------
    run
        The run.
    on_converged
        Computes `Results.on_converged` from the losses, by the network's name in the store; by default it is read from
        the report, if there is one.

    Raises
    ------
    StoreError
        If the run is not finished (the message names what is missing) or damaged.
    """
    sweep, shards = run.sweep, run.sweep.shards
    members = (run.settings.members, run.settings.observing)
    networks, observers = (tuple(member.name for member in some) for some in members)
    units = require_finished(run, STAGES[:-1])  # first, so that its error is the one that is raised
    parts: list[Callable[[], Any]] = [
        lambda: _records_and_losses(run, units),
        lambda: sums_of(run),
        lambda: unreadable_counts(run),
        lambda: concurrently(partial(weights_hash, run), sweep.columns),
        lambda: concurrently(run.array, [path for name in sweep.names for path in _loss_arrays(name)]),
    ]
    (records, losses), sums, skipped, *_ = concurrently(lambda part: part(), parts)
    by_set = matrices(run, sums)
    _check_provenance(run, records)
    draw = records["draw"]["pairs"][0]
    return Results(
        networks=networks,
        observers=observers,
        n=run.settings.pairs.count,
        shards=shards,
        means=_means(by_set),
        rows={
            (name, estimator): dict(zip(networks, cells.rows(estimator), strict=True))
            for name, cells in by_set.items()
            for estimator in ESTIMATORS
        },
        columns={
            (name, estimator): dict(zip((*networks, *observers), cells.columns(estimator), strict=True))
            for name, cells in by_set.items()
            for estimator in ESTIMATORS
        },
        row_differences={
            (networks[i], networks[j]): difference
            for (i, j), difference in by_set["inverted"].row_differences("unbiased").items()
        },
        matrices=by_set,
        groups=groups_of(run),
        loss={name: losses[sweep.shown[name]] for name in networks},
        summaries={name: _summary(name, records["train"][sweep.shown[name]][0]) for name in (*networks, *observers)},
        controls=load_controls(run, by_set["inverted"].comparable, sums),
        on_converged=read_on_converged(run) if on_converged is None else on_converged(losses),
        tolerance=run.settings.inversion.tolerance,
        classes=len(DrawMetadata.of(draw).classes),
        seed_labels=run.settings.pairs.seed_labels,
        preset=run.settings.inversion.preset,
        skipped=skipped,
        notes=_notes(records),
        provenance=_provenance(run, records),
        verdict=verdict_of(run, by_set["inverted"]),
    )


def read_on_converged(run: Run) -> np.ndarray | None:
    """Read `Results.on_converged` from the report on the sweep; None if there is none."""
    if not run.is_done(REPORT.name, run.sweep.id, 0):
        return None
    return run.read(run.record(REPORT.name, run.sweep.id, 0), layout.converged_path(run.sweep.id))


def _records(run: Run, units: Iterable[Unit]) -> dict[str, dict[str, list[Record]]]:
    """Read the records of some units, by stage and name, in the order of shards."""
    records: dict[str, dict[str, list[Record]]] = {stage.name: {} for stage in STAGES[:-1]}
    for (stage_name, name, _), record in sorted(run.records_of(units).items()):
        records[stage_name].setdefault(name, []).append(record)
    return records


def _notes(records: dict[str, dict[str, list[Record]]]) -> tuple[str, ...]:
    """Collect what draw noted of all images, which is in every shard, and train of each network."""
    noted = [records["draw"]["pairs"][0], *(record for shards in records["train"].values() for record in shards)]
    return tuple(note for record in noted for note in Metadata.of(record).notes)


def _check_provenance(run: Run, records: dict[str, dict[str, list[Record]]]) -> None:
    """Raise StoreError if a unit was computed with other weights, or from other values, than the run has now."""
    every = [record for by_name in records.values() for shards in by_name.values() for record in shards]
    contents = Contents(every)
    for record in every:
        check_weights(run, record)
        check_origin(run, record, contents)


def _means(by_set: Mapping[str, Cells]) -> dict[tuple[str, Estimator], Estimate]:
    every = {**by_set, "difference": by_set["natural"].minus(by_set["inverted"])}
    return {(name, estimator): cells.mean(estimator) for name, cells in every.items() for estimator in ESTIMATORS}


def _records_and_losses(run: Run, units: Iterable[Unit]) -> tuple[dict[str, dict[str, list[Record]]], dict[str, Loss]]:
    records, names = _records(run, units), run.sweep.names
    losses = concurrently(lambda name: _loss(run, name, records["invert"][name]), names)
    return records, dict(zip(names, losses, strict=True))


def _loss_arrays(through: str) -> tuple[str, str]:
    """Return the paths of the losses of a network's inversions, and of their history."""
    return f"{inverted_set(through)}/losses", f"{inverted_set(through)}/history"


def _loss(run: Run, through: str, records: list[Record]) -> Loss:
    losses, history = concurrently(partial(run.read_all, records), _loss_arrays(through))
    column = {name: layout.quantity(losses, name) for name in layout.QUANTITIES}
    return Loss(
        initial=column["initial_loss"],
        final=column["final_loss"],
        distance=column["distance"],
        iterations=column["iterations"].astype(int),
        stopped=int((column["stop_reason"] == STOP_REASONS.index("loss")).sum()),
        stalled=int(column["stalled"].sum()),
        nonfinite=int(column["nonfinite"].sum()),
        history=np.median(history, axis=0),
        history_iterations=layout.history_iterations(run.settings.inversion.iterations),
    )


def _summary(name: str, record: Record) -> NetworkSummary:
    metadata = TrainMetadata.of(record)
    size = metadata.preprocessing.get("size")  # records of an older netsim have none
    attacked = metadata.robust or {}
    return NetworkSummary(
        name=name,
        reference=metadata.reference,
        accuracy=math.nan if metadata.accuracy is None else metadata.accuracy,
        parameters=metadata.parameters,
        width=metadata.width,
        weights_hash=metadata.weights_hash,
        trained_here=metadata.trained_here,
        other_size=None if size == metadata.input_shape[-1] else size,
        robust=attacked.get("accuracy"),
        eps=attacked.get("eps", 0.0),
        norm=attacked.get("norm", ""),
    )


def _provenance(run: Run, records: dict[str, dict[str, list[Record]]]) -> dict[str, str]:
    drawn = DrawMetadata.of(records["draw"]["pairs"][0])
    computed = [record for stage in ("invert", "embed") for shards in records[stage].values() for record in shards]
    seconds = {
        stage: sum(record.seconds for shards in by_name.values() for record in shards)
        for stage, by_name in records.items()
        if by_name
    }
    return {
        "run": run.digest,
        "sweep": run.sweep.id,
        "algorithm": str(run.protocol.algorithm),
        "created": run.attributes["created"],
        **_period(record for by_name in records.values() for shards in by_name.values() for record in shards),
        "images": f"{drawn.source}, BLAKE3 {drawn.images_hash}",
        "preset": run.settings.inversion.preset,
        "precision": _precisions({name: shards[0] for name, shards in records["invert"].items()}),
        "device": _distinct(map(_device, computed)),
        "task seconds": ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
        **{
            f"version of {name}": _distinct(record.versions.get(name, "unknown") for record in computed)
            for name in computed[0].versions
        },
    }


def _period(records: Iterable[Record]) -> dict[str, str]:
    """Return when the first unit was begun and the last one ended, UTC."""
    units = [(datetime.fromisoformat(record.committed), record.seconds) for record in records]
    start = min(committed - timedelta(seconds=seconds) for committed, seconds in units)
    end = max(committed for committed, _ in units)
    return {name: when.isoformat(timespec="seconds") for name, when in (("started", start), ("ended", end))}


def _device(record: Record) -> str:
    metadata = ComputedMetadata.of(record)
    return f"{metadata.device}, {metadata.threads} thread(s) a worker"


def _distinct(values: Iterable[str]) -> str:
    """Join distinct values: workers may differ."""
    return "; ".join(dict.fromkeys(values))


def _precisions(records: Mapping[str, Record]) -> str:
    """Describe the precision of inversions; where networks differ, each precision with its networks."""
    networks: dict[str, list[str]] = {}
    for name, record in records.items():
        networks.setdefault(InvertMetadata.of(record).precision, []).append(name)
    if len(networks) == 1:
        return next(iter(networks))
    return "; ".join(f"{precision}: {', '.join(names)}" for precision, names in networks.items())
