"""The stages of a sweep: which units each has, what they need, and which are missing. Imports no torch."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from shlex import quote
from typing import Any

from netsim.errors import StoreError
from netsim.references import has_photographs
from netsim.settings import SweepSettings
from netsim.storage.concurrency import concurrently
from netsim.store.arrays import ArraySpec
from netsim.store.documents import create_arrays
from netsim.store.layout import (
    NATURAL,
    Networks,
    aggregate_arrays,
    draw_arrays,
    embed_arrays,
    invert_arrays,
    report_arrays,
    row_parts,
    rows,
    sets,
)
from netsim.store.metadata import train_metadata
from netsim.store.run import Run

Unit = tuple[str, str, int]
"""Stage, name, shard."""

Needs = Callable[[SweepSettings, str, int], Iterable[Unit]]
"""(settings, name, shard) -> the units that must be done before."""

MANY_RECORDS = 2000
"""From this many records on, a stage is listed name by name, concurrently."""


def unit_label(unit: Unit) -> str:
    """Spell out a unit for people: ``invert vgg shard 3``."""
    stage, name, shard = unit
    return f"{stage} {name} shard {shard}"


@dataclass(frozen=True)
class Stage:
    """One kind of work: its units, what they need, and the arrays they fill.

    A unit is done when the store has its commit record. It is computed by `netsim.stages.<name>.compute`, which is
    imported by those only who compute: a stage itself imports no torch.
    """

    name: str
    label: str  # for progress bars
    shards: Callable[[SweepSettings], dict[str, int]]  # name -> number of shards
    needs: Needs = lambda *_: ()
    arrays: Callable[[SweepSettings, Networks], list[ArraySpec]] = lambda *_: []
    gpu: bool = False  # gains from a GPU; other stages leave GPUs alone
    per_pair: bool = False  # a shard is a shard of pairs; otherwise it is all there is of a name
    resumes: bool = False  # a shard continues where a killed worker left it
    compute: Callable[[Run, str, int], Any] | None = None  # default: `compute` of netsim.stages.<name>

    @property
    def time_limit_hint(self) -> str:
        """Advice for shards that take longer than a worker lives."""
        return f"give a longer walltime{', or shards of fewer pairs (pairs.shard_size)' if self.per_pair else ''}"

    def total(self, settings: SweepSettings) -> int:
        """Count the units of a sweep."""
        return sum(self.shards(settings).values())

    def done(self, run: Run) -> dict[tuple[str, int], float]:
        """Map each (name, shard) that has a commit record to the time of its commit."""
        shards = self.shards(run.settings)
        if not shards:
            return {}
        return run.done(self.name, list(shards) if sum(shards.values()) > MANY_RECORDS else ())

    def every(self, settings: SweepSettings) -> list[tuple[str, int]]:
        """List all units as (name, shard), in order."""
        return [(name, shard) for name, shards in self.shards(settings).items() for shard in range(shards)]

    def missing(self, run: Run) -> list[tuple[str, int]]:
        """List the units without a commit record as (name, shard), in order."""
        done = self.done(run)
        return [unit for unit in self.every(run.settings) if unit not in done]

    def prepare(self, run: Run) -> None:
        """Create the arrays that this stage fills. Call it once, before work fans out."""
        create_arrays(run, self.specs(run))

    def specs(self, run: Run) -> list[ArraySpec]:
        """List the arrays that this stage fills.

        Raises
        ------
        StoreError
            If they depend on networks that are not trained or checked yet.
        """
        return self.arrays(run.settings, partial(train_metadata, run))


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


def _one_each(settings: SweepSettings) -> dict[str, int]:
    return dict.fromkeys(settings.names, 1)


def _inversions(settings: SweepSettings) -> dict[str, int]:
    return dict.fromkeys(settings.names, settings.pairs.shards)


def _embeddings(settings: SweepSettings) -> dict[str, int]:
    return dict.fromkeys(sets(settings), settings.pairs.shards)


def _checked(settings: SweepSettings) -> dict[str, int]:
    """Images that are decoded one by one are checked before anything is made of them."""
    return {"images": 1} if has_photographs(settings.images.source) else {}


def _needs_of_train(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    return [("check", images, 0) for images in _checked(settings)]


def _needs_of_draw(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    return [("train", settings.names[0], 0)]  # its record has the size of the images


def _needs_of_invert(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    return [("train", name, 0), ("draw", "pairs", shard)]


def _needs_of_embed(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    images = ("draw", "pairs", shard) if name == NATURAL else ("invert", row_parts(name)[1], shard)
    return [images, *(("train", observer, 0) for observer in settings.names)]


def _needs_of_aggregate(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    return [("embed", row_parts(name)[0], k) for k in range(settings.pairs.shards)]


def _needs_of_report(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    return [("aggregate", row, 0) for row in rows(settings)]


CHECK = Stage("check", "Image sets looked at", _checked)
TRAIN = Stage("train", "Networks trained or checked", _one_each, _needs_of_train, gpu=True, resumes=True)
DRAW = Stage(
    "draw",
    "Shards of pairs drawn",
    lambda settings: {"pairs": settings.pairs.shards},
    _needs_of_draw,
    draw_arrays,
    per_pair=True,
)
INVERT = Stage("invert", "Shards inverted", _inversions, _needs_of_invert, invert_arrays, gpu=True, per_pair=True)
EMBED = Stage("embed", "Shards embedded", _embeddings, _needs_of_embed, embed_arrays, gpu=True, per_pair=True)
AGGREGATE = Stage(
    "aggregate",
    "Rows of networks compared",
    lambda settings: dict.fromkeys(rows(settings), 1),
    _needs_of_aggregate,
    aggregate_arrays,
)
REPORT = Stage("report", "Reports written", lambda settings: {"report": 1}, _needs_of_report, report_arrays)

STAGES = (CHECK, TRAIN, DRAW, INVERT, EMBED, AGGREGATE, REPORT)
"""The stages of a sweep, in order."""


def require_finished(run: Run, stages: Iterable[Stage]) -> None:
    """Raise StoreError for the first of these stages that lacks a unit; the message names it."""
    stages = list(stages)
    for stage, missing in zip(stages, concurrently(lambda stage: stage.missing(run), stages), strict=True):
        if missing:
            raise StoreError(
                f"{run.url} is not finished: {len(missing)} of {stage.total(run.settings)} shards of {stage.name} "
                f"are missing, the first {unit_label((stage.name, *missing[0]))}; "
                f"resume with `netsim run --store {quote(run.url)}`"
            )


def dependencies(settings: SweepSettings, unit: Unit) -> list[Unit]:
    """List the units whose values a unit of any stage is computed from. Weights have their own hashes in records."""
    stage, name, shard = unit
    shards, (_, _, rest) = range(settings.pairs.shards), name.partition("/")
    if stage == "layers":  # <key>/<set>, which represents images as `embed` does
        return _computed_from(EMBED.needs(settings, rest, shard))
    if stage == "measure":  # <measure>/<row>, which may compare the set with the natural one
        return [("embed", name, k) for name in dict.fromkeys((NATURAL, row_parts(rest)[0])) for k in shards]
    return _computed_from(next(known for known in STAGES if known.name == stage).needs(settings, name, shard))


def _computed_from(needs: Iterable[Unit]) -> list[Unit]:
    return [unit for unit in needs if unit[0] not in ("check", "train")]


def blocked_units(settings: SweepSettings, failed: Iterable[Unit]) -> set[Unit]:
    """List the units that `failed` blocks, directly or indirectly, including `failed` itself."""
    blocked = set(failed)
    for stage in STAGES if blocked else ():
        for name, shard in stage.every(settings):
            if not blocked.isdisjoint(stage.needs(settings, name, shard)):
                blocked.add((stage.name, name, shard))
    return blocked
