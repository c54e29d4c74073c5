"""The sweep on object storage: Dask workers write to a real S3 server, which does not always answer."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import NETSIM, TINY, wait_until
from seaweed import BUCKET, KEYS
from test_flow_sweep import assert_same_bits

from netsim.store import Run
from netsim.verify import verify


@pytest.mark.timeout(600)
def test_on_object_storage_whose_server_is_killed_the_run_ends_with_the_same_bits(
    server, object_storage, finished, tmp_path
):
    """Dask workers write to a real S3 server; it is killed in the middle, and is back after some seconds."""
    path, store = tmp_path / "tiny.yaml", f"s3://{BUCKET}/{tmp_path.name}"
    path.write_text(yaml.safe_dump(TINY))
    command = [*NETSIM, "run", str(path), "--store", store, "--workers", "2"]
    env = server | object_storage.environment
    with (tmp_path / "log").open("wb") as output:
        process = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=output, stderr=output)
    try:
        wait_until(lambda: Run.exists(store) and Run.open(store).done("draw"), seconds=180, what=log_of(tmp_path))
        object_storage.kill()
        time.sleep(4)
        object_storage.start()
        assert process.wait(timeout=240) == 0, log_of(tmp_path)()
    finally:
        process.kill()
    assert_same_bits(Run.open(store), finished)
    said = (tmp_path / "log").read_text()
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in said
    assert verify(Run.open(store)) == []


def log_of(folder: Path) -> Callable[[], str]:
    return lambda: (folder / "log").read_text()[-3000:]
