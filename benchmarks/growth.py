"""The price of growth: CPU seconds of what is new, against a fresh run of everything: `make bench BENCH=growth`.

The nine architectures of the demo are run; a tenth network is added, which is compared with a fresh run of all ten; the
pairs are doubled, which is compared with a fresh run of the double; and a network that only looks is scored. Takes
about half an hour on two cores.
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

from benchmarks.usage import adopt_orphans, reap_orphans, so_far
from netsim.settings import shipped_settings
from netsim.store.run import Run
from netsim.store.stages import STAGES

TENTH = "small:resnet18@none"
SEEN = "seen=small:vgg@none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=shipped_settings("demo").pairs.count, help="pairs of the nine")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    count, double = f"pairs.count={arguments.pairs}", f"pairs.count={2 * arguments.pairs}"
    nine_networks = f"networks=[{demo_architectures()}]"
    ten_networks = f'networks=[{demo_architectures()}, "tenth={TENTH}"]'
    adopt_orphans()
    with tempfile.TemporaryDirectory() as folder:
        run = _Command(Path(folder), arguments.workers)
        nine = run("nine", "run", "demo", "--set", count, "--set", nine_networks)
        before = _records(f"{folder}/nine")
        score = run("nine", "score", SEEN, store_first=True)
        added = run("nine", "add", f"tenth={TENTH}", store_first=True)
        again = _again(f"{folder}/nine", before)
        fresh_ten = run("ten", "run", "demo", "--set", count, "--set", ten_networks)
        run("double", "run", "demo", "--set", count, "--set", nine_networks)
        extended = run("double", "extend", "--pairs", str(2 * arguments.pairs), store_first=True)
        fresh_double = run("fresh-double", "run", "demo", "--set", double, "--set", nine_networks)
    table = Table("", "CPU s", "fresh run, CPU s", "share", title=f"{arguments.pairs} pairs, demo settings")
    for name, grown, fresh in (
        ("add a tenth network", added, fresh_ten),
        ("double the pairs", extended, fresh_double),
        ("score a network", score, nine),
    ):
        table.add_row(name, f"{grown:.1f}", f"{fresh:.1f}", f"{grown / fresh:.1%}")
    table.caption = f"{again} finished units computed again by adding"
    Console().print(table)


def demo_architectures() -> str:
    """List the networks of the demo, without those that repeat an architecture, as YAML."""
    members = [member for member in shipped_settings("demo").members if member.group == member.name]
    return ", ".join(f'"{member.reference}"' for member in members)


class _Command:
    """Run the command line in a process of its own, with a Prefect home of its own; return its CPU seconds."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder, self._workers = folder, workers
        self._environment = os.environ | {"PREFECT_HOME": str(folder / "prefect"), "OMP_NUM_THREADS": "1"}

    def __call__(self, store: str, verb: str, *arguments: str, store_first: bool = False) -> float:
        place = [str(self._folder / store)] if store_first else ["--store", str(self._folder / store)]
        words = [*place, *arguments] if store_first else [*arguments, *place]
        workers = [] if verb == "score" else ["--workers", str(self._workers)]
        before, began = so_far(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "flows.cli", verb, *words, *workers],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        reap_orphans()
        cpu = (so_far(resource.RUSAGE_CHILDREN) - before).cpu
        print(f"{verb} {store}: {cpu:.1f} s of CPU, {time.monotonic() - began:.0f} s", flush=True)
        return cpu


def _records(store: str) -> dict[tuple[str, str, int], str]:
    """Map each unit that is done to its record's content."""
    run = Run.open(store)
    units = [(stage.name, *unit) for stage in STAGES for unit in stage.units_done(run)]
    return {unit: record.committed + record.process for unit, record in run.records_of(units).items()}


def _again(store: str, before: dict[tuple[str, str, int], str]) -> int:
    """Count the units that were done before and have another record now."""
    after = _records(store)
    return sum(after.get(unit) != record for unit, record in before.items() if unit[0] != "report")


if __name__ == "__main__":
    main()
