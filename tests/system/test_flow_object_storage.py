"""Two sweeps at once on object storage; `tests/support/faults.py` has everything else that can happen there."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from netsim.storage.files import Files
from netsim.store.run import Run
from netsim.verify import verify
from support.seaweed import BUCKET, SeaweedFS
from support.servers import NETSIM, wait_until
from support.sweeps import TINY
from system.test_flow_sweep import assert_same_bits


def test_two_runs_of_the_same_settings_at_once_do_no_harm(server, object_storage, finished, tmp_path):
    """Both succeed with the same bits, and each record stays as its first writer wrote it."""
    store, seen = f"s3://{BUCKET}/{tmp_path.name}", {}
    folders = [tmp_path / "first", tmp_path / "second"]

    def poll() -> bool:
        """Read new records, and tell whether both commands have ended."""
        time.sleep(1)
        files = Files(store)
        for path in files.modification_times("commits").keys() - seen.keys():
            seen[path] = files.get(f"commits/{path}")
        return all(process.poll() is not None for process in processes)

    with ExitStack() as stack:
        processes = [stack.enter_context(command(server, object_storage, folder, store)) for folder in folders]
        wait_until(poll, seconds=400, what=lambda: "".join(log_of(folder)() for folder in folders))
    assert [process.returncode for process in processes] == [0, 0], [log_of(folder)() for folder in folders]
    poll()
    assert len(seen) == 49 and all(Files(store).get(f"commits/{path}") == record for path, record in seen.items())
    assert_same_bits(Run.open(store), finished)
    assert verify(Run.open(store)) == []


@contextmanager
def command(
    server: dict[str, str], object_storage: SeaweedFS, folder: Path, store: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `netsim run` in `folder` with one worker during the block."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    arguments = [*NETSIM, "run", str(path), "--store", store, "--workers", "1"]
    env = server | object_storage.environment
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(arguments, env=env, cwd=folder, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log_of(folder: Path) -> Callable[[], str]:
    """Return a function that reads the end of a command's log."""
    return lambda: (folder / "log").read_text()[-3000:]
