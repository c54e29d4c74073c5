"""Workers of a Dask scheduler that is there already."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from distributed import Client

from flows.clusters import settings as where
from flows.clusters.certificates import read_certificates
from flows.clusters.environment import Found
from netsim.errors import SettingsError


def import_in_scheduler(client: Client) -> None:
    """Have it import in a thread what it needs to read the first task run.

    It would in its event loop otherwise, and where that takes more than 30 s, the flow loses its connection and all
    that it has submitted. Raises SettingsError if netsim is not there.
    """
    try:
        client.run_on_scheduler(asyncio.to_thread, import_module, "tasks.verbs")
    except ImportError as error:
        raise SettingsError(f"the Dask scheduler can't import netsim ({error}); install it there, as here") from None


@contextmanager
def find_scheduler(cluster: where.Scheduler) -> Iterator[Found]:
    found = Found(cluster.address, None if cluster.tls is None else read_certificates(cluster.tls))
    try:
        Client(found.address, security=found.security, timeout=10).close()
    except (OSError, TimeoutError, ValueError) as error:
        way_out = (
            f"are the certificates in {cluster.tls} its own?" if cluster.tls else "one with certificates is tls://"
        )
        why = f"{error}; {error.__cause__}" if error.__cause__ else str(error)
        raise SettingsError(f"no Dask scheduler answers at {cluster.address} ({why}); {way_out}") from None
    yield found
