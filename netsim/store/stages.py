"""What there is to do in a sweep: the stages, and the units of each, as (name, shard). Imports no torch: fast."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from shlex import quote

from netsim.errors import StoreError
from netsim.references import has_photographs
from netsim.settings import SweepSettings
from netsim.store.layout import NATURAL, row_parts, rows, sets
from netsim.store.run import Run

Unit = tuple[str, str, int]
"""Stage, name, shard."""


def called(unit: Unit) -> str:
    """A unit for people: invert vgg shard 3"""
    stage, name, shard = unit
    return f"{stage} {name} shard {shard}"


Needs = Callable[[SweepSettings, str, int], Iterable[Unit]]
"""(settings, name, shard) -> what must be done before."""

MANY = 2000
"""Records of a stage that are listed name by name, at the same time."""


@dataclass(frozen=True)
class Units:
    """The units of a stage. A unit is done when the store has its commit record."""

    stage: str
    says: str  # what is done, for people watching
    shards: Callable[[SweepSettings], dict[str, int]]  # name -> number of shards
    needs: Needs = lambda *_: ()
    gpu: bool = False  # whether it gains from one: the others leave it to somebody else
    pairs: bool = False  # whether a shard of it is a shard of pairs, and not all there is of a name
    resumes: bool = False  # whether a shard goes on where a killed worker left it

    @property
    def more_time(self) -> str:
        """What to do about shards that take longer than a worker lives."""
        return f"give a longer walltime{', or shards of fewer pairs (pairs.shard_size)' if self.pairs else ''}"

    def total(self, settings: SweepSettings) -> int:
        return sum(self.shards(settings).values())

    def done(self, run: Run) -> dict[tuple[str, int], float]:
        """(name, shard) -> time of its commit, of what has a commit record."""
        shards = self.shards(run.settings)
        if not shards:
            return {}
        return run.done(self.stage, list(shards) if sum(shards.values()) > MANY else ())

    def every(self, settings: SweepSettings) -> list[tuple[str, int]]:
        """(name, shard) of all units, in order."""
        return [(name, shard) for name, shards in self.shards(settings).items() for shard in range(shards)]

    def missing(self, run: Run) -> list[tuple[str, int]]:
        """(name, shard) of what has no commit record, in order."""
        done = self.done(run)
        return [unit for unit in self.every(run.settings) if unit not in done]


@dataclass(frozen=True)
class Block:
    """What one task run works through: shards of one name."""

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


def _looks(settings: SweepSettings) -> dict[str, int]:
    return dict.fromkeys(sets(settings), settings.pairs.shards)


def _checked(settings: SweepSettings) -> dict[str, int]:
    """Images that are decoded one by one are looked at before anything is made of them."""
    return {"images": 1} if has_photographs(settings.images.source) else {}


def _needs_of_train(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    return [("check", images, 0) for images in _checked(settings)]


def _needs_of_draw(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    return [("train", settings.names[0], 0)]  # it knows the size of the images


def _needs_of_invert(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    return [("train", name, 0), ("draw", "pairs", shard)]


def _needs_of_embed(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    images = ("draw", "pairs", shard) if name == NATURAL else ("invert", row_parts(name)[1], shard)
    return [images, *(("train", observer, 0) for observer in settings.names)]


def _needs_of_aggregate(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    return [("embed", row_parts(name)[0], k) for k in range(settings.pairs.shards)]


def _needs_of_report(settings: SweepSettings, name: str, shard: int) -> Iterable[Unit]:
    return [("aggregate", row, 0) for row in rows(settings)]


CHECK = Units("check", "Image sets looked at", _checked)
TRAIN = Units("train", "Networks trained or checked", _one_each, _needs_of_train, gpu=True, resumes=True)
DRAW = Units(
    "draw", "Shards of pairs drawn", lambda settings: {"pairs": settings.pairs.shards}, _needs_of_draw, pairs=True
)
INVERT = Units("invert", "Shards inverted", _inversions, _needs_of_invert, gpu=True, pairs=True)
EMBED = Units("embed", "Shards embedded", _looks, _needs_of_embed, gpu=True, pairs=True)
AGGREGATE = Units(
    "aggregate", "Rows of networks compared", lambda settings: dict.fromkeys(rows(settings), 1), _needs_of_aggregate
)
REPORT = Units("report", "Reports written", lambda settings: {"report": 1}, _needs_of_report)

ALL = (CHECK, TRAIN, DRAW, INVERT, EMBED, AGGREGATE, REPORT)


def require_finished(run: Run, stages: Iterable[Units]) -> None:
    """Raises StoreError for the first of these stages that lacks a shard, which it names."""
    for units in stages:
        missing = units.missing(run)
        if missing:
            raise StoreError(
                f"{run.url} is not finished: {len(missing)} of {units.total(run.settings)} shards of {units.stage} "
                f"are missing, the first {called((units.stage, *missing[0]))}; "
                f"`netsim run --store {quote(run.url)}` goes on"
            )


def sources(settings: SweepSettings, unit: Unit) -> list[Unit]:
    """The units whose values a unit is computed from, of any stage. Weights have hashes of their own in records."""
    stage, name, shard = unit
    shards, (_, _, rest) = range(settings.pairs.shards), name.partition("/")
    if stage == "layers":  # <key>/<set>, which looks at images as `embed` does
        return _sources(EMBED.needs(settings, rest, shard))
    if stage == "measure":  # <measure>/<row>, which may hold the set against the natural one
        return [("embed", of, k) for of in dict.fromkeys((NATURAL, row_parts(rest)[0])) for k in shards]
    return _sources(next(units for units in ALL if units.stage == stage).needs(settings, name, shard))


def _sources(needs: Iterable[Unit]) -> list[Unit]:
    return [unit for unit in needs if unit[0] not in ("check", "train")]


def out_of_reach(settings: SweepSettings, without: Iterable[Unit]) -> set[Unit]:
    """The units of a sweep that can't be done while those of `without` are not; they among them."""
    found = set(without)
    for units in ALL if found else ():
        for name, shard in units.every(settings):
            if not found.isdisjoint(units.needs(settings, name, shard)):
                found.add((units.stage, name, shard))
    return found
