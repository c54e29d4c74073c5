"""Errors that neither netsim nor its libraries explain, in a line or two."""

import errno
import resource
from typing import TYPE_CHECKING

from netsim.errors import printable

if TYPE_CHECKING:
    import httpx

NO_MEMORY = ("failed to map segment", "cannot allocate memory", "can't start new thread")
"""Parts of messages, in lower case, of errors that come of too little memory."""


def explain_failure(error: Exception) -> str:
    """Return what to print for an error that is not a NetsimError."""
    import httpx  # a fifth of a second, which no other command waits for

    if _lacks_memory(error):
        return f"netsim: not enough memory ({_name(error)}). {_memory_hint()}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"netsim: no space left on a disk ({_name(error)}). Free some, and run the command again"
    if isinstance(error, httpx.HTTPError):
        return f"netsim: {_prefect_failure(error)}. See the log of the server, and run the command again to resume"
    return f"netsim: unexpected {_name(error)}\nrun it again with --debug for the traceback, and please report it"


def _name(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}")


def _prefect_failure(error: "httpx.HTTPError") -> str:
    """Describe the failed request to the Prefect server, which is the only one that commands make by HTTP."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        request, status = error.request, error.response
        return printable(
            f"the Prefect server at {request.url.netloc.decode()} failed at {request.url.path} "
            f"({status.status_code} {status.reason_phrase}); its disk may be full"
        )
    return f"the Prefect server does not answer any more ({_name(error)})"


def _lacks_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(part in text for part in NO_MEMORY)


def _memory_hint() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return "Close other programs, or use fewer --workers"
    return f"Address space is limited to {limit / 1e9:.1f} GB: raise `ulimit -v`"
