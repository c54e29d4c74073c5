"""An existing Dask scheduler and its workers."""

import asyncio
import ssl
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from distributed import Client
from distributed.comm import connect as open_comm
from distributed.security import Security
from distributed.versions import VersionMismatchWarning

from flows.clusters.certificates import read_certificates
from flows.clusters.settings import Scheduler
from netsim.errors import NetsimError, RunError, SettingsError
from tasks.dispatch import RESTART_HINT

CONNECT_TIMEOUT = 10
"""Seconds to wait for an existing scheduler to answer."""

SAME_VERSIONS = ("python", "dask", "distributed")
"""Packages that all processes of a Dask cluster must have in the same version, because they exchange code."""


@dataclass(frozen=True)
class SchedulerAddress:
    """The address of a Dask scheduler, with the certificates to connect with; None if it requires none."""

    address: str
    security: Security | None = None


@contextmanager
def connect_scheduler(cluster: Scheduler) -> Iterator[SchedulerAddress]:
    """Check that the scheduler answers, with the versions of this process. Raises SettingsError if it does not."""
    scheduler = SchedulerAddress(cluster.address, None if cluster.tls is None else read_certificates(cluster.tls))
    try:
        with connect(scheduler) as client:
            versions: Any = client.get_versions()
    except (OSError, TimeoutError, ValueError) as error:
        reason, hint = _explain_silence(error, cluster.tls)
        raise SettingsError(f"no Dask scheduler answers at {cluster.address} ({reason}). {hint}") from None
    _require_same_versions(versions, cluster.address)
    yield scheduler


def _explain_silence(error: Exception, tls: str | None) -> tuple[str, str]:
    """Return the reason of a failed connection in a few words, and a hint."""
    text = str(error.__cause__ or error)
    if isinstance(error.__cause__, ssl.SSLError):
        return error.__cause__.reason or text, f"Check that {tls} has the certificates it was started with"
    if isinstance(error, TimeoutError):
        return f"no answer in {CONNECT_TIMEOUT} s", "Check that it is a scheduler's address, not that of its dashboard"
    if "reset by peer" in text and tls is None:
        return "connection reset", "If it requires certificates, give a tls:// address and tls"
    return text.rpartition("Error: ")[2] or type(error).__name__, "Start it, or correct the address"


@contextmanager
def connect(scheduler: SchedulerAddress) -> Iterator[Client]:
    """Yield a client that does not replace the one of the flow.

    Raises OSError or TimeoutError if the scheduler does not answer, ValueError if its address is invalid.
    """
    with ThreadPoolExecutor(1) as thread:  # this one may have an event loop
        thread.submit(asyncio.run, _shake_hands(scheduler)).result()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # there is an error for it
        client = Client(scheduler.address, security=scheduler.security, timeout=CONNECT_TIMEOUT, set_as_default=False)
    with client:
        yield client


async def _shake_hands(scheduler: SchedulerAddress) -> None:
    """Connect once: a client waits for ever for the first answer of a frozen scheduler, or of another program."""
    security = {} if scheduler.security is None else scheduler.security.get_connection_args("client")
    comm = await asyncio.wait_for(open_comm(scheduler.address, CONNECT_TIMEOUT, **security), CONNECT_TIMEOUT + 1)
    comm.abort()


@contextmanager
def explained_loss(scheduler: SchedulerAddress) -> Iterator[None]:
    """Turn the errors of a block into one RunError if their reason is that the scheduler is gone.

    Dask has a different error for each moment at which that may happen, and not all of them mention it.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, NetsimError) or _answers(scheduler):
            raise
        raise RunError(f"the Dask scheduler at {scheduler.address} is gone. {RESTART_HINT}") from error


def _answers(scheduler: SchedulerAddress) -> bool:
    try:
        with connect(scheduler):
            return True
    except (OSError, TimeoutError, ValueError):
        return False


def _require_same_versions(versions: Any, address: str) -> None:
    """Raise SettingsError if the scheduler or a worker has other versions than this process."""
    client = versions["client"]["packages"]
    others = {f"the Dask scheduler at {address}": versions["scheduler"]}
    others |= {f"the Dask worker at {worker}": answer for worker, answer in versions["workers"].items()}
    for name, other in others.items():
        for package in SAME_VERSIONS:
            version = other["packages"][package]
            if _release(package, version) != _release(package, client[package]):
                raise SettingsError(
                    f"{name} must have {package} {client[package]}, as this process, got {version}. "
                    "Start it in an environment like this one"
                )


def _release(package: str, version: str) -> str:
    """Return the part of a version that must be the same: of 3.11.9.final.0, only 3.11."""
    return ".".join(version.split(".")[:2]) if package == "python" else version


def import_in_scheduler(client: Client) -> None:
    """Import in a thread of the scheduler what it needs to read the first task run.

    It would import it in its event loop otherwise; where that takes more than 30 s, the flow loses its connection and
    everything it has submitted. Raises SettingsError if netsim is not installed in the scheduler's environment.
    """
    try:
        client.run_on_scheduler(asyncio.to_thread, import_module, "tasks.verbs")
    except ImportError as error:
        raise SettingsError(
            f"the Dask scheduler cannot import netsim ({error}). Install this version of netsim in its environment"
        ) from None
