"""Stores that grow by the command line, killed in the middle: only what is new is computed, and nothing is lost."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from netsim.settings import parse_settings
from netsim.storage.files import Files
from netsim.store.run import Run
from netsim.verify import verify
from support.faults import kill_group, start
from support.seaweed import BUCKET
from support.servers import NETSIM, netsim_in_process, wait_until
from support.sweeps import TINY, new_run, run_all
from system.test_flow_sweep import assert_same_bits

NETWORKS = ["small:resnet18@none", "small:shufflenet@none"]

SETTINGS = TINY | {
    "networks": NETWORKS,
    "pairs": {"count": 32, "shard_size": 8},
    "inversion": {"iterations": 60, "batch_size": 8},
}
"""Settings of a sweep of two networks that takes long enough to be caught in the middle of its inversions."""

ADDED = {"vgg": "small:vgg", "wrn2": "small:wrn2@none"}
"""Networks to add: one is trained first."""


class Commands:
    """`netsim run` in a folder, as a user calls it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, dict(environment)
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, settings: Mapping[str, Any], store: str, workers: int) -> subprocess.Popen[bytes]:
        """Start it with the settings file `<name>.yaml`, in its own process group, as a terminal does."""
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(dict(settings)))
        command = [*NETSIM, "run", f"{name}.yaml", "--store", store, "--workers", str(workers)]
        log = self.folder / f"{name}.log"
        self._started.append(start(command, env=self.environment, cwd=self.folder, log=log))
        return self._started[-1]

    def log(self, name: str) -> str:
        """Return the end of what it has printed."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")[-3000:]

    def end(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for its success."""
        assert process.wait(timeout=400) == 0, self.log(name)

    def kill_while_inverting(
        self, name: str, process: subprocess.Popen[bytes], store: str, before: set[tuple[str, int]]
    ) -> None:
        """Kill it with its workers, with SIGKILL, once it has committed another inversion than those of `before`.

        New shards of the first two networks are the work of the sweep that doubles the pairs.
        """
        networks = {name} if name == "vgg" else {name, "resnet18", "shufflenet"}
        mine = {unit for unit in before if unit[0] in networks}

        def more() -> bool:
            assert process.poll() is None, self.log(name)
            return inversions(store, networks) > mine

        wait_until(more, seconds=300, what=lambda: self.log(name))
        kill_group(process)

    def results(self, store: str) -> dict[str, Any]:
        """Return what `netsim results --json` prints, without provenance."""
        printed = netsim_in_process("results", store, "--json", env=self.environment, cwd=self.folder)
        assert printed.returncode == 0, printed.stderr
        return {key: value for key, value in json.loads(printed.stdout).items() if key != "provenance"}

    def stop(self) -> None:
        """Kill every process that is left."""
        for process in self._started:
            kill_group(process)


@pytest.fixture
def commands(server: dict[str, str], object_storage: Any, tmp_path: Path) -> Iterator[Commands]:
    """Commands that know both servers."""
    commands = Commands(tmp_path, server | object_storage.environment)
    yield commands
    commands.stop()


def inversions(store: str, networks: set[str]) -> set[tuple[str, int]]:
    """List the committed inversions of some networks."""
    files = Files(store)
    paths = files.modification_times("commits/invert") if files.exists("zarr.json") else {}
    units = {path.partition("/")[::2] for path in paths}
    return {(name, int(file.removesuffix(".json"))) for name, file in units if name in networks}


def records(store: str) -> dict[str, bytes]:
    """Read all commit records."""
    files = Files(store)
    contents: dict[str, bytes] = files.get_all([f"commits/{path}" for path in files.modification_times("commits")])
    return contents


def count_by_stage(paths: set[str]) -> Counter[str]:
    """Count commit records by their stage."""
    return Counter(path.split("/")[1] for path in paths)


def computed(store: str, settings: Mapping[str, Any]) -> Run:
    """Compute what a store lacks of a sweep, in this process and without a flow: the test is of other commands."""
    run = new_run(store, parse_settings(dict(settings)))
    run_all(run)
    return run


@pytest.mark.timeout(900)
def test_two_sweeps_that_grow_a_store_at_once_and_are_killed_lose_nothing_and_compute_only_what_is_new(
    commands, tmp_path
):
    """One adds a network, the other a network and twice the pairs, to a store of two on object storage.

    Each is killed once, with SIGKILL; the same commands again. A sweep of everything then has only what the two sweeps
    have not compared. The store equals one that was asked for everything at once.
    """
    store = f"s3://{BUCKET}/{tmp_path.name}"
    computed(store, SETTINGS)
    first, before = records(store), inversions(store, {"resnet18", "shufflenet"})
    assert count_by_stage(set(first)) == {
        "train": 2, "draw": 4, "invert": 8, "embed": 16, "aggregate": 4, "control": 2, "report": 1,
    }  # fmt: skip

    sweeps = {name: SETTINGS | {"networks": [*NETWORKS, reference]} for name, reference in ADDED.items()}
    sweeps["wrn2"] |= {"pairs": {"count": 64, "shard_size": 8}}
    processes = {name: commands.start(name, sweep, store, workers=1) for name, sweep in sweeps.items()}
    with ThreadPoolExecutor() as pool:  # either may be the first to invert
        kills = [pool.submit(commands.kill_while_inverting, *item, store, before) for item in processes.items()]
    assert [kill.result() for kill in kills] == [None, None]
    at_death = records(store)
    assert 0 < len(inversions(store, {"vgg"})) < 4
    assert 0 < len(inversions(store, {"wrn2", "resnet18", "shufflenet"}) - before) < 16
    processes = {name: commands.start(name, sweep, store, workers=1) for name, sweep in sweeps.items()}
    for name, process in processes.items():
        commands.end(name, process)

    both = records(store)
    assert first.items() <= at_death.items() <= both.items()  # a record that exists is never written again
    of_vgg = Counter({"train": 1, "invert": 4, "embed": (4 + 1) * 4, "aggregate": 3 + 1, "control": 2 + 1, "report": 1})
    # on old shards as vgg; on new ones all three; all rows over twice the shards
    of_wrn2 = Counter(
        {
            "train": 1, "draw": 4, "invert": 4 + 3 * 4, "embed": (4 + 1) * 4 + 5 * 4, "aggregate": 3 + 3, "control": 3,
            "report": 1,
        }
    )  # fmt: skip
    assert count_by_stage(both.keys() - first.keys()) == of_vgg + of_wrn2

    everything = sweeps["wrn2"] | {"networks": [*NETWORKS, *ADDED.values()]}
    computed(store, everything)
    assert both.items() <= records(store).items()
    once = computed(str(tmp_path / "fresh"), everything)
    assert_same_bits(Run.open(store), once)
    assert commands.results(store) == commands.results(once.url)
    assert verify(Run.open(store)) == []
