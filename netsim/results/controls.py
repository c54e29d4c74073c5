"""Controls of a run: what its similarities owe to the seeds, and what observers see in inverted images.

M networks that are inverted, C = M + those that only observe, G shards, K classes. Cell (i, j) is of images inverted
through i and of observer j.

The labels of a pair differ, which makes the seed's class a function of the target's: of K classes, an observer that
sees nothing but the seed has a similarity of about 1 / (K - 1)^2 to a network that sees nothing but the target. The
seed-only control measures it for each cell. docs/concepts/seeds.md explains all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from netsim.results.matrices import column_names, row_names, sums_of
from netsim.results.twins import counted_mean
from netsim.similarity.hsic import Hsic, cka
from netsim.similarity.streaming import Pair
from netsim.similarity.uncertainty import Estimate, jackknife, jackknife_se
from netsim.storage.concurrency import concurrently
from netsim.store.coverage import CONTROLS
from netsim.store.layout import CONTROL_SUMS, NATURAL, ROLES, control_path, inverted
from netsim.store.metadata import ControlMetadata
from netsim.store.run import Run

QUANTITIES = {
    "natural_seed": "unbiased CKA of i's representations of targets with j's of seeds: the seed-only control",
    "inverted_seed": "unbiased CKA of i's representations of inverted images with j's of seeds: the seed-only control",
    "seen_seed": "unbiased CKA of j's representations of inverted images with its own of their seeds",
    "seen_target": "unbiased CKA of j's representations of inverted images with its own of their targets",
    "adjusted": "unbiased CKA on inverted images without what the class of the seed explains on both sides",
    "predicts_seed": "share of inverted images that j takes for the class of the seed",
    "predicts_target": "share of inverted images that j takes for the class of the target",
    "unreached": "squared distance of j's representations of inverted images from those of targets, as a share of the "
    "variance of these",
}
"""Quantities of a cell (i, j), and what they are."""

LEAK = 0.01
"""Population value of the seed-only control, 1 / (K - 1)^2, above which a warning is given."""


@dataclass(frozen=True)
class Controls:
    """The controls of every cell of the inverted matrix.

    Attributes
    ----------
    values
        Quantity (see `QUANTITIES`) -> (M, C); NaN where undefined.
    leave_one_out
        Quantity -> (M, C, G), without each shard.
    comparable
        (M, C), the cells of two networks with different weights.
    """

    values: Mapping[str, np.ndarray]
    leave_one_out: Mapping[str, np.ndarray]
    comparable: np.ndarray

    def se(self, quantity: str) -> np.ndarray:
        """Return the standard error of every cell (M, C), over images."""
        return jackknife_se(np.moveaxis(self.leave_one_out[quantity], -1, 0))

    def mean(self, quantity: str) -> Estimate:
        """Average over the cells that the mean of the matrix is over."""
        inside = self.comparable[:, : len(self.comparable)]
        value, replicates = (
            counted_mean(values[:, : len(inside)], inside)
            for values in (self.values[quantity], self.leave_one_out[quantity])
        )
        return jackknife(float(value), replicates)

    def itself(self, quantity: str) -> list[Estimate]:
        """Return the cells (i, i), of each network and its own inversions."""
        places = range(len(self.comparable))
        return [jackknife(self.values[quantity][i, i], self.leave_one_out[quantity][i, i]) for i in places]


def seed_only(classes: int, seed_labels: str = "other") -> float:
    """Return the seed-only control of two ideal networks: 1 / (K - 1)^2 for K classes, 0 for seeds of "any" label.

    With one-hot codes of target and seed, Cov(e_t, e_s) = -(I - 11'/K) / (K (K - 1)) and Cov(e_t) = (I - 11'/K) / K:
    CKA squares the covariance, and with it the sign.

    Examples
    --------
    >>> [round(seed_only(classes), 4) for classes in (2, 3, 10, 1000)]
    [1.0, 0.25, 0.0123, 0.0]
    """
    return 1 / (classes - 1) ** 2 if seed_labels == "other" else 0.0


def load_controls(run: Run, comparable: np.ndarray, sums: Mapping[str, Mapping[Pair, Hsic]] | None = None) -> Controls:
    """Read the controls of a sweep.

    Parameters
    ----------
    run
        The run, with all units of `aggregate` and `control`.
    comparable
        (M, C), the cells of two networks with different weights.
    sums
        Those of the sweep (`netsim.results.matrices.sums_of`); read if they are not given.
    """
    cells = _cells(run, sums_of(run) if sums is None else sums)
    through, observers = row_names(run), column_names(run)
    stacked = {name: np.array([[cells[i, j][name] for j in observers] for i in through]) for name in QUANTITIES}
    return Controls(
        values={name: values[..., 0] for name, values in stacked.items()},
        leave_one_out={name: values[..., 1:] for name, values in stacked.items()},
        comparable=comparable,
    )


def _cells(run: Run, sums: Mapping[str, Mapping[Pair, Hsic]]) -> dict[Pair, dict[str, np.ndarray]]:
    """Map each cell (through, observer) to its quantities, each (1 + G,): of all shards, and without each."""
    raw = _read(run)
    return {pair: _quantities(pair, raw, sums) for pair in raw}


@dataclass(frozen=True)
class _Raw:
    """The sums and counts that the store has of a cell."""

    sums: Mapping[str, Hsic]
    predicted: np.ndarray  # (2, G)
    distance: np.ndarray  # (G,)


def _read(run: Run) -> dict[Pair, _Raw]:
    settings, shards = run.settings.pairs, run.sweep.shards
    n = np.array([settings.count, *[settings.count - settings.shard_size] * shards])
    covered = CONTROLS.covered(run, run.done("control"))
    units = sorted({unit for pairs in covered.values() for unit in pairs.values()})
    records = run.records_of(("control", unit, 0) for unit in units)

    def read(unit: str) -> dict[Pair, _Raw]:
        record = records["control", unit, 0]
        moments, predicted, distance = concurrently(
            lambda kind: run.read(record, control_path(unit, kind)), ["moments", "predicted", "distance"]
        )
        classes = ControlMetadata.of(record).seed_classes
        cells = {}
        for position, pair in enumerate(CONTROLS.of_unit(run, unit)):
            of_cell = {key: Hsic(n, *moments[position, at]) for at, key in enumerate(CONTROL_SUMS)}
            for key in ("adjusted", "adjusted_observer"):  # as many degrees of freedom less as class means
                of_cell[key] = replace(of_cell[key], n=n - classes + 1)
            cells[pair] = _Raw(of_cell, predicted[position], distance[position])
        return cells

    by_unit = dict(zip(units, concurrently(read, units), strict=True))
    return {pair: by_unit[unit][pair] for pairs in covered.values() for pair, unit in pairs.items()}


def _quantities(pair: Pair, raw: Mapping[Pair, _Raw], sums: Mapping[str, Mapping[Pair, Hsic]]) -> dict[str, np.ndarray]:
    through, observer = pair
    cell, natural, seen = raw[pair], sums[NATURAL], sums[inverted(through)]
    sides = {
        "natural_seed": (natural[through, through], cell.sums["seed"]),
        "inverted_seed": (seen[through, through], cell.sums["seed"]),
        "seen_seed": (seen[observer, observer], cell.sums["seed"]),
        "seen_target": (seen[observer, observer], natural[observer, observer]),
        "adjusted": (raw[through, through].sums["adjusted_observer"], cell.sums["adjusted_observer"]),
    }
    values = {name: cka(cell.sums[name], x, y, "unbiased") for name, (x, y) in sides.items()}
    n = natural[observer, observer].n
    shares = {f"predicts_{role}": _without_each(cell.predicted[at]) / n for at, role in enumerate(ROLES)}
    return values | shares | {"unreached": _without_each(cell.distance) / natural[observer, observer].tx}


def _without_each(sums: np.ndarray) -> np.ndarray:
    """Add up sums of shards (G,): all of them, and without each, (1 + G,)."""
    return np.concatenate([[sums.sum()], sums.sum() - sums])
