"""Find or start the Prefect server that flows on this machine use.

It is the configured server, one that runs here already, or a new one; never Prefect's temporary server, which fails
with Dask workers, leaves processes behind, and records few task runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    PREFECT_SERVER_API_BASE_PATH,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)

from flows.server.access import access_problem, require_access
from flows.server.listeners import is_listening, other_users
from flows.server.start import (
    HOST,
    ensure_running,
    keep_running,
    record_process,
    require_home,
    require_space,
    short_authorities,
)
from netsim.errors import RunError
from tasks.landing import redact_password
from tasks.threads import background_thread


class Server(NamedTuple):
    """A Prefect server in use: the address of its UI, and whether `prefect server stop` ends it."""

    ui: str
    stoppable: bool


@contextmanager
def prefect_server() -> Iterator[Server]:
    """Run flows against a Prefect server, started if there is none.

    The one of this machine is started again if it ends during the block, and keeps running afterwards, so that its UI
    can be used. Raises RunError if the server does not
    answer, rejects this user, is too old or does not start, or if the port belongs to another program or another user.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        name = redact_password(configured)
        require_access(f"the Prefect server at {name}", upgrade="Upgrade it, or unset PREFECT_API_URL")
        yield Server(name.removesuffix("/").removesuffix("/api"), stoppable=False)
        return
    port, api = PREFECT_SERVER_API_PORT.value(), _local_api()
    ensure_running(port, api)
    with temporary_settings({PREFECT_API_URL: api, PREFECT_API_SSL_CERT_FILE: short_authorities()}):
        _require_own_server(port)
        require_space()
        stoppable = record_process(port)
        stop = "Stop it with `prefect server stop`" if stoppable else "Stop it"
        require_access(f"the Prefect server at {api}", upgrade=f"{stop}, and run the command again")
        with background_thread(partial(keep_running, port, api)):
            yield Server(f"http://{HOST}:{port}", stoppable)


@contextmanager
def existing_prefect_server() -> Iterator[bool]:
    """Use a Prefect server if one is up, without starting any; yields whether there is one."""
    if PREFECT_API_URL.value():
        yield access_problem() is None
        return
    with temporary_settings({PREFECT_API_URL: _local_api()}):
        port = PREFECT_SERVER_API_PORT.value()
        # a client asks again for a second and a half where nothing listens
        yield is_listening(HOST, port) and not other_users(port) and access_problem() is None


def inspect_server() -> tuple[str, str | None]:
    """Describe the Prefect server that flows would use, and the problem that would stop them; starts none."""
    configured = PREFECT_API_URL.value()
    if configured:
        return redact_password(configured), access_problem(upgrade="Upgrade it, or unset PREFECT_API_URL")
    port, api = PREFECT_SERVER_API_PORT.value(), _local_api()
    if not is_listening(HOST, port):
        try:
            require_home()
        except RunError as error:
            return f"none yet at {api}", str(error)
        return f"none yet at {api}; a command that needs one starts it", None
    with temporary_settings({PREFECT_API_URL: api}):
        try:
            _require_own_server(port)
            require_space()
        except RunError as error:
            return api, str(error)
        stop = "Stop it, or set PREFECT_SERVER_API_PORT to a free port"
        problem = access_problem(upgrade=stop)
        return api, None if problem is None else f"{problem.partition('. ')[0]}. {stop}"


def _local_api() -> str:
    """Return the address of the API of a server on this machine."""
    path = (PREFECT_SERVER_API_BASE_PATH.value() or "/api").strip("/")
    return f"http://{HOST}:{PREFECT_SERVER_API_PORT.value()}/{path}"


def _require_own_server(port: int) -> None:
    """Reject a server of another user, who could read everything sent to it and run code in its clients."""
    users = other_users(port)
    if users:
        raise RunError(
            f"the Prefect server at port {port} belongs to another user of this machine (uid {min(users)}). "
            "Set PREFECT_SERVER_API_PORT to a free port, or PREFECT_API_URL if you trust it"
        )
