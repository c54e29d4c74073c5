"""An existing Dask scheduler and its workers."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

from distributed import Client
from distributed.security import Security

from flows.clusters.certificates import read_certificates
from flows.clusters.settings import Scheduler
from netsim.errors import SettingsError

CONNECT_TIMEOUT = 10
"""Seconds to wait for an existing scheduler to answer."""


@dataclass(frozen=True)
class SchedulerAddress:
    """The address of a Dask scheduler, with the certificates to connect with; None if it requires none."""

    address: str
    security: Security | None = None


@contextmanager
def connect_scheduler(cluster: Scheduler) -> Iterator[SchedulerAddress]:
    """Check that the scheduler answers. Raises SettingsError if it does not."""
    scheduler = SchedulerAddress(cluster.address, None if cluster.tls is None else read_certificates(cluster.tls))
    try:
        Client(scheduler.address, security=scheduler.security, timeout=CONNECT_TIMEOUT).close()
    except (OSError, TimeoutError, ValueError) as error:
        hint = (
            f"Check that {cluster.tls} has the certificates it was started with"
            if cluster.tls
            else "If it requires certificates, give a tls:// address and tls"
        )
        reason = f"{error}; {error.__cause__}" if error.__cause__ else str(error)
        raise SettingsError(f"no Dask scheduler answers at {cluster.address} ({reason}). {hint}") from None
    yield scheduler


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
