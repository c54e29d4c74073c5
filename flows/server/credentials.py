"""Credentials of S3 stores from an AWS Credentials block on the Prefect server.

A block becomes the AWS_* variables of a process, which every S3 client reads. Only its name is passed around: each
process reads the block itself, so no secret is in parameters, on a command line, in a log or in the store. The server
has that block type built in; the package prefect-aws, which would bring boto3, is not needed.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from distributed import WorkerPlugin
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_API_URL,
    PREFECT_CLIENT_CUSTOM_HEADERS,
    temporary_settings,
)

from flows.server.access import redact_password
from netsim.errors import RunError, SettingsError, first_line

BLOCK_TYPE = "aws-credentials"

IDENTITY = {
    "aws_access_key_id": ("AWS_ACCESS_KEY_ID",),
    "aws_secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "aws_session_token": ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    "profile_name": ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
}
"""Field of a block -> its variables, under every name that botocore reads. Set or unset together: a token of the
environment does not belong to a key of the block."""

CONNECTION = {
    "region_name": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint_url": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    "verify_cert_path": ("AWS_CA_BUNDLE",),
}
"""Field of a block -> its variables, for region and endpoint. The environment applies where a block has none."""

SERVER_SETTINGS = (
    PREFECT_API_URL,
    PREFECT_API_KEY,
    PREFECT_API_AUTH_STRING,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_CLIENT_CUSTOM_HEADERS,
)
"""Settings that a worker on another machine needs to reach the Prefect server."""

_original: dict[str, str | None] = {}
"""Values of the variables before a block changed them, restored before the next block is applied."""


def use_block(name: str | None) -> None:
    """Set the credentials of a block in this process and those it starts; without a name, do nothing.

    Raises SettingsError if the block is missing or invalid, RunError if the server does not return it.
    """
    if name is None:
        return
    new = variables(name, _read(name))
    _set(_original)
    _original.clear()
    _original.update({variable: os.environ.get(variable) for variable in new})
    _set(new)


class UseBlock(WorkerPlugin):
    """Make every worker of a scheduler use a block, including later ones. A second block replaces the first."""

    name = "netsim-credentials"

    def __init__(self, block: str) -> None:
        self._block = block
        self._server = [setting.value() for setting in SERVER_SETTINGS]

    async def setup(self, worker: object) -> None:
        """Read the block in a thread, so that the worker keeps answering its scheduler."""
        await asyncio.to_thread(self._use)

    def _use(self) -> None:
        with temporary_settings(dict(zip(SERVER_SETTINGS, self._server, strict=True))):
            use_block(self._block)


def variables(name: str, block: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the AWS_* variables equivalent to a block; None for those that must be unset.

    Raises SettingsError if a field has no equivalent variable, or the block has no keys.
    """
    fields = {**block, **(block.get("aws_client_parameters") or {})}
    fields.pop("aws_client_parameters", None)
    given = {field: value for field, value in fields.items() if value not in (None, "", {})}
    _require_keys(name, given)
    _require_known(name, given)
    bundle = given.get("verify_cert_path")
    if bundle and not Path(bundle).is_file():  # or S3 clients would look for it for five minutes
        raise SettingsError(f"block {name!r}: verify_cert_path must be a file on {socket.gethostname()}, got {bundle}")
    names = IDENTITY | {field: CONNECTION[field] for field in CONNECTION if field in given}
    return {
        variable: str(given[field]).strip() if field in given else None
        for field, aliases in names.items()
        for variable in aliases
    }


def _require_keys(name: str, given: Mapping[str, Any]) -> None:
    missing = sorted({"aws_access_key_id", "aws_secret_access_key"} - given.keys())
    if len(missing) == 1 or (missing and "profile_name" not in given):
        raise SettingsError(f"block {name!r} must have {' and '.join(missing)}. Set both keys, or a profile_name")


def _require_known(name: str, given: Mapping[str, Any]) -> None:
    """Reject fields without an equivalent variable. The error has names only: values may be secret."""
    harmless = {"verify"} if given.get("verify") is True else set()
    harmless |= {"use_ssl"} if given.get("use_ssl") is True or "endpoint_url" in given else set()  # as in boto3
    unsupported = sorted(given.keys() - IDENTITY.keys() - CONNECTION.keys() - harmless)
    if unsupported:
        raise SettingsError(
            f"block {name!r} sets {', '.join(unsupported)}, which netsim does not support. Restore the default"
            + ("; for your own certificate authority, set verify_cert_path" if "verify" in unsupported else "")
        )


def _read(name: str) -> dict[str, Any]:
    """Return the fields of a block, including secret ones."""
    try:
        with get_client(sync_client=True) as client:
            try:
                return client.read_block_document_by_name(name, BLOCK_TYPE, include_secrets=True).data
            except ObjectNotFound:
                raise SettingsError(_no_block(client, name)) from None
    except httpx.HTTPError as error:
        reason = first_line(error) or type(error).__name__
        raise RunError(
            f"cannot read block {name!r} from the Prefect server at {redact_password(str(PREFECT_API_URL.value()))} "
            f"({reason})"
        ) from None


def _no_block(client: SyncPrefectClient, name: str) -> str:
    blocks = client.read_block_documents_by_type(BLOCK_TYPE, include_secrets=False)
    names = ", ".join(sorted(str(block.name) for block in blocks))
    ui = redact_password(str(client.api_url)).rstrip("/").removesuffix("/api")
    return (
        f"no AWS Credentials block {name!r}; existing blocks: {names or 'none'}. "
        f"Create it at {ui}/blocks/catalog/{BLOCK_TYPE}/create"
    )


def _set(values: Mapping[str, str | None]) -> None:
    for variable, value in values.items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value
