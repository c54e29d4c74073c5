"""Can this user and this version of Prefect use the server at PREFECT_API_URL? If not: why, and the way out."""

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
import prefect
from packaging.version import Version
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from netsim.errors import RunError
from tasks.landing import redact_password

RETRIES = 1
"""Requests are repeated this often before a server counts as down; Prefect's five took more than a minute."""

REFUSALS = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)

TLS_HINTS = {
    "CERTIFICATE_VERIFY_FAILED": "Set PREFECT_API_SSL_CERT_FILE to the certificate of its authority",
    "WRONG_VERSION_NUMBER": "If it has no certificate, write http:// in PREFECT_API_URL",
}
"""Reason of an ssl.SSLError -> the way out."""


def healthy(api: str, *, seconds: float = 5) -> bool:
    """Tell whether a Prefect server answers at this address, without a proxy.

    Certificates are not verified: loading the authorities takes longer than the request.
    """
    try:
        return httpx.get(f"{api}/health", timeout=seconds, verify=False, trust_env=False).json() is True
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False


def require_access(server: str, *, upgrade: str) -> None:
    """Raise RunError if the server at PREFECT_API_URL does not answer, rejects this user, or is too old.

    `server` names it in the error, and `upgrade` is how to get a newer one.
    """
    problem = access_problem(upgrade=upgrade)
    if problem is not None:
        raise RunError(f"{server} {problem}")


def access_problem(*, upgrade: str = "") -> str | None:
    """Return why the server at PREFECT_API_URL can't be used, or None. Prefect's client adds the credentials."""
    api = str(PREFECT_API_URL.value()).rstrip("/")
    if not _is_address(api):
        return "has no valid address: PREFECT_API_URL must be like http://HOST:4200/api"
    try:
        client = get_client(sync_client=True)
    except OSError as error:
        return f"can't be reached: PREFECT_API_SSL_CERT_FILE must be a PEM file ({error.strerror or error})"
    except (ImportError, ValueError) as error:  # of httpx: SOCKS, or an unknown scheme
        reason = str(error).partition(". ")[0]
        return f"can't be reached: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY must be http:// addresses or unset ({reason})"
    with client, temporary_settings({PREFECT_CLIENT_MAX_RETRIES: RETRIES}):
        return _request_problem(api, client, upgrade)


def _request_problem(api: str, client: SyncPrefectClient, upgrade: str) -> str | None:
    """Return what keeps requests of this user and this version from being served, or None."""
    try:
        version = None if client.server_type is ServerType.CLOUD else Version(client.api_version())
        client.read_flows(limit=1)
    except PrefectHTTPStatusError as error:
        return _explain_status(api, error.response.status_code)
    except httpx.HTTPError as error:
        return _explain_silence(api, error)
    except ValueError:  # no JSON, or no version
        return _explain_other(api)
    return None if version is None else _explain_version(version, upgrade)


def _is_address(api: str) -> bool:
    try:
        url = httpx.URL(api)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def _explain_status(api: str, status: int) -> str:
    if status in REFUSALS:
        cloud = ", or PREFECT_API_KEY for Prefect Cloud" if api.startswith("https:") else ""
        return (
            f"rejects this user ({status}). "
            f"Set PREFECT_API_AUTH_STRING to the USER:PASSWORD that it was started with{cloud}{_proxy_hint(api)}"
        )
    if status == httpx.codes.NOT_FOUND:
        return _explain_other(api)
    return f"answers with status {status}. See its log, or unset PREFECT_API_URL{_proxy_hint(api)}"


def _explain_silence(api: str, error: httpx.HTTPError) -> str:
    reason = str(error) or type(error).__name__
    hints = [hint for code, hint in TLS_HINTS.items() if code in reason]
    hint = hints[0] if hints else f"Start it, or unset PREFECT_API_URL{_proxy_hint(api)}"
    return f"does not answer ({reason}). {hint}"


def _explain_other(api: str) -> str:
    """Explain an answer that is none of Prefect's API: the address may lack its path."""
    parts = urlsplit(api)
    for path in ("/api", f"{parts.path}/api"):
        other = parts._replace(path=path).geturl()
        if other != api and healthy(other):
            return f"has its API at another path. Set PREFECT_API_URL to {redact_password(other)}"
    return f"answers, but not as a Prefect server. Correct PREFECT_API_URL, or unset it{_proxy_hint(api)}"


def _proxy_hint(api: str) -> str:
    """Return the tail of a hint if requests to this address go through a proxy."""
    parts = urlsplit(api)
    proxies, host = getproxies(), parts.hostname or ""
    if not (parts.scheme in proxies or "all" in proxies) or proxy_bypass(host):
        return ""
    return f"; or, if a proxy keeps it out of reach, add {host} to NO_PROXY and no_proxy"


def _explain_version(server: Version, upgrade: str) -> str | None:
    """Reject a server that is older than Prefect here: it refuses requests whose fields it does not know."""
    client = Version(prefect.__version__)
    if server.major == client.major and server >= client:
        return None
    return f"must run Prefect {client} or later ({client.major}.x), got {server}. {upgrade}"
