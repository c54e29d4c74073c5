"""A short fault campaign, seeded; tests/support/faults.py has the long one, of every kind of fault."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

from typer.testing import CliRunner

from flows.cli.main import app
from netsim.settings import parse_settings
from netsim.store.run import Run
from support.faults import Campaign, PrefectServer, Sweep
from support.sweeps import TINY, run_all

SETTINGS = TINY | {"networks": TINY["networks"][:2], "pairs": {"count": 16, "shard_size": 4}}
KINDS = ["flow killed", "S3 killed", "byte flipped"]


def verify_here(sweep: Sweep, *options: str) -> subprocess.CompletedProcess[str]:
    """`netsim verify` in this process, which has loaded torch already."""
    done = CliRunner().invoke(app, ["verify", sweep.store, "--sample", "0", *options])
    return subprocess.CompletedProcess([], done.exit_code, done.stdout, done.stderr)


def test_killed_cut_off_and_damaged_a_sweep_ends_with_the_same_bits_and_computes_nothing_twice(
    object_storage, tmp_path, monkeypatch
):
    monkeypatch.setattr(Sweep, "verify", verify_here)
    monkeypatch.setattr("faults.WORKERS", 1)
    prefect = PrefectServer(tmp_path / "prefect")
    campaign = Campaign(tmp_path, object_storage, prefect, seed=1, settings=SETTINGS, pause=1)
    reference = campaign.sweep
    try:
        with ThreadPoolExecutor(1) as beside:
            starting = beside.submit(prefect.start)
            run_all(Run.create(reference.store, parse_settings(SETTINGS)))
            starting.result()
        campaign.run(KINDS, reference)
    finally:
        campaign.stop()
        prefect.kill()
    assert campaign.wrong == [] and campaign.bits == 0 and campaign.left_open == []
    assert [fault.kind for fault in campaign.faults] == KINDS and campaign.faults[-1].found == "verify named it"
