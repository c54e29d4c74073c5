"""The sweep on object storage: Dask workers write to a real S3 server, which does not always answer."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import NETSIM, TINY, wait_until
from seaweed import BUCKET, KEYS, SeaweedFS
from test_flow_sweep import assert_same_bits

from netsim.files import Files
from netsim.store import Run
from netsim.verify import verify


@pytest.mark.timeout(600)
def test_on_object_storage_whose_server_is_killed_the_run_ends_with_the_same_bits(
    server, object_storage, finished, tmp_path
):
    """Dask workers write to a real S3 server; it is killed in the middle, and is back after some seconds."""
    store = f"s3://{BUCKET}/{tmp_path.name}"
    with command(server, object_storage, tmp_path, store) as process:
        wait_until(lambda: Run.exists(store) and Run.open(store).done("draw"), seconds=180, what=log_of(tmp_path))
        object_storage.kill()
        time.sleep(4)
        object_storage.start()
        assert process.wait(timeout=240) == 0, log_of(tmp_path)()
    assert_same_bits(Run.open(store), finished)
    said = (tmp_path / "log").read_text()
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in said
    assert verify(Run.open(store)) == []


@pytest.mark.timeout(600)
def test_two_runs_of_the_same_settings_at_once_do_no_harm(server, object_storage, finished, tmp_path):
    """Both end well, with the same bits; a record stays as whoever was first wrote it."""
    store, seen = f"s3://{BUCKET}/{tmp_path.name}", {}
    folders = [tmp_path / "first", tmp_path / "second"]

    def look() -> bool:
        """Every record that is there; whether both have ended."""
        files = Files(store)
        for path in files.below("commits") if Run.exists(store) else ():
            record = files.get(f"commits/{path}")
            assert seen.setdefault(path, record) == record
        return all(process.poll() is not None for process in processes)

    with ExitStack() as stack:
        processes = [
            stack.enter_context(command(server, object_storage, folder, store, workers=1)) for folder in folders
        ]
        wait_until(look, seconds=400, what=lambda: "".join(log_of(folder)() for folder in folders))
    assert [process.returncode for process in processes] == [0, 0], [log_of(folder)() for folder in folders]
    look()
    assert len(seen) == 42
    assert_same_bits(Run.open(store), finished)
    assert verify(Run.open(store)) == []


@contextmanager
def command(
    server: dict[str, str], object_storage: SeaweedFS, folder: Path, store: str, workers: int = 2
) -> Iterator[subprocess.Popen[bytes]]:
    """`netsim run` in `folder`, which ends with the block."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    arguments = [*NETSIM, "run", str(path), "--store", store, "--workers", str(workers)]
    env = server | object_storage.environment
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(arguments, env=env, cwd=folder, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log_of(folder: Path) -> Callable[[], str]:
    return lambda: (folder / "log").read_text()[-3000:]
