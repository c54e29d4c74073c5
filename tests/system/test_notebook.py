"""`netsim.run` as a notebook calls it: inside an event loop that runs, interrupted, and with mistakes."""

import asyncio
import os
import queue
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
import psutil
import pytest
import yaml
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

import netsim
from netsim.errors import RunError, SettingsError
from netsim.store.run import Run
from support import notebooks
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


@pytest.fixture
def kernel(server, tmp_path) -> Iterator[BlockingKernelClient]:
    """A real kernel, as Jupyter starts it."""
    manager, client = start_new_kernel(kernel_name="python3", env=server, cwd=tmp_path)
    try:
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_kernel_draws_bars_in_one_output_and_its_interrupt_stops_the_sweep_which_the_same_call_resumes(
    kernel, tmp_path
):
    store = tmp_path / "run"
    settings = SLOW | {"networks": ["small:wrn2@none", "small:resnet18@none"]}
    settings |= {"inversion": {"iterations": 150, "batch_size": 8}}
    call = f"import netsim; run = netsim.run({settings!r}, {str(store)!r}, workers=2)"
    request = kernel.execute(call)
    wait_until(lambda: inverted_shards(store), seconds=300, what=lambda: outputs(kernel, request))
    children = psutil.Process(kernel.parent.provisioner.pid).children(recursive=True)
    kernel.parent.interrupt_kernel()
    reply = kernel.get_shell_msg(timeout=60)["content"]
    assert reply["ename"] == "KeyboardInterrupt"
    assert re.search(
        r"^stopped\. Done: train 2/2, draw 6/6, invert \d+/12, .*\. Call netsim\.run .* to resume$", reply["evalue"]
    )
    assert len(children) >= 4  # the command, the process that forks its workers, and both of these
    wait_until(lambda: not any(alive(child) for child in children), seconds=30)
    assert 0 < len(inverted_shards(store)) < 12
    request = kernel.execute(f"{call}; run.similarity.sizes['through']")
    assert kernel.get_shell_msg(timeout=300)["content"]["status"] == "ok"
    first, *others, result = outputs(kernel, request)
    assert result["content"]["data"]["text/plain"] == "2"
    assert first["msg_type"] == "display_data" and {other["msg_type"] for other in others} == {"update_display_data"}
    assert {other["content"]["transient"]["display_id"] for other in others} == {
        first["content"]["transient"]["display_id"]
    }
    shown = others[-1]["content"]["data"]
    assert len(re.findall(r" (\d+)/\1 ", shown["text/plain"])) == len(shown["text/plain"].splitlines()) == 7
    assert "Shards inverted" in shown["text/html"] and "<span style" in shown["text/html"]


def outputs(kernel: BlockingKernelClient, request: str) -> list[dict[str, Any]]:
    """Return what a request has shown until the kernel is idle, or all until now."""
    shown = []
    with suppress(queue.Empty):
        while True:
            message = kernel.get_iopub_msg(timeout=1)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["content"].get("execution_state") == "idle":
                break
            if message["msg_type"] not in ("status", "execute_input"):
                shown.append(message)
    return shown


@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_of_the_documentation_shows_what_is_stored_with_it(server, path):
    stored = nbformat.read(path, as_version=4)
    assert notebooks.shown(notebooks.run(path, server)) == notebooks.shown(stored), "run `make notebooks`"
    assert not re.search(r"/(home|root|tmp|Users|work)/", path.read_text(encoding="utf-8"))


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
