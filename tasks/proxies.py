"""Keep requests to this machine from going through the proxies of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY).

A proxy cannot reach the loopback addresses of its clients: it refuses, and the Prefect server or an S3 server on this
machine seems to be down.
"""

from collections.abc import MutableMapping

LOOPBACK = ("localhost", "127.0.0.1", "::1")

PROXIES = {"http_proxy", "https_proxy", "all_proxy"}

EXCEPTIONS = ("NO_PROXY", "no_proxy")
"""Variables that list what is not requested through a proxy. Programs differ in which of the two they prefer."""


def bypass_proxies_on_loopback(environment: MutableMapping[str, str]) -> None:
    """Add the loopback addresses to the exceptions from proxies, for this process and those it starts.

    Nothing changes without a proxy in the environment: on macOS, any of these variables hides the system's settings.
    """
    if not any(value and name.lower() in PROXIES for name, value in environment.items()):
        return
    for name, other in (EXCEPTIONS, EXCEPTIONS[::-1]):
        environment[name] = _extended(environment.get(name, environment.get(other, "")))


def _extended(exceptions: str) -> str:
    hosts = [host.strip() for host in exceptions.split(",") if host.strip()]
    return ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
