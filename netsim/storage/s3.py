"""S3: credentials, sessions, and its errors as ours."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from botocore.exceptions import (
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    TokenRetrievalError,
)
from botocore.utils import parse_timestamp

from netsim.errors import StoreError, UnreachableError

BUCKET = re.compile(r"[A-Za-z0-9.\-_:/]{1,255}")
"""Its name, or the ARN of an access point: what S3 clients look for in vain otherwise."""


S3_CLIENT = {
    "retries": {"mode": "adaptive", "max_attempts": 10},  # sits out a server that is away for about 50 s
    "connect_timeout": 5,
    "read_timeout": 60,
}
"""Of botocore, by name as in `botocore.config.Config`. Its default gives up on a restarting server after 8 s."""


def _require_authority(url: str) -> None:
    """S3 clients look for a file of certificates that is not there for minutes, without a word."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle and url.startswith("s3://") and not Path(bundle).exists():
        raise StoreError(f"AWS_CA_BUNDLE names {bundle}, which is not there; name the certificates to trust for {url}")


def _options(url: str) -> dict[str, Any]:
    if "://" not in url:
        return {}
    options: dict[str, Any] = {"use_listings_cache": False}  # progress is read from listings
    if url.startswith("s3://"):
        # in parts, s3fs asks for the size of every object before it reads it
        options |= {"config_kwargs": deepcopy(S3_CLIENT), "max_concurrency": 1}  # botocore writes into it
        options["session"] = _session(_chain())
    return options


def _chain() -> frozenset[tuple[str, str]]:
    """What the standard AWS chain of credentials goes by here. Clients are kept for as long as it stays."""
    return frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))


@cache
def _session(_chain: frozenset[tuple[str, str]]) -> Any:
    from aiobotocore.session import AioSession  # half a second, for S3 only

    session = AioSession()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_when)
    return session


def _when(text: Any) -> datetime:
    """A time that S3 says. botocore's own way guesses the format, which takes most of the time of a long listing."""
    return datetime.fromisoformat(text) if str(text).endswith("Z") else parse_timestamp(text)


UNREACHABLE = (ConnectionError, TimeoutError, HTTPClientError, EndpointConnectionError)
"""No answer, after the client's own retries. The first two are what Python raises, the others botocore."""


TROUBLE = (errno.EIO, errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO))
"""How s3fs says 500 and 503."""


@contextmanager
def translate_errors(url: str, *, missing_is_fine: bool = False, setting: str = "--store") -> Iterator[None]:
    """Turn what a file system says into one clear StoreError about `url`, which `setting` named."""
    try:
        yield
    except FileNotFoundError as error:
        if missing_is_fine:
            raise
        raise StoreError(f"{url}: not found ({error})") from error
    except PermissionError as error:
        raise StoreError(
            f"{url} is not writable or not readable for this user ({error}); give another {setting}"
        ) from error
    except SSLError as error:
        raise StoreError(f"{url}: {error}; AWS_CA_BUNDLE names the certificates to trust") from error
    except UNREACHABLE as error:
        raise UnreachableError(f"{url} does not answer ({error}); the same command goes on when it does") from error
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound, TokenRetrievalError) as error:
        raise StoreError(
            f"{url}: {str(error).rstrip('.')}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or name a block of the Prefect server by --credentials"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(
                f"no space left for {url} ({error.strerror}); free some, and run the same command again"
            ) from error
        if "://" in url and error.errno in TROUBLE:
            raise UnreachableError(
                f"{url} is in trouble ({error}); the same command goes on when that is over"
            ) from error
        if error.errno == errno.EROFS:
            raise StoreError(f"{url} is on a read-only file system; give another {setting}") from error
        raise StoreError(f"{url}: {error}") from error
