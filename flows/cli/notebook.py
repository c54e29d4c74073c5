"""`netsim.run`: the command `netsim run` for Python and notebooks, in a process of its own.

Prefect and Dask want a main thread with signals, settings from the environment, and no event loop that runs already. A
notebook has none of these, and its user's logging, event loop and Prefect profile are not ours to change. So the sweep
runs as it does in a terminal, and this process only looks at its store.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import IO, Any

import yaml

from flows.cli import console
from netsim.errors import RunError, SettingsError, StoreError
from netsim.opened import OpenRun, open_run
from netsim.settings import SweepSettings, locate, parse_settings, read_settings
from netsim.store.run import Run
from netsim.store.status import progress_line

COMMAND = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from flows.cli.main import main; main()"
"""The command line, deaf to the Ctrl-C that its caller gets, too: the caller tells it to stop."""

POLL = 0.5
"""Seconds between two looks for the store, and at the end of the command."""


def run(
    settings: str | os.PathLike[str] | Mapping[str, Any] | SweepSettings,
    store: str | os.PathLike[str] | None = None,
    *,
    workers: int | None = None,
    cluster: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> OpenRun:
    """Run a sweep, or resume it, and open its results. The same call computes only what is missing.

    It runs as `netsim run` does, in a process of its own: on the Prefect server of this machine, which is started if
    there is none, with progress bars unless `quiet`. Interrupting it (Ctrl-C, a kernel that is interrupted) stops the
    sweep in order, and what is computed is kept: the same call resumes.

    Parameters
    ----------
    settings
        Path of a settings file, name of a sweep that is shipped with netsim, or settings as a mapping:
        ``{"networks": ["small:vgg", "small:resnet18"]}``.
    store
        Path or URL of the store. Default: ``runs/NAME`` for the file ``NAME.yaml``; a mapping has no default.
    workers
        Number of local worker processes. Default: one for each processor.
    cluster
        Path of a settings file that describes a cluster (deploy/README.md).
    quiet
        Show nothing.

    Returns
    -------
    OpenRun
        See `netsim.open_run`.

    Raises
    ------
    SettingsError
        If the settings are invalid, or there is no store for a mapping.
    RunError
        If the sweep fails, with the message of the command.
    KeyboardInterrupt
        If it was interrupted, with what is done.

    Examples
    --------
    >>> import netsim
    >>> networks = {"networks": ["small:vgg", "small:resnet18"], "pairs": {"count": 64, "shard_size": 8}}
    >>> run = netsim.run(networks, "runs/two")  # doctest: +SKIP
    >>> run.plot.heatmaps()  # doctest: +SKIP
    """
    with ExitStack() as closed:
        file, parsed = _settings_file(settings, store, closed)
        place = os.fspath(store) if store is not None else f"runs/{Path(file).stem}"
        arguments = ["run", file, "--store", place]
        arguments += ["--workers", str(workers)] if workers is not None else []
        arguments += ["--cluster", os.fspath(cluster)] if cluster is not None else []
        errors = closed.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        )
        try:
            _follow(process, place, parsed, quiet)
        except KeyboardInterrupt:
            _stop(process)
            raise KeyboardInterrupt(_stopped(place, parsed)) from None
        finally:
            _stop(process)
        if process.returncode:
            raise RunError(_failure(errors))
    return open_run(place)


def _settings_file(
    settings: str | os.PathLike[str] | Mapping[str, Any] | SweepSettings,
    store: str | os.PathLike[str] | None,
    closed: ExitStack,
) -> tuple[str, SweepSettings]:
    """Return the file of the settings, which are written to one if they have none, and the settings."""
    if isinstance(settings, str | os.PathLike):
        values = locate(read_settings(os.fspath(settings), ()), os.getcwd())
        values.pop("cluster", None)
        return os.fspath(settings), parse_settings(values, origin=os.fspath(settings))
    if store is None:
        raise SettingsError('store must be given with settings that are no file, such as store="runs/mine"')
    parsed = settings if isinstance(settings, SweepSettings) else parse_settings(settings)
    values = locate(parsed.model_dump(mode="json", exclude_unset=True), os.getcwd())  # the file is in another folder
    folder = closed.enter_context(tempfile.TemporaryDirectory(prefix="netsim-"))
    file = Path(folder) / f"{Path(os.fspath(store)).name}.yaml"  # whose name is that of the sweep
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(file), parse_settings(values)


def _follow(process: "subprocess.Popen[Any]", store: str, settings: SweepSettings, quiet: bool) -> None:
    """Show progress bars from when the store has the sweep until the command ends."""
    run = None
    while process.poll() is None and not run:
        run = None if quiet else _asked(store, settings)
        _wait(process)
    with console.progress_bars(run) if run else nullcontext():
        while process.poll() is None:
            _wait(process)


def _asked(store: str, settings: SweepSettings) -> Run | None:
    """Open the store if it has been asked this sweep."""
    try:
        run = Run.open(store)
    except StoreError:
        return None
    return run if run.sweep.given_settings == settings else None


def _wait(process: "subprocess.Popen[Any]") -> None:
    try:
        process.wait(timeout=POLL)
    except subprocess.TimeoutExpired:
        return


def _stop(process: "subprocess.Popen[Any]") -> None:
    """End a command that still runs, in order; a second interrupt kills it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait()
        except KeyboardInterrupt:
            process.kill()
            raise


def _stopped(store: str, settings: SweepSettings) -> str:
    """Describe how far a sweep came that was stopped, and the way to resume it."""
    run = _asked(store, settings)
    done = f" Done: {progress_line(run)}." if run else ""
    return f"stopped.{done} Call netsim.run with the same arguments to resume"


def _failure(errors: IO[str]) -> str:
    """Return the message of a command that failed."""
    errors.seek(0)
    lines = errors.read().splitlines()
    message = [line.removeprefix("netsim: ") for line in lines if line.startswith("netsim: ")]
    return "\n".join(message or lines[-20:])
