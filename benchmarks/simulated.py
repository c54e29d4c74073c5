"""Sweeps whose work is known in advance, for benchmarks.orchestration: `python -m benchmarks.simulated --help`.

Their shards do nothing, wait (as a processor waits for a GPU), or are real inversions that record their CPU time.
Everything else is netsim's own: flows, `finish`, task runs, commits.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

from flows.clusters.runner import task_runner
from flows.clusters.settings import Scheduler
from netsim.stages import invert as inverting
from netsim.stages.work import StageResult
from netsim.store.metadata import Metadata
from netsim.store.run import Run
from netsim.store.stages import INVERT, Stage
from netsim.store.sweeps import Sweep
from tasks.dispatch import finish
from tasks.prefect_runs import named_after_store, tracked_runs
from tasks.worker import OPTIONS, run_block

NOTHING, WAIT = "nothing", "wait"


def waiting(seconds: float) -> str:
    """Return the name of shards that wait for this long."""
    return f"{WAIT}/{seconds:g}"


# ---- work


def idle_stage(name: str) -> Stage:
    """Make a stage of all shards of a run that do nothing, or wait as `name` says; their records are real."""

    def shards(sweep: Sweep) -> dict[str, int]:
        return {name: sweep.shards}

    return Stage("simulated", "Shards of a simulated sweep", shards, compute=idle_shard)


def idle_shard(run: Run, name: str, shard: int) -> StageResult:
    """Do nothing, or wait."""
    kind, _, seconds = name.partition("/")
    if kind == WAIT:
        time.sleep(float(seconds))
    return StageResult(metadata=Metadata(began=time.time() - float(seconds or 0)))


def invert_measured(run: Run, name: str, shard: int) -> StageResult:
    """Invert a shard and record the CPU seconds of this thread, the only one that computes (OMP_NUM_THREADS=1)."""
    start = time.thread_time()
    result = inverting.compute(run, name, shard)
    return replace(result, metadata=result.metadata.model_copy(update={"cpu": time.thread_time() - start}))


MEASURED = replace(INVERT, compute=invert_measured)


# ---- task runs


@task(name="simulated", task_run_name="{name}-{shards[0]:05d}", **OPTIONS)
def simulated(store: str, name: str, shards: list[int], sweep: str) -> dict[str, Any]:
    """Compute some shards of a simulated sweep."""
    return run_block(store, idle_stage(name), name, shards, sweep)


@task(name="invert", task_run_name="invert-{name}-{shards[0]:04d}", **OPTIONS)
def invert(store: str, name: str, shards: list[int], sweep: str) -> dict[str, Any]:
    """Compute some inversions and measure them."""
    return run_block(store, MEASURED, name, shards, sweep)


@task(name="burst", task_run_name="burst-{number}")
def nothing_at_all(number: int) -> None:
    """Do nothing: a task run for the server to record."""


# ---- flows


@dataclass
class Spent:
    """CPU and wall-clock seconds of this process from connecting to the workers to settling all task runs."""

    cpu: float
    seconds: float
    began: float


@flow(name="simulated-sweep", flow_run_name=named_after_store("simulated"))
def sweep(store: str, name: str, scheduler: str, shards_per_task: int) -> Spent:
    """Submit what is missing to the workers of a Dask scheduler, as flows.sweep does."""
    with tracked_runs(store), task_runner(Scheduler(address=scheduler)) as runner:
        return stage.with_options(task_runner=runner)(store, name, shards_per_task)


@flow(name="simulated-stage")
def stage(store: str, name: str, shards_per_task: int) -> Spent:
    """Finish a stage; `name` is that of shards that do nothing or wait, or `invert`."""
    cpu, clock, began = time.process_time(), time.perf_counter(), time.time()
    if name == "invert":
        finish(Run.open(store), invert, shards_per_task=shards_per_task, stage=MEASURED)
    else:
        finish(Run.open(store), simulated, shards_per_task=shards_per_task, stage=idle_stage(name))
    return Spent(time.process_time() - cpu, time.perf_counter() - clock, began)


@flow(name="burst", task_runner=ThreadPoolTaskRunner(max_workers=8))
def burst(count: int) -> None:
    """Submit task runs as fast as a flow can."""
    for future in [nothing_at_all.submit(number) for number in range(count)]:
        future.result()


# ---- the same work without Prefect, Dask and commits


def bare(store: str, share: str) -> None:
    """Compute every n-th missing inversion from the k-th on in this process, once STORE.go exists; `share` is k/n."""
    run, (first, step) = Run.open(store), map(int, share.split("/"))
    units = list(INVERT.missing(run))[first::step]
    inverting.compute(run, *units[0])  # everything is imported and loaded now
    Path(f"{store}.ready-{first}").touch()
    while not Path(f"{store}.go").exists():
        time.sleep(0.01)
    cpu, clock, began = time.process_time(), time.perf_counter(), time.time()
    for unit in units:
        inverting.compute(run, *unit)
    report(Spent(time.process_time() - cpu, time.perf_counter() - clock, began))


def report(spent: Spent) -> None:
    """Print the measurements as one line of JSON."""
    print(json.dumps(spent.__dict__), flush=True)


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", help="store of a run, or `burst:COUNT` for COUNT task runs without one")
    parser.add_argument("name", nargs="?", default=NOTHING, help="`nothing`, `wait/SECONDS`, `invert` or `bare/K/N`")
    parser.add_argument("--scheduler", help="address of a Dask scheduler")
    parser.add_argument("--shards-per-task", type=int, default=1)
    options = parser.parse_args()
    if options.store.startswith("burst:"):
        burst(int(options.store.removeprefix("burst:")))
    elif options.name.startswith("bare/"):
        bare(options.store, options.name.removeprefix("bare/"))
    else:
        report(sweep(options.store, options.name, options.scheduler, options.shards_per_task))


if __name__ == "__main__":
    main()
