"""Settings of a tiny sweep that has every stage, and its computation in this process."""

from collections.abc import Collection
from typing import Any

from netsim.settings import SweepSettings, parse_settings
from netsim.stages.work import compute_unit
from netsim.store.run import Run
from netsim.store.stages import STAGES

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


def run_all(run: Run, only: Collection[str] = ()) -> None:
    """Compute every missing shard in this process, of every stage or of the stages named in `only`."""
    for stage in STAGES:
        if only and stage.name not in only:
            continue
        stage.prepare(run)
        for name, shard in stage.missing(run):
            compute_unit(run, stage, name, shard)
