"""Settings of a tiny sweep that has every stage, and its computation in this process."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from netsim.planning.resolve import resolve
from netsim.results.stopping import current_look, verdict_at
from netsim.settings import SweepSettings, parse_settings
from netsim.stages.work import compute_unit
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import STAGES, Stage
from netsim.store.sweeps import StoredNetwork, Sweep

TINY: dict[str, Any] = {
    # random weights need no training; vgg is trained, so that every code path runs
    "networks": ["small:vgg", "small:resnet18@none", "small:shufflenet@none"],
    "training": {"epochs": 1, "batch_size": 256},
    "pairs": {"count": 32, "shard_size": 8},
    "inversion": {"iterations": 5, "batch_size": 8},
}


def tiny(**changes: Any) -> SweepSettings:
    """Return the settings of a sweep that takes seconds, with some of them changed."""
    return parse_settings(TINY | changes)


def new_run(url: str, settings: SweepSettings, label: str = "tiny") -> Run:
    """Ask a sweep of the store at `url`, which is made if there is none."""
    return Run.create(url, resolve(settings, url, label=label))


def unlisted(settings: SweepSettings, images: str = "0" * 64) -> Sweep:
    """Return a sweep of images that are not there: their hash is made up, and names stand for networks."""
    networks, observers = (
        tuple(StoredNetwork(member.name, member.reference, member.training, f"of {member.name}") for member in members)
        for members in (settings.members, settings.observing)
    )
    return Sweep("unlisted", settings, images, networks, observers)


def run_all(run: Run, only: Collection[str] = ()) -> dict[str, int]:
    """Compute every missing unit in this process, of every stage or of the stages named in `only`; count them."""
    computed: dict[str, int] = {}
    for stage in STAGES:
        if only and stage.name not in only:
            continue
        units = stage.missing(run)
        stage.prepare(run, units)
        for name, shard in units:
            compute_unit(run, stage, name, shard)
        computed[stage.name] = len(units)
    return computed


def run_looks(run: Run) -> tuple[Run, Counter[str]]:
    """Compute a sweep that stops when its results are known, in this process; return it as it ended, and the counts."""
    counts: Counter[str] = Counter()
    while True:
        look = current_look(run)
        look.ask()
        verdict = verdict_at(look)
        if verdict is not None and verdict.final:
            counts.update(run_all(look))
            return look, +counts
        counts.update(run_all(look, only=[stage.name for stage in STAGES if stage.name not in ("control", "report")]))


def compute_first(run: Run, stage: Stage, goal: str, shard: int) -> Record:
    """Compute the missing unit of a goal, such as ("natural", 0) of `embed`."""
    units = [unit for unit in stage.missing(run) if (stage.goal(unit[0]), unit[1]) == (goal, shard)]
    stage.prepare(run, units)
    (record,) = [compute_unit(run, stage, *unit) for unit in units]
    return record


def unit_of(run: Run, stage: Stage, goal: str, shard: int = 0) -> tuple[str, str, int]:
    """Return the first unit of a goal that is done, as (stage, name, shard)."""
    names = sorted(name for name, number in stage.units_done(run) if (stage.goal(name), number) == (goal, shard))
    return stage.name, names[0], shard
