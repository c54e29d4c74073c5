"""A short, seeded fault campaign; `tests/support/faults.py` has the long one, with every kind of fault."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

from netsim.settings import parse_settings
from support.faults import Campaign, PrefectServer, Sweep
from support.servers import netsim_in_process
from support.sweeps import TINY, new_run, run_all

SETTINGS = TINY | {"networks": TINY["networks"][:2], "pairs": {"count": 16, "shard_size": 4}}
KINDS = ["flow killed", "S3 killed", "byte flipped"]


def test_a_sweep_that_is_killed_cut_off_and_damaged_ends_with_the_same_bits_and_computes_nothing_twice(
    object_storage, tmp_path, monkeypatch
):
    def verify(sweep: Sweep, *options: str) -> subprocess.CompletedProcess[str]:
        return netsim_in_process("verify", sweep.store, "--sample", "0", *options, env={}, cwd=tmp_path)

    monkeypatch.setattr(Sweep, "verify", verify)
    monkeypatch.setattr("support.faults.WORKERS", 1)
    prefect = PrefectServer(tmp_path / "prefect")
    campaign = Campaign(tmp_path, object_storage, prefect, seed=1, settings=SETTINGS, pause=1)
    reference = campaign.sweep
    try:
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(prefect.start)
            run_all(new_run(reference.store, parse_settings(SETTINGS)))
            starting.result()
        campaign.run(KINDS, reference)
    finally:
        campaign.stop()
        prefect.kill()
    assert campaign.wrong == [] and campaign.bits == 0 and campaign.left_open == []
    assert [fault.kind for fault in campaign.faults] == KINDS and campaign.faults[-1].found == "verify named it"
