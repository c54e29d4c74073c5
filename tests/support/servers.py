"""The command line as a user runs it, and waiting for servers."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

NETSIM = [sys.executable, "-m", "flows.cli"]


def netsim(*arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as a user does."""
    return subprocess.run([*NETSIM, *arguments], env=env, cwd=cwd, capture_output=True, text=True, check=False)


def netsim_in_process(*arguments: str, env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which has imported everything already and so saves seconds.

    Prefect reads its settings once per process, so of them only the address of the server is taken from `env`.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.cli.main import main

    output, errors, code = io.StringIO(), io.StringIO(), 0
    with (
        patch.dict(os.environ, env),
        patch.object(sys, "argv", ["netsim", *arguments]),
        temporary_settings({PREFECT_API_URL: env.get("PREFECT_API_URL")}),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(["netsim", *arguments], code, output.getvalue(), errors.getvalue())


def auth_of(environment: Mapping[str, str]) -> httpx.BasicAuth | None:
    """Return the credentials with which a program with this environment asks the server; None without any."""
    user, _, password = environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
    return httpx.BasicAuth(user, password) if user else None


def healthy(api: str) -> bool:
    """Tell whether a Prefect server answers at this address."""
    try:
        return httpx.get(f"{api}/health", timeout=5, verify=False).json() is True
    except httpx.HTTPError:
        return False


def wait_until(true: Any, *, seconds: float, what: Any = lambda: "") -> None:
    """Call `true` until it is true; fail after `seconds` with the result of `what`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what()}"
        time.sleep(0.25)  # `true` often asks a server, which has work to do
