"""Stores of benchmarks."""

from pathlib import Path

from netsim.networks import load_network, weights_to_bytes
from netsim.planning.resolve import resolve
from netsim.settings import SweepSettings
from netsim.stages.work import work_through
from netsim.store.run import Run
from netsim.store.stages import Stage, blocks


def new_run(url: str, settings: SweepSettings) -> Run:
    """Ask a sweep of the store at `url`, which is made if there is none."""
    return Run.create(url, resolve(settings, url, label="benchmark"))


def finish(run: Run, stage: Stage) -> int:
    """Compute every missing unit of a stage in this process; return their number."""
    units = stage.missing(run)
    stage.prepare(run, units)
    for block in blocks(units, len(units) or 1):
        list(work_through(run, stage, block.name, block.shards))
    return len(units)


def random_weights(folder: Path, rng_seed: int) -> str:
    """Write random weights of the small ResNet-18; return the reference of the network that has them."""
    path = folder / f"resnet18-{rng_seed}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(weights_to_bytes(load_network("small:resnet18@none", rng_seed=rng_seed)))
    return f"small:resnet18@{path.absolute()}"
