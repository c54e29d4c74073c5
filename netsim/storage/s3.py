"""S3: credentials, clients, and the translation of storage errors into netsim's own.

botocore takes 0.1 s to import and aiobotocore half a second, so both are imported when a URL needs them.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from netsim.errors import StoreError, UnreachableError

# The name of a bucket or the ARN of an access point. S3 clients retry for minutes if it is not one of the two.
BUCKET = re.compile(r"[A-Za-z0-9.\-_:/]{1,255}")

# Arguments of `botocore.config.Config`. With the defaults, clients give up on a restarting server after 8 s.
S3_CLIENT = {
    "retries": {"mode": "adaptive", "max_attempts": 10},  # waits about 50 s for a server that is down
    "connect_timeout": 5,
    "read_timeout": 60,
    "max_pool_connections": 64,  # more than the requests of one call; with the default, 10, further ones wait
}

# Error numbers of a local disk that is full, or of a quota or a file size limit that is reached.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Error numbers of a server that is in trouble, where its own answer is unknown.
_SERVER_ERROR = (errno.EIO, errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO))

# HTTP status of an answer that may be another one later: a conflict, too many requests, and errors of the server.
_CONFLICT, _TOO_MANY, _OF_THE_SERVER = 409, 429, 500

# Error codes of S3, and the message about each: what must be, what came, what to do.
_MESSAGES = {
    code: message
    for codes, message in (
        (
            ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
            "the credentials for {url} have expired; renew them, as with `aws sso login`, and run the command again "
            "to resume",
        ),
        (
            ("RequestTimeTooSkewed", "RequestInTheFuture"),
            "the clock of this machine must agree with that of {url} ({answer}); set it, as with "
            "`timedatectl set-ntp true`, and run the command again to resume",
        ),
        (
            ("InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "InvalidSecurity", "NotSignedUp"),
            "{url}: the server does not know these credentials ({answer}); correct AWS_ACCESS_KEY_ID and "
            "AWS_SESSION_TOKEN, or name another profile by AWS_PROFILE",
        ),
        (
            ("SignatureDoesNotMatch",),
            "no permission to read or write {url}: the secret key does not belong to the access key ({answer}); "
            "correct AWS_SECRET_ACCESS_KEY, or name another profile by AWS_PROFILE",
        ),
        (
            ("AccessDenied", "AllAccessDisabled", "AccountProblem", "403"),
            "no permission to read or write {url} ({answer}); ask for it, use other credentials, or use another "
            "{setting}",
        ),
        (("NoSuchBucket",), "{url}: there is no such bucket; create it, or use another {setting}"),
        (
            (
                *("PermanentRedirect", "TemporaryRedirect", "Redirect", "301", "307"),
                *("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
            ),
            "{url}: the bucket is in another region or at another address ({answer}); set AWS_REGION, or "
            "AWS_ENDPOINT_URL",
        ),
        (
            ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"),
            "no space left for {url} ({answer}); free some and run the command again to resume",
        ),
    )
    for code in codes
}

# Error codes of servers that do not take the checksums which S3 clients send since 2025, and words of their messages.
_CHECKSUM_CODES = ("NotImplemented", "InvalidArgument", "InvalidRequest", "XAmzContentSHA256Mismatch", "501")
_CHECKSUM_WORDS = re.compile(r"checksum|trailer|aws-chunked|not implemented", re.IGNORECASE)


def require_certificates(url: str) -> None:
    """Check that the file in AWS_CA_BUNDLE exists; S3 clients retry for minutes without it, without an error.

    Raises
    ------
    StoreError
        If `url` is on S3 and the file does not exist.
    """
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle and url.startswith("s3://") and not Path(bundle).exists():
        raise StoreError(f"AWS_CA_BUNDLE must name a file of trusted certificates for {url}, got missing {bundle}")


def storage_options(url: str) -> dict[str, Any]:
    """Return the options with which fsspec opens `url`; empty for a local path."""
    if "://" not in url:
        return {}
    options: dict[str, Any] = {"use_listings_cache": False}  # progress is read from listings
    if url.startswith("s3://"):
        # above 1, s3fs asks for the size of every object before it reads it; botocore modifies the dictionary it gets
        options |= {"config_kwargs": deepcopy(S3_CLIENT), "max_concurrency": 1}
        options["session"] = _session(aws_environment())
    return options


def aws_environment() -> frozenset[tuple[str, str]]:
    """Return the environment variables of the AWS credential chain. Clients are cached as long as these are equal."""
    return frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))


@cache
def _session(_environment: frozenset[tuple[str, str]]) -> Any:
    """Return an aiobotocore session that parses times quickly."""
    from aiobotocore.session import AioSession

    session = AioSession()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=parse_time)
    return session


def parse_time(text: Any) -> datetime:
    """Parse a time from S3. botocore guesses the format instead, which is most of the time of a long listing."""
    if str(text).endswith("Z"):
        return datetime.fromisoformat(text)
    from botocore.utils import parse_timestamp

    return parse_timestamp(text)


@contextmanager
def translate_errors(url: str, *, missing_ok: bool = False, setting: str = "--store") -> Iterator[None]:
    """Translate the errors of file systems and S3 clients in the block into a StoreError about `url`.

    Parameters
    ----------
    url
        The place that the messages name.
    missing_ok
        Let a FileNotFoundError pass unchanged.
    setting
        The option or setting that `url` was given by: messages propose to change it.

    Raises
    ------
    UnreachableError
        If the storage did not answer, or answered with a server error, after all retries.
    StoreError
        For every other error.
    """
    try:
        yield
    except Exception as error:
        translated = None if missing_ok and is_missing(error) else _translated(error, url, setting)
        if translated is None:
            raise
        raise translated from error


def is_missing(error: Exception) -> bool:
    """Return True for the error of a file that does not exist, but not of a bucket that does not."""
    return isinstance(error, FileNotFoundError) and error_code(error) != "NoSuchBucket"


def error_code(error: BaseException) -> str:
    """Return the code of S3 behind an error, as in NoSuchKey, or the HTTP status; empty for other errors."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def http_status(error: BaseException) -> int:
    """Return the HTTP status of the answer behind an error; 0 for other errors."""
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answer(error: BaseException) -> dict[str, Any]:
    """Return the answer of S3 behind an error of botocore, or of s3fs, which botocore's caused."""
    answers = (getattr(each, "response", None) for each in (error, error.__cause__))
    return next((answer for answer in answers if isinstance(answer, dict)), {})


