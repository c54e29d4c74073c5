"""What `netsim run` takes to find that nothing is left to do: `make bench BENCH=idle`.

A sweep of the demo's nine architectures, one step per image and 4 pairs per shard, has about 10,000 shards; computing
them takes a quarter of an hour on two cores. Then its command runs again, several times, in a process of its own. With
--store, a finished run is timed instead, which may lie in object storage.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.growth import demo_architectures
from benchmarks.usage import Usage, so_far
from netsim.store.run import Run
from netsim.store.stages import STAGES

NETSIM = [sys.executable, "-m", "flows.cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="a finished run, instead of one that is made")
    parser.add_argument("--pairs", type=int, default=1912, help="pairs of the run that is made")
    parser.add_argument("--runs", type=int, default=5, help="times the command is run again")
    arguments = parser.parse_args()
    if arguments.store:
        _report(arguments.store, arguments.runs)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFECT_HOME"] = str(Path(folder, "prefect"))
        store = str(Path(folder, "store"))
        changes = [
            f"pairs.count={arguments.pairs}",
            "pairs.shard_size=4",
            "inversion.iterations=1",
            "training.epochs=1",
        ]
        options = [word for change in (*changes, f"networks=[{demo_architectures()}]") for word in ("--set", change)]
        subprocess.run([*NETSIM, "run", "demo", "--store", store, "--shards-per-task", "80", *options], check=True)
        _report(store, arguments.runs)


def _report(store: str, runs: int) -> None:
    run = Run.open(store)
    units = sum(len(stage.units_done(run)) for stage in STAGES)
    table = Table("", "wall s", "user s", "system s", title=f"nothing to do: {units:,} units are done")
    for number in range(1, runs + 1):
        wall, used = _again(store)
        table.add_row(f"run {number}", f"{wall:.1f}", f"{used.user:.1f}", f"{used.system:.1f}")
    Console().print(table)


def _again(store: str) -> tuple[float, Usage]:
    """Run the command once more; return its wall time, and what it used."""
    before, began = so_far(resource.RUSAGE_CHILDREN), time.monotonic()
    answer = subprocess.run([*NETSIM, "run", "--store", store], stdout=subprocess.PIPE, text=True, check=True).stdout
    wall = time.monotonic() - began
    if "nothing to do" not in answer:
        raise SystemExit(f"{store} was not finished")
    return wall, so_far(resource.RUSAGE_CHILDREN) - before


if __name__ == "__main__":
    main()
