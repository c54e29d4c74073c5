"""Credentials of S3 stores from a block of type "AWS Credentials" on the Prefect server.

A block becomes the AWS_* variables of a process, which is where every S3 client looks. Only its name travels: each
process reads the block itself, so no secret is in parameters, on a command line, in a log or in the store. The server
knows that type of block by itself; the package prefect-aws, which would bring boto3, is not needed.
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

from flows.server.server import shown
from netsim.errors import RunError, SettingsError

BLOCK_TYPE = "aws-credentials"

IDENTITY = {
    "aws_access_key_id": ("AWS_ACCESS_KEY_ID",),
    "aws_secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "aws_session_token": ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    "profile_name": ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
}
"""Field of a block -> variables, with the other names that botocore looks under. Taken from the block as a whole: a
token of the environment does not belong to a key of the block."""

PLACE = {
    "region_name": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint_url": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    "verify_cert_path": ("AWS_CA_BUNDLE",),
}
"""The same for where and how to connect. What a block leaves open, the environment may say."""

SERVER = (
    PREFECT_API_URL,
    PREFECT_API_KEY,
    PREFECT_API_AUTH_STRING,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_CLIENT_CUSTOM_HEADERS,
)
"""What a worker elsewhere has to know to reach the Prefect server."""

_before: dict[str, str | None] = {}
"""What variables were until a block changed them: the next block starts from there."""


def use_block(name: str | None) -> None:
    """Give this process, and every process it starts, the credentials of a block; without a name, leave all as it is.

    Raises SettingsError for a block that is not there or can't be used, RunError if the server does not give it.
    """
    if name is None:
        return
    found = variables(name, _read(name))
    _set(_before)
    _before.clear()
    _before.update({variable: os.environ.get(variable) for variable in found})
    _set(found)


class UseBlock(WorkerPlugin):
    """Has every worker of a scheduler use a block, those that join later too. One at a time: the last one counts."""

    name = "netsim-credentials"

    def __init__(self, block: str) -> None:
        self._block = block
        self._server = [setting.value() for setting in SERVER]

    async def setup(self, worker: object) -> None:
        await asyncio.to_thread(self._use)  # the worker goes on answering its scheduler

    def _use(self) -> None:
        with temporary_settings(dict(zip(SERVER, self._server, strict=True))):
            use_block(self._block)


def variables(name: str, block: Mapping[str, Any]) -> dict[str, str | None]:
    """The AWS_* variables that say what a block says; None for those that must not be set beside them.

    Raises SettingsError if no variable can say it, or the block has no keys.
    """
    fields = {**block, **(block.get("aws_client_parameters") or {})}
    fields.pop("aws_client_parameters", None)
    given = {field: value for field, value in fields.items() if value not in (None, "", {})}
    _require_keys(name, given)
    _require_known(name, given)
    bundle = given.get("verify_cert_path")
    if bundle and not Path(bundle).is_file():  # or S3 clients would look for it for five minutes
        raise SettingsError(f"block {name!r} has verify_cert_path {bundle}, which is no file on {socket.gethostname()}")
    names = IDENTITY | {field: PLACE[field] for field in PLACE if field in given}
    return {
        variable: str(given[field]).strip() if field in given else None
        for field, known_as in names.items()
        for variable in known_as
    }


def _require_keys(name: str, given: Mapping[str, Any]) -> None:
    missing = sorted({"aws_access_key_id", "aws_secret_access_key"} - given.keys())
    if len(missing) == 1 or (missing and "profile_name" not in given):
        raise SettingsError(f"block {name!r} has no {' and no '.join(missing)}; give both, or a profile_name")


def _require_known(name: str, given: Mapping[str, Any]) -> None:
    """Refuse what no variable can say. Names only: values may be secret."""
    harmless = {"verify"} if given.get("verify") is True else set()
    harmless |= {"use_ssl"} if given.get("use_ssl") is True or "endpoint_url" in given else set()  # as in boto3
    refused = sorted(given.keys() - IDENTITY.keys() - PLACE.keys() - harmless)
    if refused:
        raise SettingsError(
            f"block {name!r} sets {', '.join(refused)}, which netsim cannot heed; leave that as it was"
            + ("; verify_cert_path names a certificate authority of your own" if "verify" in refused else "")
        )


def _read(name: str) -> dict[str, Any]:
    """The fields of a block, secret ones too."""
    try:
        with get_client(sync_client=True) as client:
            try:
                return client.read_block_document_by_name(name, BLOCK_TYPE, include_secrets=True).data
            except ObjectNotFound:
                raise SettingsError(_no_block(client, name)) from None
    except httpx.HTTPError as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RunError(
            f"the Prefect server at {shown(str(PREFECT_API_URL.value()))} does not give blocks ({reason})"
        ) from None


def _no_block(client: SyncPrefectClient, name: str) -> str:
    blocks = client.read_block_documents_by_type(BLOCK_TYPE, include_secrets=False)
    names = ", ".join(sorted(str(block.name) for block in blocks))
    ui = shown(str(client.api_url)).rstrip("/").removesuffix("/api")
    return (
        f"no block {name!r} of type AWS Credentials; there {f'are {names}' if names else 'is none'}. "
        f"{ui}/blocks/catalog/{BLOCK_TYPE}/create makes one"
    )


def _set(values: Mapping[str, str | None]) -> None:
    for variable, value in values.items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value
