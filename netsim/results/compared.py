"""Two sweeps compared: the differences of what both measured, with intervals. M = networks that both have, G = shards.

Where both are of the same pairs, or of the same targets with other seeds, the jackknife deletes the same images from
both at once (paired): what images have in common with themselves is no difference. Otherwise errors of independent
samples are added.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np

from netsim.errors import RunError, StoreError
from netsim.results.matrices import ESTIMATORS, SETS, Cells, matrices
from netsim.results.twins import counted_mean
from netsim.similarity.uncertainty import Estimate, jackknife, plain
from netsim.statistics.mantel import Agreement, mantel, split_half_reliability
from netsim.statistics.multiple import holm
from netsim.statistics.reliability import SeedReliability, seed_reliability
from netsim.store.provenance import weights_hash
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, require_finished
from netsim.store.views import view

FEWEST = 2
"""Least number of networks in common."""

SEED_DRAW = "pairs.seed_draw"
"""Setting that gives the same targets other seeds."""


@dataclass(frozen=True)
class Difference:
    """A value of the first sweep, of the second, and the second minus the first."""

    first: Estimate
    second: Estimate
    difference: Estimate

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return {name: getattr(self, name).to_json() for name in ("first", "second", "difference")}


@dataclass(frozen=True)
class ComparedSweeps:
    """Unbiased CKA of two sweeps.

    Attributes
    ----------
    networks
        Networks that both have, by the name under which both show them.
    n
        Number of pairs that were compared, of each.
    unpaired
        The reason why errors are those of independent samples; "" where both are of the same pairs, or of the same
        targets with other seeds.
    settings
        Settings of pairs and inversion that differ -> both values.
    other_weights
        Networks whose weights differ.
    means
        "natural", "inverted" and "natural minus inverted" -> means over the cells of two networks.
    rows
        "natural" and "inverted" -> network -> mean of its row.
    cells, errors
        "natural" and "inverted" -> the second minus the first (M, M), and its standard error.
    agreement
        "natural" and "inverted" -> correlation of both matrices over their cells, tested by permuting networks.
    reliability
        "natural" and "inverted" -> how well each matrix would correlate with itself on other images.
    seeds
        Network -> how the variance of the mean of its inverted row is divided into targets and seeds; "" -> of the mean
        of all rows. Empty unless the draw of seeds is all that differs.
    """

    networks: tuple[str, ...]
    n: tuple[int, int]
    unpaired: str
    settings: Mapping[str, tuple[Any, Any]]
    other_weights: tuple[str, ...]
    means: Mapping[str, Difference]
    rows: Mapping[str, Mapping[str, Difference]]
    cells: Mapping[str, np.ndarray]
    errors: Mapping[str, np.ndarray]
    agreement: Mapping[str, Agreement]
    reliability: Mapping[str, tuple[float, float]]
    seeds: Mapping[str, SeedReliability]

    @property
    def other_seeds(self) -> bool:
        """True if both are of the same targets with other seeds."""
        return not self.unpaired and SEED_DRAW in self.settings

    @property
    def tests(self) -> dict[tuple[str, str], Difference]:
        """All differences that are tested, by (mean, network); the network is "" for the mean of all rows."""
        rows = {(kind, name): each for kind, rows in self.rows.items() for name, each in rows.items()}
        return {(name, ""): each for name, each in self.means.items()} | rows

    @property
    def adjusted_p_values(self) -> dict[tuple[str, str], float]:
        """The p-values of `tests`, adjusted together by Holm's method."""
        p_values = [each.difference.p_value for each in self.tests.values()]
        return dict(zip(self.tests, holm(p_values).tolist(), strict=True))

    def to_json(self) -> dict[str, Any]:
        """Convert to plain lists and mappings."""
        adjusted = self.adjusted_p_values

        def tested(kind: str, name: str, each: Difference) -> dict[str, Any]:
            plain_values = each.to_json()
            plain_values["difference"]["p_value_holm"] = plain(adjusted[kind, name])
            return plain_values

        matrices = {kind: {name: plain(cells.tolist()) for name, cells in getattr(self, kind).items()} for kind in
                    ("cells", "errors")}  # fmt: skip
        return {
            "networks": list(self.networks),
            "n": list(self.n),
            "unpaired": self.unpaired,
            "settings": {name: list(values) for name, values in self.settings.items()},
            "other_weights": list(self.other_weights),
            "means": {name: tested(name, "", each) for name, each in self.means.items()},
            "rows": {
                name: {row: tested(name, row, each) for row, each in rows.items()} for name, rows in self.rows.items()
            },
            **matrices,
            "agreement": {
                name: each.to_json() | {"reliability": plain(list(self.reliability[name]))}
                for name, each in self.agreement.items()
            },
            "seeds": self._seeds_to_json(),
        }

    def _seeds_to_json(self) -> dict[str, Any] | None:
        plain_values = {name: each.to_json() for name, each in self.seeds.items()}
        return {"mean": plain_values.pop(""), "rows": plain_values} if plain_values else None


