"""Verdicts of sweeps that stop when their results are known (`pairs.until`), and how far such a sweep has come.

A verdict depends on what is stored for the look's pairs alone, so that a sweep that was killed comes to the same one.
It is of the inverted matrix, unbiased.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, nan
from typing import Any, Literal

from netsim.results.matrices import Cells, matrices
from netsim.settings import UntilSettings
from netsim.similarity.uncertainty import Estimate, plain
from netsim.statistics.sequential import anytime_interval, looks, width_interval
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, TRAIN
from netsim.store.sweeps import Sweep

Outcome = Literal["known", "different", "equivalent", "undecided"]

Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """Answer of a sweep to its question at a look.

    Attributes
    ----------
    until
        The rule.
    estimates
        What it asks about ("mean", the name of a row, or "a − b") -> the value with its error over images.
    n, at_most
        Pairs of the look, and pairs that the sweep may use.
    looks
        Number of looks so far.
    """

    until: UntilSettings
    estimates: Mapping[str, Estimate]
    n: int
    at_most: int
    looks: int

    @property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % intervals that decide, by what they are of: for a width, they hold where the sweep stops at it."""
        interval = anytime_interval if self.until.differ else width_interval
        return {name: interval(estimate) for name, estimate in self.estimates.items()}

    @property
    def anytime(self) -> dict[str, Interval]:
        """The 95 % intervals that hold at all looks at once, whatever stopped the sweep."""
        return {name: anytime_interval(estimate) for name, estimate in self.estimates.items()}

    @property
    def half_width(self) -> float:
        """Half the width of the widest interval; infinite where one is unknown."""
        halves = [(high - low) / 2 for low, high in self.intervals.values()]
        return max(half if half >= 0 else inf for half in halves)

    @property
    def outcome(self) -> Outcome:
        """The answer. Rows that differ by less than delta are equivalent, also where it is known that they differ."""
        if self.until.half_width is not None:
            return "known" if self.half_width <= self.until.half_width else "undecided"
        ((low, high),) = self.intervals.values()
        if self.until.delta is not None and -self.until.delta < low <= high < self.until.delta:
            return "equivalent"
        return "different" if low > 0 or high < 0 else "undecided"

    @property
    def final(self) -> bool:
        """True if the sweep ends here."""
        return self.outcome != "undecided" or self.n == self.at_most

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON; ends that are infinite or unknown are None."""
        return {
            "rule": self.until.model_dump(mode="json", exclude_none=True),
            "outcome": self.outcome,
            "n": self.n,
            "at_most": self.at_most,
            "looks": self.looks,
            "half_width": plain(self.half_width),
            "of": {
                name: {
                    "value": plain(estimate.value),
                    "se": plain(estimate.se),
                    "interval": plain(list(self.intervals[name])),
                    "interval_at_any_time": plain(list(self.anytime[name])),
                }
                for name, estimate in self.estimates.items()
            },
        }


def verdict_of(run: Run, inverted: Cells) -> Verdict | None:
    """Return the verdict at the pairs that a run shows, from its inverted matrix; None for a sweep without a rule."""
    until = run.settings.pairs.until
    if until is None:
        return None
    at_most = run.sweep.given_settings.pairs
    return Verdict(
        until,
        _estimates(until, run.settings.names, inverted),
        n=run.settings.pairs.count,
        at_most=at_most.count,
        looks=sum(shards <= run.sweep.shards for shards in looks(at_most.shards)),
    )


def _estimates(until: UntilSettings, names: tuple[str, ...], inverted: Cells) -> dict[str, Estimate]:
    """Select what a rule is about."""
    if until.differ is not None:
        return {" − ".join(until.differ): _difference(until.differ, names, inverted)}
    if until.of in (None, "mean"):
        return {"mean": inverted.mean("unbiased")}
    rows = dict(zip(names, inverted.rows("unbiased"), strict=True))
    return rows if until.of == "rows" else {until.of: rows[until.of]}


def _difference(rows: tuple[str, ...], names: tuple[str, ...], inverted: Cells) -> Estimate:
    """Subtract the mean of one row from that of another, paired; undefined for networks with equal weights."""
    first, second = (names.index(row) for row in rows)
    differences = inverted.row_differences("unbiased")
    if (first, second) in differences:
        return differences[first, second]
    mirrored = differences.get((second, first), Estimate(nan, nan, 0))
    return Estimate(-mirrored.value, mirrored.se, mirrored.df)


# ---- looks


def at_looks(run: Run) -> Iterator[Run]:
    """Yield the store as a sweep with a rule sees it at each of its looks, in order."""
    for shards in looks(run.sweep.given_settings.pairs.shards):
        yield run.seen_by(run.sweep.at_look(shards))


def first_look(sweep: Sweep) -> Sweep:
    """Return a sweep as it is at its first look; one without a rule as it is."""
    pairs = sweep.given_settings.pairs
    return sweep if pairs.until is None else sweep.at_look(next(looks(pairs.shards)))


def verdict_at(look: Run) -> Verdict | None:
    """Compute the verdict at a look from what is stored; None if that is not complete."""
    if TRAIN.missing(look) or AGGREGATE.missing(look):
        return None
    return verdict_of(look, matrices(look)["inverted"])


def current_look(run: Run) -> Run:
    """Return the store as its sweep sees it now: at the first look that is not complete, or at the one that ended it.

    A sweep without a rule (`pairs.until`) is returned as it is.
    """
    if run.settings.pairs.until is None:
        return run
    for look in at_looks(run):
        verdict = verdict_at(look)
        if verdict is None or verdict.final:
            break
    return look


def last_look(run: Run) -> Run:
    """Return the store as its sweep may see it at last: at the look that ended it, or else with all of its pairs."""
    if run.settings.pairs.until is None:
        return run
    look = current_look(run)
    return look if verdict_at(look) else run.seen_by(run.sweep.at_look(run.sweep.given_settings.pairs.shards))
