"""Coverage: which units have what several networks share, and which are missing.

Networks that look at a set together are a cohort, and so are those that a row is compared with. A store that grew has
several cohorts for one set: this module finds, for each network, the unit that has its values.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from netsim.store.layout import (
    NATURAL,
    RowUnit,
    cell,
    embed_unit,
    row_pairs,
    row_parts,
    row_unit,
    rows,
    sets,
)
from netsim.store.run import Run
from netsim.store.sweeps import Sweep

Done = Mapping[tuple[str, int], float]
"""Units (name, shard) that are done, with the time of their commit."""

Pair = tuple[str, str]


# ---- embed: which unit has an observer's representations of a shard of a set


def embedded(run: Run, done: Done) -> dict[tuple[str, int], dict[str, str]]:
    """Map each (set, shard) to its observers, each with the unit that has its representations."""
    covered: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    current: dict[str, list[str]] = {}
    run.read_cohorts({unit.rpartition("/")[2] for unit, _ in done})
    for unit, shard in sorted(done):
        set_name, _, cohort = unit.rpartition("/")
        if cohort not in current:
            current[cohort] = run.current(cohort)
        for observer in current[cohort]:
            covered[set_name, shard].setdefault(observer, unit)
    return covered


def missing_embeddings(run: Run, done: Done) -> list[tuple[str, int]]:
    """List the units that are missing: for each shard of each set, one for the observers that have not looked."""
    covered = embedded(run, done)
    units = []
    for set_name in sets(run.sweep):
        for shard in range(run.sweep.shards):
            observers = covered.get((set_name, shard), {})
            if missing := [name for name in run.sweep.columns if name not in observers]:
                units.append((embed_unit(set_name, run.name_cohort(missing)), shard))
    # shards of one unit follow each other, so that they make blocks
    order = {name: position for position, (name, _) in reversed(list(enumerate(units)))}
    return sorted(units, key=lambda unit: (order[unit[0]], unit[1]))


def used_embeddings(run: Run, done: Done) -> list[tuple[str, int]]:
    """List the units that have the representations of this sweep."""
    covered = embedded(run, done)
    goals = [(set_name, shard) for set_name in sets(run.sweep) for shard in range(run.sweep.shards)]
    return list(
        dict.fromkeys(
            (covered[goal][name], goal[1])
            for goal in goals
            for name in run.sweep.columns
            if name in covered.get(goal, {})
        )
    )


# ---- rows: which unit has a model pair


@dataclass(frozen=True)
class Rows:
    """The rows of both matrices as a kind of unit computes them: sums of `aggregate`, or cells of a measure.

    Attributes
    ----------
    sums
        True if a cell needs both of its networks paired with themselves too.
    mirrored
        True if a natural cell and its mirror are one pair.
    natural
        False if there is no natural matrix.
    """

    sums: bool = True
    mirrored: bool = True
    natural: bool = True

    def of(self, sweep: Sweep) -> list[str]:
        """List the rows of a sweep."""
        return [row for row in rows(sweep) if self.natural or row_parts(row)[0] != NATURAL]

    def pairs(self, row: str, observers: Iterable[str], identities: Mapping[str, str]) -> list[Pair]:
        """List the pairs that a unit of a row computes for some observers."""
        if self.sums:
            return row_pairs(row, observers, identities)
        return [self._cell(row, observer, identities) for observer in observers]

    def _cell(self, row: str, observer: str, identities: Mapping[str, str]) -> Pair:
        return cell(row, observer, identities) if self.mirrored else (row_parts(row)[1], observer)

    def of_unit(self, run: Run, unit: str) -> list[Pair]:
        """List the pairs of a unit, in the order in which its arrays have them."""
        parts = RowUnit.parse(unit)
        cohort, network = run.cohort(parts.cohort), row_parts(parts.row)[1]
        return self.pairs(parts.row, sorted(cohort), cohort | run.sweep.identities([network]))

    def needed(self, sweep: Sweep, row: str) -> dict[str, list[Pair]]:
        """Map the observers of a row to the pairs that their cell needs."""
        through, identities = row_parts(row)[1], sweep.identities(sweep.columns)
        return {
            observer: [
                self._cell(row, observer, identities),
                *([(through, through), (observer, observer)] if self.sums else []),
            ]
            for observer in sweep.columns
        }

    def covered(self, run: Run, done: Done) -> dict[str, dict[Pair, str]]:
        """Map each set to its pairs, each with the unit that has them over the shards of this sweep."""
        covered: dict[str, dict[Pair, str]] = defaultdict(dict)
        run.read_cohorts({RowUnit.parse(unit).cohort for unit, _ in done})
        for unit, _ in sorted(done):
            parts = RowUnit.parse(unit)
            set_name, network = row_parts(parts.row)
            if parts.shards != run.sweep.shards or network not in run.sweep.columns:
                continue
            current = {*run.current(parts.cohort), network}
            for pair in self.of_unit(run, unit):
                if current.issuperset(pair):
                    covered[set_name].setdefault(pair, unit)
        return covered

    def used(self, run: Run, done: Done) -> list[tuple[str, int]]:
        """List the units that have the pairs of this sweep."""
        covered = self.covered(run, done)
        needed = {
            (row_parts(row)[0], pair)
            for row in self.of(run.sweep)
            for pairs in self.needed(run.sweep, row).values()
            for pair in pairs
        }
        units = {covered.get(set_name, {}).get(pair) for set_name, pair in needed}
        return sorted((unit, 0) for unit in units if unit is not None)

    def finished(self, run: Run, done: Done) -> dict[str, bool]:
        """Map each row to whether all of its cells can be computed."""
        covered = self.covered(run, done)
        return {
            row: all(
                pair in covered.get(row_parts(row)[0], {})
                for pairs in self.needed(run.sweep, row).values()
                for pair in pairs
            )
            for row in self.of(run.sweep)
        }

    def missing(self, run: Run, done: Done) -> list[tuple[str, int]]:
        """List the units that are missing: one for each row, and as few as possible where cells are mirrored."""
        covered, sweep = self.covered(run, done), run.sweep
        natural = [row for row in self.of(sweep) if self.mirrored and row_parts(row)[0] == NATURAL]
        units = list(self._mirrored(sweep, natural, covered.get(NATURAL, {}))) if natural else []
        for row in (row for row in self.of(sweep) if row not in natural):
            pairs = covered.get(row_parts(row)[0], {})
            lacking = [
                observer
                for observer, needed in self.needed(sweep, row).items()
                if not all(pair in pairs for pair in needed if observer in pair)
            ]
            if lacking:
                units.append((row, lacking))
        return [(row_unit(row, run.name_cohort(names), sweep.shards), 0) for row, names in units]

    def _mirrored(
        self, sweep: Sweep, natural: Iterable[str], covered: Mapping[Pair, str]
    ) -> Iterator[tuple[str, list[str]]]:
        """Yield rows with the networks they are to be compared with: the row that lacks most first."""
        needed = {pair for row in natural for pairs in self.needed(sweep, row).values() for pair in pairs}
        missing = needed - covered.keys()
        while missing:
            partners = {
                name: [other for other in sweep.columns if not missing.isdisjoint({(name, other), (other, name)})]
                for name in sweep.columns
            }
            name = max(partners, key=lambda name: len(partners[name]))  # of several, the first
            yield f"{NATURAL}/{name}", partners[name]
            missing -= {pair for other in partners[name] for pair in ((name, other), (other, name))}


SUMS = Rows()
"""The rows of `aggregate`."""

CONTROLS = Rows(sums=False, mirrored=False, natural=False)
"""The rows of `control`."""
