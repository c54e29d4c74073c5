"""A sweep that stops when its results are known, by the command line: early, and after a kill with the same answer."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from netsim.settings import parse_settings
from netsim.store.run import Run
from support.faults import kill_group, start
from support.servers import NETSIM, netsim, wait_until
from support.sweeps import TINY, new_run, run_all
from system.test_flow_sweep import assert_same_bits

SETTINGS = TINY | {
    "networks": ["small:vgg@none", "small:resnet18@none", "small:shufflenet@none"],
    "pairs": {"count": 256, "shard_size": 8, "until": {"half_width": 0.05}},
    "inversion": {"iterations": 20, "batch_size": 8},
}


def answer(store: Path, env: dict[str, str]) -> dict[str, Any]:
    """Return the verdict that `netsim results --json` prints."""
    printed = netsim("results", str(store), "--json", env=env, cwd=store.parent)
    assert printed.returncode == 0, printed.stderr
    verdict: dict[str, Any] = json.loads(printed.stdout)["verdict"]
    return verdict


@pytest.mark.timeout(900)
def test_a_sweep_that_is_killed_stops_early_with_the_values_of_a_fixed_sweep(server, tmp_path):
    file, store = tmp_path / "until.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(SETTINGS))
    command = [*NETSIM, "run", str(file), "--store", str(store), "--workers", "1"]
    log = tmp_path / "killed.log"
    process: subprocess.Popen[bytes] = start(command, env=server, cwd=tmp_path, log=log)

    def second_look() -> bool:
        assert process.poll() is None, log.read_text()
        return "look 1;" in log.read_text() and Run.open(str(store)).sweep.shards > 8

    wait_until(second_look, seconds=300, what=log.read_text)
    kill_group(process)
    resumed = netsim("run", "--store", str(store), "--workers", "1", env=server, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr

    stopped = answer(store, server)
    assert (stopped["outcome"], stopped["at_most"]) == ("known", 256)
    assert 64 < stopped["n"] < 256 and stopped["half_width"] <= 0.05
    assert f"after {stopped['n']} of at most 256 pairs, look {stopped['looks']}" in " ".join(resumed.stdout.split())

    fixed = SETTINGS | {"pairs": {"count": stopped["n"], "shard_size": 8}}
    fresh = new_run(str(tmp_path / "fresh"), parse_settings(fixed))
    run_all(fresh)
    assert_same_bits(Run.open(str(store)), fresh)

    again = netsim("run", str(file), "--store", str(store), "--workers", "1", env=server, cwd=tmp_path)
    assert again.returncode == 0 and "nothing to do: the run is complete" in again.stdout
    assert answer(store, server) == stopped
