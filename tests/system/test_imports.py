"""Readers, help texts and the flow process import no torch, which takes seconds and hundreds of megabytes."""

import subprocess
import sys
from pathlib import Path

import pytest

from netsim.store.run import Run

COMMAND = """
import sys
from flows.cli.main import main
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def imports_torch(code: str, *arguments: str, cwd: Path) -> bool:
    """Run code in a process of its own that prints, on its last line, whether it has imported torch."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()[-1] == "True"


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "run --help",
        "plan --help",
        "add --help",
        "score --help",
        "drop --help",
        "verify --help",
        "layers --help",
        "measure",
        "settings",
        "plan demo --quick",
    ],
)
def test_help_and_lists_import_no_torch(command, tmp_path):
    assert not imports_torch(COMMAND, *command.split(), cwd=tmp_path)


@pytest.mark.parametrize("command", ["list", "status", "status --json", "results", "results --json", "report"])
def test_readers_import_no_torch(command, finished: Run, tmp_path):
    name, *options = command.split()
    assert not imports_torch(COMMAND, name, finished.url, *options, cwd=tmp_path)


@pytest.mark.parametrize("module", ["sweep", "grow", "measure", "layers"])
def test_the_flow_process_imports_no_torch(module, tmp_path):
    code = f"import sys, flows.{module}; print('torch' in sys.modules, file=sys.stderr)"
    assert not imports_torch(code, cwd=tmp_path)


def test_an_import_of_torch_would_be_seen(tmp_path):
    assert imports_torch("import sys, torch; print('torch' in sys.modules, file=sys.stderr)", cwd=tmp_path)


def test_a_command_collects_garbage_rarely_and_not_at_exit(tmp_path):
    """Looking at all that was imported took half of the imports, and another second at exit."""
    code = """
import atexit, gc
atexit.register(lambda: print(gc.get_threshold()[0], gc.isenabled(), gc.get_freeze_count() > 10_000))
from flows.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "10000 True True", done.stderr
