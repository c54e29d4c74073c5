"""The flow run on whose page a user lands: the outermost one, which the terminal links and a deployment lists."""

import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from prefect import runtime
from prefect.settings import PREFECT_UI_URL

TIMEOUT = 5.0
"""Seconds to wait for a server to tell which of its two UIs it shows by default."""


def landing_run() -> UUID:
    """Return the outermost flow run around the current flow or task run."""
    return UUID(runtime.flow_run.root_flow_run_id)


def store_name(store: str) -> str:
    """Return the last part of a path or URL, by which runs and artifacts of a store are named.

    Examples
    --------
    >>> store_name("s3://bucket/runs/demo")
    'demo'
    """
    return PurePosixPath(store).name


def artifact_key(store: str, kind: str) -> str:
    """Return the key of an artifact of a store; Prefect allows lower-case letters, digits and dashes only.

    Examples
    --------
    >>> artifact_key("runs/ResNets_by eps", "heatmaps")
    'resnets-by-eps-heatmaps'
    """
    return "-".join(re.findall("[a-z0-9]+", f"{store_name(store)}-{kind}".lower()))


def run_page(flow_run: UUID | str) -> str:
    """Return the address of the page of a flow run, in the UI that its server shows by default."""
    ui = redact_password(PREFECT_UI_URL.value() or "").rstrip("/")
    return f"{_default_ui(ui)}/runs/flow-run/{flow_run}"


def _default_ui(ui: str) -> str:
    """Return the base of the default UI of a server; that of older servers, and of Prefect Cloud, is `ui` itself."""
    try:  # certificates are not verified: the answer is a path, and the browser verifies them
        settings = httpx.get(f"{ui}/ui-settings", timeout=TIMEOUT, verify=False).json()
        base = settings[f"{settings['default_ui']}_base_url"]
        return urlsplit(ui)._replace(path=base).geturl().rstrip("/")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError):
        return ui


def redact_password(url: str) -> str:
    """Return `url` without user and password.

    Examples
    --------
    >>> redact_password("http://me:secret@host:4200/api")
    'http://host:4200/api'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