def compare_sweeps(first: Run, second: Run) -> ComparedSweeps:
    """Compare two finished sweeps, of one store or of two, on the networks that both have.

    Raises
    ------
    RunError
        If fewer than two networks are in both.
    StoreError
        If a sweep is not finished or damaged.
    """
    names = [name for name in first.settings.names if name in second.settings.names]
    if len(names) < FEWEST:
        raise RunError(
            f"two sweeps must have at least {FEWEST} networks in common, got {len(names)}: {first.url} has "
            f"{', '.join(first.settings.names)}, {second.url} has {', '.join(second.settings.names)}"
        )
    sides, unpaired = _on_the_same_pairs(view(first, names), view(second, names))
    for side in sides:
        require_finished(side, [AGGREGATE])
    both = [matrices(side) for side in sides]
    weights = [{name: weights_hash(side, side.sweep.shown[name]) for name in names} for side in sides]
    counted = np.logical_and(*(cells["natural"].comparable for cells in both))
    estimates = {name: _sides(name, both) for name in (*SETS, "natural minus inverted")}

    selected = {"": counted} | {
        name: counted & (np.arange(len(names)) == row)[:, None] for row, name in enumerate(names)
    }
    changes = first.protocol.changes(second.protocol)
    other_weights = tuple(name for name in names if weights[0][name] != weights[1][name])
    only_seeds = list(changes) == [SEED_DRAW] and not other_weights

    def average(kind: str, name: str) -> Difference:
        return _difference([_mean(values, selected[name]) for values in estimates[kind]], paired=not unpaired)

    cells = {name: _cell_differences(estimates[name], paired=not unpaired) for name in SETS}
    return ComparedSweeps(
        networks=tuple(names),
        n=(sides[0].settings.pairs.count, sides[1].settings.pairs.count),
        unpaired=unpaired,
        settings={name: values for name, values in changes.items() if name != "images"},
        other_weights=other_weights,
        means={kind: average(kind, "") for kind in estimates},
        rows={kind: {name: average(kind, name) for name in names} for kind in SETS},
        cells={name: values for name, (values, _) in cells.items()},
        errors={name: errors for name, (_, errors) in cells.items()},
        agreement={name: _agreement(estimates[name], counted) for name in SETS},
        reliability={name: _reliability(estimates[name], counted) for name in SETS},
        seeds={name: _seeds(estimates["inverted"], cells) for name, cells in selected.items()} if only_seeds else {},
    )


def _on_the_same_pairs(first: Run, second: Run) -> tuple[list[Run], str]:
    """Restrict two runs to their first pairs, where their targets are the same; else return them with the reason."""
    changes = first.protocol.changes(second.protocol)
    if "images" in changes:
        return [first, second], "the images are others"
    if others := [name for name in changes if name.startswith("pairs.") and name != SEED_DRAW]:
        return [first, second], f"the pairs are drawn or cut otherwise ({', '.join(others)})"
    counts = [run.settings.pairs.count for run in (first, second)]
    if counts[0] == counts[1]:
        return [first, second], ""
    shorter = [view(run, pairs=min(counts)) for run in (first, second)]
    try:
        for run in shorter:
            require_finished(run, [AGGREGATE])
    except StoreError:
        return [first, second], f"one has {counts[0]} pairs and the other {counts[1]}"
    return shorter, ""


Values = tuple[np.ndarray, np.ndarray]
"""Unbiased CKA of every cell (M, M), and without each shard (M, M, G)."""


def _sides(name: str, both: list[dict[str, Cells]]) -> list[Values]:
    e = ESTIMATORS.index("unbiased")
    chosen = [cells["natural"].minus(cells["inverted"]) if name not in SETS else cells[name] for cells in both]
    return [(cells.cka[e], cells.leave_one_out[e]) for cells in chosen]


def _mean(values: Values, counted: np.ndarray) -> tuple[float, np.ndarray]:
    cka, left_out = values
    return float(counted_mean(cka, counted)), counted_mean(left_out, counted)


def _seeds(sides: list[Values], counted: np.ndarray) -> SeedReliability:
    """Divide the variance of the mean of the cells that count; each side is a draw of seeds."""
    values, replicates = zip(*(_mean(side, counted) for side in sides), strict=True)
    return seed_reliability(values, replicates)


def _agreement(sides: list[Values], counted: np.ndarray) -> Agreement:
    """Correlate both matrices over the cells that count and are defined."""
    (first, _), (second, _) = sides
    return mantel(first, second, counted & np.isfinite(first) & np.isfinite(second))


def _reliability(sides: list[Values], counted: np.ndarray) -> tuple[float, float]:
    """Estimate how well each matrix would correlate with itself on other images, over cells that are defined."""
    first, second = (
        split_half_reliability(cka, left_out, counted & np.isfinite(cka) & np.isfinite(left_out).all(axis=-1))
        for cka, left_out in sides
    )
    return first, second


def _difference(sides: list[tuple[float, np.ndarray]], *, paired: bool) -> Difference:
    """Subtract the first from the second."""
    first, second = (jackknife(*side) for side in sides)
    if paired:
        (a, without_a), (b, without_b) = sides
        return Difference(first, second, jackknife(b - a, without_b - without_a))
    error = Estimate(second.value - first.value, hypot(first.se, second.se), min(first.df, second.df))
    return Difference(first, second, error)


def _cell_differences(sides: list[Values], *, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Subtract cell by cell; return the differences and their standard errors, (M, M) each."""

    def cell(i: int, j: int) -> Estimate:
        return _difference([(float(cka[i, j]), left_out[i, j]) for cka, left_out in sides], paired=paired).difference

    m = range(len(sides[0][0]))
    each = [[cell(i, j) for j in m] for i in m]
    values, errors = ([[getattr(cell, name) for cell in row] for row in each] for name in ("value", "se"))
    return np.array(values), np.array(errors)
