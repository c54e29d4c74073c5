"""The work of a sweep in shards: what its store has, and what is missing and why. Builds and measures no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from netsim.planning.reasons import reasons
from netsim.planning.resolve import Known, resolve
from netsim.results.stopping import last_look
from netsim.settings import SweepSettings
from netsim.storage.concurrency import concurrently
from netsim.store.run import Run
from netsim.store.stages import STAGES, Stage, blocks
from netsim.store.sweeps import Sweep


@dataclass(frozen=True)
class StageCount:
    """The missing shards of one stage.

    Attributes
    ----------
    stage
        Name of the stage.
    kept
        Number of shards that the store has.
    shards, tasks
        Number of missing shards, and of the task runs that they are grouped into.
    reasons
        Why they are missing.
    """

    stage: str
    kept: int
    shards: int
    tasks: int
    reasons: tuple[str, ...]


def count_work(settings: SweepSettings, store: str, *, shards_per_task: Mapping[str, int]) -> list[StageCount]:
    """Count the shards of each stage of a sweep. Nothing is computed or stored.

    Parameters
    ----------
    settings
        The sweep.
    store
        Where its run is or would be.
    shards_per_task
        Shards per task run, by name of the stage; 1 for stages that are not in it.

    Raises
    ------
    NetsimError
        For images or networks that do not exist, or a store of another run. Whether they fit together is not checked.
    """
    run, known = last_look(seen_by(store, resolve(settings, store))), Known.at(store)
    return [
        count_stage(run, known, stage, missing, shards_per_task.get(stage.name, 1))
        for stage, missing in missing_units(run).items()
    ]


def seen_by(store: str, sweep: Sweep) -> Run:
    """Return the store at `store` as a sweep sees it, whether it exists or not.

    Raises
    ------
    StoreError
        If it exists and has another protocol.
    """
    protocol = sweep.protocol
    if Run.exists(store):
        run = Run.at(store, sweep)
        run.require(protocol)
        return run
    return Run(store, {"digest": protocol.digest(), "protocol": protocol.model_dump(mode="json")}, sweep)


def missing_units(run: Run) -> dict[Stage, list[tuple[str, int]]]:
    """List the missing shards of every stage, in the order of the stages."""
    return dict(zip(STAGES, concurrently(lambda stage: list(stage.missing(run)), STAGES), strict=True))


def count_stage(
    run: Run, known: Known, stage: Stage, missing: Sequence[tuple[str, int]], shards_per_task: int
) -> StageCount:
    """Count the missing shards of one stage."""
    return StageCount(
        stage=stage.name,
        kept=len(stage.used(run, stage.units_done(run)) if stage.used else stage.done(run)),
        shards=len(missing),
        tasks=len(list(blocks(missing, shards_per_task))),
        reasons=tuple(reasons(run, known, stage, missing)),
    )
