"""Programs under test: the command line as a user runs it, and waiting for servers."""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx


def auth_of(environment: Mapping[str, str]) -> httpx.BasicAuth | None:
    """What a program with this environment shows a server, if it has anything to show."""
    user, _, password = environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
    return httpx.BasicAuth(user, password) if user else None


def healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5, verify=False).json() is True
    except httpx.HTTPError:
        return False


def wait_until(true: Any, *, seconds: float, what: Any = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what()}"
        time.sleep(0.25)  # what is asked is often a server, which has work to do


NETSIM = [sys.executable, "-m", "flows.cli"]


def netsim(*arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run([*NETSIM, *arguments], env=env, cwd=cwd, capture_output=True, text=True, check=False)
