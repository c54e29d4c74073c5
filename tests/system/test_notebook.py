"""`netsim.run` as a notebook calls it: inside an event loop that runs, interrupted, and with mistakes."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest
import yaml

import netsim
from netsim.errors import RunError, SettingsError
from netsim.store.run import Run
from support.servers import wait_until
from support.sweeps import TINY
from system.test_flow_sweep import SLOW, alive, assert_same_bits, inverted_shards


def test_a_sweep_runs_in_a_running_event_loop_and_again_computes_nothing(server, finished, tmp_path, capsys):
    async def cell():
        return netsim.run(TINY, tmp_path / "run", workers=2)

    with patch.dict(os.environ, server):
        run = asyncio.run(cell())
        assert "Shards inverted: 12 of 12" in capsys.readouterr().out
        stored = Run.open(tmp_path / "run")
        assert_same_bits(stored, finished)
        assert stored.sweep.label == "run" and list(run.networks.index) == ["vgg", "resnet18", "shufflenet"]
        committed = {path: path.read_bytes() for path in (tmp_path / "run" / "commits").rglob("*.json")}
        settings = tmp_path / "run.yaml"
        settings.write_text(yaml.safe_dump(TINY))
        again = netsim.run(settings, tmp_path / "run", quiet=True)
    assert capsys.readouterr().out == ""
    assert {path: path.read_bytes() for path in (tmp_path / "run" / "commits").rglob("*.json")} == committed
    assert again.similarity.equals(run.similarity)


def test_an_interrupt_stops_the_sweep_in_order(server, tmp_path):
    """Only the process of the notebook gets the signal, as from a kernel's interrupt button."""
    store, log = tmp_path / "run", tmp_path / "log"
    code = f"import netsim; netsim.run({SLOW!r}, {str(store)!r}, workers=2)"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", code], env=server, cwd=tmp_path, stdout=output, stderr=output)
    try:
        wait_until(lambda: inverted_shards(store), seconds=300, what=log.read_text)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: process.poll() is not None, seconds=60, what=log.read_text)
    finally:
        process.kill()
    assert len(children) >= 4  # the command, the process that forks its workers, and both of these
    assert "KeyboardInterrupt" in log.read_text()
    wait_until(lambda: not any(alive(child) for child in children), seconds=30)
    assert 0 < len(inverted_shards(store)) < 18


@pytest.mark.parametrize(
    ("settings", "store", "error", "message"),
    [
        (TINY, None, SettingsError, "store must be given with settings that are no file"),
        (TINY | {"pairs": {"count": 3}}, "run", SettingsError, "pairs.count must be"),
        ("none.yaml", None, SettingsError, "none.yaml"),
        (TINY | {"networks": ["small:vgg", "python:no_such_module:net"]}, "run", RunError, "no_such_module"),
    ],
)
def test_a_mistake_is_one_clear_error_and_no_store(server, tmp_path, monkeypatch, settings, store, error, message):
    monkeypatch.chdir(tmp_path)
    with patch.dict(os.environ, server), pytest.raises(error, match=message) as raised:
        netsim.run(settings, store)
    assert "Traceback" not in str(raised.value)
    assert not Path("run").exists()
