"""The stages of a sweep: which units each has, what they need, and which are missing. Imports no torch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from shlex import quote
from typing import Any

from netsim.errors import UnfinishedError
from netsim.storage.concurrency import concurrently
from netsim.store import coverage
from netsim.store.arrays import ArraySpec
from netsim.store.documents import create_arrays
from netsim.store.layout import (
    NATURAL,
    SEED,
    Networks,
    RowUnit,
    aggregate_arrays,
    control_arrays,
    draw_arrays,
    embed_arrays,
    invert_arrays,
    inverted,
    report_arrays,
    row_parts,
    rows,
    sets,
)
from netsim.store.metadata import train_metadata
from netsim.store.run import Run
from netsim.store.sweeps import Sweep

Unit = tuple[str, str, int]
"""Stage, name, shard."""

Done = dict[tuple[str, int], float]
"""Units or goals (name, shard) of a stage that are done, with the time of their commit."""

Needs = Callable[[Sweep, str, int], Iterable[Unit]]
"""(sweep, name, shard) -> the goals that must be reached before."""

MANY_RECORDS = 2000
"""From this many records on, a stage is listed name by name, concurrently."""


def unit_label(unit: Unit) -> str:
    """Spell out a unit for people: ``invert vgg shard 3``."""
    stage, name, shard = unit
    return f"{stage} {name} shard {shard}"


@dataclass(frozen=True)
class Stage:
    """One kind of work: its goals, the units that reach them, what they need, and the arrays they fill.

    A unit is done when the store has its commit record. It is computed by `netsim.stages.<name>.compute`, which is
    imported by those only who compute: a stage itself imports no torch.

    A goal is what a sweep asks for, as in "all representations of shard 3 of a set". In most stages a goal is a unit.
    Where several networks share a goal (`cohorts`), several units may reach it together, each for a cohort: the last
    part of their names. A sweep that finds some of the networks done has one unit for the others.
    """

    name: str
    label: str  # for progress bars
    shards: Callable[[Sweep], dict[str, int]]  # name of a goal -> number of shards
    needs: Needs = lambda *_: ()
    arrays: Callable[[Run, str, Networks], list[ArraySpec]] = lambda *_: []  # of a unit
    gpu: bool = False  # gains from a GPU; other stages leave GPUs alone
    per_pair: bool = False  # a shard is a shard of pairs; otherwise it is all there is of a name
    resumes: bool = False  # a shard continues where a killed worker left it
    compute: Callable[[Run, str, int], Any] | None = None  # default: `compute` of netsim.stages.<name>
    reached: Callable[[Run, Done], Done] | None = None  # the goals that units which are done have reached
    lacking: Callable[[Run, Done], list[tuple[str, int]]] | None = None  # the units that are missing
    used: Callable[[Run, Done], list[tuple[str, int]]] | None = None  # the units that have what the sweep asks for

    @property
    def cohorts(self) -> bool:
        """True if a goal is shared by several networks."""
        return self.reached is not None

    @property
    def time_limit_hint(self) -> str:
        """Advice for shards that take longer than a worker lives."""
        return f"give a longer walltime{', or shards of fewer pairs (pairs.shard_size)' if self.per_pair else ''}"

    def total(self, sweep: Sweep) -> int:
        """Count the goals of a sweep."""
        return sum(self.shards(sweep).values())

    def goal(self, unit: str) -> str:
        """Return the name of the goal of a unit."""
        return unit.rpartition("/")[0] if self.cohorts else unit

    def units_done(self, run: Run) -> Done:
        """Map each unit (name, shard) that has a commit record to the time of its commit, whoever asked for it."""
        shards = self.shards(run.sweep)
        if not shards:
            return {}
        return run.done(self.name, list(shards) if sum(shards.values()) > MANY_RECORDS else ())

    def done(self, run: Run) -> Done:
        """Map each goal (name, shard) of the sweep that is reached to the time when it was."""
        done = self.units_done(run)
        reached = self.reached(run, done) if self.reached else done
        shards = self.shards(run.sweep)
        return {(name, shard): when for (name, shard), when in reached.items() if shard < shards.get(name, 0)}

    def every(self, sweep: Sweep) -> list[tuple[str, int]]:
        """List all goals as (name, shard), in order."""
        return [(name, shard) for name, shards in self.shards(sweep).items() for shard in range(shards)]

    def missing(self, run: Run) -> list[tuple[str, int]]:
        """List the units without a commit record as (name, shard), in order."""
        return self.missing_of(run, self.units_done(run))

    def missing_of(self, run: Run, done: Done) -> list[tuple[str, int]]:
        """List the missing units like `missing`, given those that are done."""
        if self.lacking:
            return self.lacking(run, done)
        return [unit for unit in self.every(run.sweep) if unit not in done]

    def prepare(self, run: Run, units: Iterable[tuple[str, int]]) -> None:
        """Create the arrays that some units fill, and name their cohorts. Call it once, before work fans out."""
        names = list(dict.fromkeys(name for name, _ in units))
        if self.cohorts:
            run.keep_cohorts(name.rpartition("/")[2].partition("-")[0] for name in names)
        create_arrays(run, self.specs(run, names))

    def specs(self, run: Run, names: Sequence[str]) -> list[ArraySpec]:
        """List the arrays that units of these names fill.

        Raises
        ------
        StoreError
            If they depend on networks that are not trained or checked yet.
        """
        dimensions = cache(partial(train_metadata, run))
        specs = [spec for name in names for spec in self.arrays(run, name, dimensions)]
        return list({spec.path: spec for spec in specs}.values())  # cohorts of one set may have networks in common


@dataclass(frozen=True)
class Block:
    """The work of one task run: shards of one name."""

    name: str
    shards: list[int]


def blocks(missing: Iterable[tuple[str, int]], size: int) -> Iterator[Block]:
    """Cut missing (name, shard) units, which are in order, into blocks of at most `size` shards."""
    for name, group in groupby(missing, key=lambda unit: unit[0]):
        shards = [shard for _, shard in group]
        for start in range(0, len(shards), size):
            yield Block(name, shards[start : start + size])


def _one_each(sweep: Sweep) -> dict[str, int]:
    return dict.fromkeys(sweep.columns, 1)


def _inversions(sweep: Sweep) -> dict[str, int]:
    return dict.fromkeys(sweep.names, sweep.shards)


def _embeddings(sweep: Sweep) -> dict[str, int]:
    return dict.fromkeys(sets(sweep), sweep.shards)


def _checked(sweep: Sweep) -> dict[str, int]:
    """Images that are decoded one by one are checked before anything is made of them."""
    return dict.fromkeys(sweep.checked_splits, 1)


def _needs_of_train(sweep: Sweep, name: str, shard: int) -> Iterable[Unit]:
    trained = sweep.network(name).training is not None
    return [("check", split, 0) for split in _checked(sweep) if split == "test" or trained]


def _needs_of_draw(sweep: Sweep, name: str, shard: int) -> Iterable[Unit]:
    return [("train", sweep.names[0], 0)]  # its record has the size of the images


def _needs_of_invert(sweep: Sweep, name: str, shard: int) -> Iterable[Unit]:
    return [("train", name, 0), ("draw", "pairs", shard)]


def _needs_of_embed(sweep: Sweep, name: str, shard: int) -> Iterable[Unit]:
    images = ("draw", "pairs", shard) if name in (NATURAL, SEED) else ("invert", row_parts(name)[1], shard)
    return [images, *(("train", observer, 0) for observer in sweep.columns)]


def _needs_of_aggregate(sweep: Sweep, name: str, shard: int) -> Iterable[Unit]:
    return [("embed", row_parts(name)[0], k) for k in range(sweep.shards)]


def _needs_of_control(sweep: Sweep, name: str, shard: int) -> Iterable[Unit]:
    return [("embed", set_name, k) for set_name in (NATURAL, SEED, name) for k in range(sweep.shards)]


def _needs_of_report(sweep: Sweep, name: str, shard: int) -> Iterable[Unit]:
    controls = [("control", inverted(network), 0) for network in sweep.names]
    return [*(("aggregate", row, 0) for row in rows(sweep)), *controls]


def _embedded(run: Run, done: Done) -> Done:
    """Find the shards of sets that every observer has looked at."""
    every = set(run.sweep.columns)
    return {
        (name, shard): max(done[unit, shard] for unit in units.values())
        for (name, shard), units in coverage.embedded(run, done).items()
        if every <= units.keys()
    }


def _rows_reached(kind: coverage.Rows, run: Run, done: Done) -> Done:
    """Find the rows of which every cell can be computed."""
    times = {RowUnit.parse(unit).row: when for (unit, _), when in sorted(done.items(), key=lambda item: item[1])}
    latest = max(done.values(), default=0.0)
    finished = kind.finished(run, done)
    return {(row, 0): times.get(row, latest) for row in finished if finished[row]}


CHECK = Stage("check", "Image sets looked at", _checked)
TRAIN = Stage("train", "Networks trained or checked", _one_each, _needs_of_train, gpu=True, resumes=True)
DRAW = Stage(
    "draw",
    "Shards of pairs drawn",
    lambda sweep: {"pairs": sweep.shards},
    _needs_of_draw,
    draw_arrays,
    per_pair=True,
)
INVERT = Stage("invert", "Shards inverted", _inversions, _needs_of_invert, invert_arrays, gpu=True, per_pair=True)
EMBED = Stage(
    "embed",
    "Shards embedded",
    _embeddings,
    _needs_of_embed,
    embed_arrays,
    gpu=True,
    per_pair=True,
    reached=_embedded,
    lacking=coverage.missing_embeddings,
    used=coverage.used_embeddings,
)
AGGREGATE = Stage(
    "aggregate",
    "Rows of networks compared",
    lambda sweep: dict.fromkeys(rows(sweep), 1),
    _needs_of_aggregate,
    lambda run, unit, _: aggregate_arrays(unit, coverage.SUMS.of_unit(run, unit)),
    reached=partial(_rows_reached, coverage.SUMS),
    lacking=coverage.SUMS.missing,
    used=coverage.SUMS.used,
)
CONTROL = Stage(
    "control",
    "Rows controlled for seeds",
    lambda sweep: dict.fromkeys(map(inverted, sweep.names), 1),
    _needs_of_control,
    lambda run, unit, _: control_arrays(unit, coverage.CONTROLS.of_unit(run, unit)),
    reached=partial(_rows_reached, coverage.CONTROLS),
    lacking=coverage.CONTROLS.missing,
    used=coverage.CONTROLS.used,
)
REPORT = Stage("report", "Reports written", lambda sweep: {sweep.id: 1}, _needs_of_report, report_arrays)

STAGES = (CHECK, TRAIN, DRAW, INVERT, EMBED, AGGREGATE, CONTROL, REPORT)
"""The stages of a sweep, in order."""


def require_finished(run: Run, stages: Iterable[Stage]) -> list[Unit]:
    """List the units that have what the sweep asks of some stages.

    Raises
    ------
    UnfinishedError
        For the first of these stages that lacks a unit; the message names it.
    """
    stages = list(stages)
    units: list[Unit] = []
    for stage, done in zip(stages, concurrently(lambda stage: stage.units_done(run), stages), strict=True):
        missing = stage.missing_of(run, done)
        if missing:
            name, shard = missing[0]
            raise UnfinishedError(
                f"{run.url} is not finished: {len(missing)} of {stage.total(run.sweep)} shards of {stage.name} "
                f"are missing, the first {unit_label((stage.name, stage.goal(name), shard))}; "
                f"resume with `netsim run --store {quote(run.url)}`"
            )
        used = stage.used(run, done) if stage.used else stage.every(run.sweep)
        units += [(stage.name, *unit) for unit in used]
    return units


def blocked_goals(sweep: Sweep, failed: Iterable[Unit]) -> set[Unit]:
    """List the goals that failed units block, directly or indirectly, including their own."""
    by_name = {stage.name: stage for stage in STAGES}
    blocked = {(stage, by_name[stage].goal(name) if stage in by_name else name, shard) for stage, name, shard in failed}
    for stage in STAGES if blocked else ():
        for name, shard in stage.every(sweep):
            if not blocked.isdisjoint(stage.needs(sweep, name, shard)):
                blocked.add((stage.name, name, shard))
    return blocked