def _translated(error: Exception, url: str, setting: str) -> StoreError | None:
    """Return the StoreError for an error, or None if it does not come from storage."""
    if isinstance(error, StoreError):
        return None
    if translated := _translated_answer(error, url, setting):
        return translated
    if isinstance(error, FileNotFoundError):
        return StoreError(f"{url}: not found ({error})")
    if isinstance(error, PermissionError):
        return StoreError(f"no permission to read or write {url} ({error}); use another {setting}")
    if translated := _translated_s3(error, url):
        return translated
    if isinstance(error, ConnectionError | TimeoutError):
        return _no_answer(error, url)
    return _translated_system(error, url, setting) if isinstance(error, OSError) else None


def _translated_answer(error: Exception, url: str, setting: str) -> StoreError | None:
    """Return the StoreError for an answer of S3, with what to do about it."""
    code, status = error_code(error), http_status(error)
    if not code or is_missing(error):
        return None
    message = _answer(error)["Error"].get("Message", "")
    answer = f"{code}: {message}" if message else code
    if code in _MESSAGES:
        return StoreError(_MESSAGES[code].format(url=url, answer=answer, setting=setting))
    if status in (_CONFLICT, _TOO_MANY) or (status >= _OF_THE_SERVER and code not in _CHECKSUM_CODES):
        return UnreachableError(f"server error from {url} ({answer}); run the command again to resume")
    if code in _CHECKSUM_CODES and _CHECKSUM_WORDS.search(message):
        return StoreError(
            f"{url}: the server does not take the checksums of this S3 client ({answer}); "
            "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
        )
    return StoreError(f"{url}: the server refuses the request ({answer})")


def _translated_s3(error: Exception, url: str) -> StoreError | None:
    """Return the StoreError for an error of botocore. Without botocore imported, it cannot be one."""
    if "botocore" not in sys.modules:
        return None
    from botocore import exceptions

    if isinstance(error, exceptions.SSLError):
        return StoreError(f"{url}: {error}; set AWS_CA_BUNDLE to a file of the certificates to trust")
    if isinstance(error, exceptions.HTTPClientError | exceptions.EndpointConnectionError):
        return _no_answer(error, url)
    if isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.ProfileNotFound
        | exceptions.CredentialRetrievalError
        | exceptions.SSOError
        | exceptions.TokenRetrievalError,
    ):
        return StoreError(
            f"{url}: {str(error).rstrip('.')}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or name a block of the Prefect server by --credentials"
        )
    return StoreError(f"{url}: {error}") if isinstance(error, exceptions.BotoCoreError) else None


def _translated_system(error: OSError, url: str, setting: str) -> StoreError:
    """Return the StoreError for any other error of the operating system, or of a server through s3fs."""
    if error.errno in _NO_SPACE:
        return StoreError(f"no space left for {url} ({error.strerror}); free some and run the command again to resume")
    if "://" in url and error.errno in _SERVER_ERROR:
        return UnreachableError(f"server error from {url} ({error}); run the command again to resume")
    if error.errno == errno.EROFS:
        return StoreError(f"{url} is on a read-only file system; use another {setting}")
    return StoreError(f"{url}: {error}")


def _no_answer(error: Exception, url: str) -> UnreachableError:
    return UnreachableError(f"{url} does not answer ({error}); run the command again to resume")
