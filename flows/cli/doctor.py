"""`netsim doctor`: what runs depend on, checked one by one, with the way out of each problem."""

import json
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Credentials, Debug, Json
from flows.cli.session import use_credentials
from netsim.errors import NetsimError, printable

PACKAGES = (
    *("torch", "torchvision", "timm", "numpy", "scipy", "zarr", "xarray", "fsspec", "s3fs", "safetensors"),
    *("pydantic", "prefect", "prefect-dask", "dask", "distributed"),
)
"""Packages whose versions matter when something fails."""

FEW_FILES = 1024
"""Open files below which a process may run out of them: each worker and each connection takes some."""

FULL = 1_000_000_000
"""Bytes free on a disk below which a run is likely to fill it."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    problem
        What is wrong and how to mend it; "" if nothing is.
    stops
        True if the problem would stop a run.
    """

    name: str
    value: str
    problem: str = ""
    stops: bool = False


def examine(store: str | None) -> list[Finding]:
    """Look at everything that a run depends on, and at a store if one is given."""
    parts: list[Callable[[], Iterator[Finding]]] = [_python, _packages, _machine, _devices, _server]
    if store is not None:
        parts.append(lambda: _store(store))
    return [finding for part in parts for finding in part()]


def _python() -> Iterator[Finding]:
    from netsim import __version__

    yield Finding("netsim", __version__)
    yield Finding("Python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("system", platform.platform())


def _packages() -> Iterator[Finding]:
    """Compare what is installed with what netsim requires."""
    from packaging.requirements import Requirement

    from netsim import DISTRIBUTION

    try:
        required = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:  # used from a checkout
        required = []
    needed = {each.name.lower(): each for each in required if each.marker is None or each.marker.evaluate()}
    for name in dict.fromkeys([*PACKAGES, *needed]):
        try:
            installed = version(name)
        except PackageNotFoundError:
            hint = "Install netsim again, with its requirements"
            yield Finding(name, "missing", f"{name} must be installed, got none. {hint}", stops=True)
            continue
        specifier = needed[name].specifier if name in needed else None
        wrong = specifier is not None and not specifier.contains(installed, prereleases=True)
        problem = f"{name} must be {specifier}, got {installed}. Install netsim again, with its requirements"
        if wrong or name in PACKAGES:
            yield Finding(name, installed, problem if wrong else "", stops=wrong)


def _machine() -> Iterator[Finding]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    yield Finding("cores", f"{cores}, OMP_NUM_THREADS {threads}")
    memory = psutil.virtual_memory()
    yield Finding("memory", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB available")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = (
        f"open files must be at least {FEW_FILES:,}, got {files:,}. Raise `ulimit -n`" if 0 <= files < FEW_FILES else ""
    )
    yield Finding("open files", f"{files:,}", few)
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        problem = f"address space must be unlimited, got {space / 1e9:.1f} GB. Raise `ulimit -v`"
        yield Finding("address space", f"{space / 1e9:.1f} GB", problem)
    yield _disk("disk of this folder", Path.cwd())


def _disk(name: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    return Finding(name, f"{free / 1e9:.1f} GB free, {folder}", _too_full(free))


def _too_full(free: int | None) -> str:
    if free is None or free >= FULL:
        return ""
    return f"free space must be at least {FULL / 1e9:.0f} GB, got {free / 1e9:.2f} GB. Free some, or use another disk"


def _devices() -> Iterator[Finding]:
    from tasks.devices import count_gpus

    try:
        yield Finding("GPUs", str(count_gpus()))
    except NetsimError as error:
        yield Finding("GPUs", "unknown", str(error), stops=True)


def _server() -> Iterator[Finding]:
    from flows.server.server import inspect_server

    value, problem = inspect_server()
    yield Finding("Prefect server", value, problem or "", stops=problem is not None)
    from prefect.settings import PREFECT_HOME

    home = Path(PREFECT_HOME.value())
    if home.exists():
        yield _disk("disk of PREFECT_HOME", home)


def _store(store: str) -> Iterator[Finding]:
    """Write to a store, and open the run if there is one."""
    from netsim.planning.estimate import check_writable
    from netsim.store.run import Run

    try:
        free = check_writable(store)
        room = "" if free is None else f", {free / 1e9:.1f} GB free"
        yield Finding("store", f"{store}, writable{room}", _too_full(free))
        if Run.exists(store):
            run = Run.open(store)
            yield Finding("run", f"{run.digest}, sweep {run.sweep.label}")
    except NetsimError as error:
        yield Finding("store", store, str(error), stops=True)


def doctor(
    store: Annotated[
        str | None,
        typer.Option("--store", help="Also check access to this store.", metavar="STORE", show_default=False),
    ] = None,
    credentials: Credentials = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check what runs depend on: versions, devices, disk, the Prefect server, and a store.

    Computes and stores nothing. Exits with code 1 if something would stop a run.

    For example:

    * `netsim doctor`
    * `netsim doctor --store s3://bucket/run`
    """
    from flows.cli import console
    from flows.cli.orchestrators import load_orchestrators

    try:
        load_orchestrators(debug)
        use_credentials(credentials, debug)
        findings = examine(store)
    except NetsimError as error:  # settings of Prefect or Dask: nothing that needs them can be checked
        findings = [*_python(), *_packages(), *_machine(), Finding("settings", "invalid", str(error), stops=True)]
    problems = [finding for finding in findings if finding.problem]
    stopped = any(finding.stops for finding in problems)
    if as_json:
        print(json.dumps({"ready": not stopped, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        table = console.table_of("part")
        table.add_column("found", overflow="fold")
        for finding in findings:
            table.add_row(finding.name, printable(finding.value))
        console.show("What netsim runs on", table)
        for finding in problems:
            console.say(f"{'PROBLEM' if finding.stops else 'WARNING'}  {finding.name}: {finding.problem}", "bold red")
        console.say("A run would be stopped." if stopped else "Nothing that would stop a run was found.")
    if stopped:
        raise typer.Exit(1)
