"""Every test of this folder runs where each file that it leaves behind is noticed."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("support.fuzz")


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a test in empty folders for the working directory, the home and temporary files; all are empty afterwards."""
    for name in ("work", "home", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETSIM_WEIGHTS", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield
    left = [path for path in tmp_path.rglob("*") if path.parent != tmp_path and "torchinductor" not in path.name]
    assert left == []  # torch makes a folder when its compiler is imported
    assert os.getcwd() == str(tmp_path / "work")
