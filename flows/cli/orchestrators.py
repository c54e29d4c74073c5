"""The settings of Prefect and Dask in a terminal: quiet, and checked before either is used."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr
from typing import Any

from netsim.errors import SettingsError

TIMEOUTS = ("distributed.comm.timeouts.connect", "distributed.comm.timeouts.tcp")
"""Settings of Dask that it parses only when it connects."""


def load_orchestrators(debug: bool) -> None:
    """Import Prefect and Dask, with their logs kept out of this terminal unless `debug`; the Prefect UI has them.

    Raises SettingsError if a variable or file that configures them is invalid.
    """
    load_prefect(debug)
    _require_dask_settings()


def load_prefect(debug: bool) -> None:
    """Import Prefect alone, as `load_orchestrators` does, for what only asks its server."""
    quieten(debug)
    _require_prefect_settings()


def quieten(debug: bool) -> None:
    """Keep logs of Prefect and Dask out of this terminal unless `debug`, and telemetry off; for before their import."""
    from flows.server.offline import OFFLINE

    os.environ.update({name: value for name, value in OFFLINE.items() if name not in os.environ})
    if not debug:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")  # events that a server did not take
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # inherited by workers
        logging.raiseExceptions = False  # or Prefect prints each line of a log that its server did not take


def _require_prefect_settings() -> None:
    printed = io.StringIO()
    try:
        with redirect_stderr(printed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Failed to create the Prefect home")  # a server that needs it says so
            import prefect.context  # noqa: F401 (reads them all)
    except ValueError as error:  # of pydantic or TOML
        raise SettingsError(
            f"the settings of Prefect are invalid: {_first_problem(error)}. "
            "Correct its PREFECT_ variable, or profiles.toml"
        ) from None
    sys.stderr.write(printed.getvalue())


def _first_problem(error: ValueError) -> str:
    """Return the first problem of a validation error, with its variable if there is one, or the text of any other."""
    problems = error.errors() if hasattr(error, "errors") else []
    if not problems:
        return _one_line(str(error))
    given, message = problems[0]["input"], problems[0]["msg"]
    variables = [name for name, value in os.environ.items() if name.startswith("PREFECT_") and value == given]
    return f"{variables[0]}: {message}, got {given!r}" if variables else _one_line(message)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300].rstrip(".")


def _require_dask_settings() -> None:
    try:
        import dask.config
        import distributed  # noqa: F401 (adds its defaults)
        from dask.utils import parse_timedelta

        given = dask.config.collect()
        for defaults in dask.config.defaults:
            _require_groups(defaults, given)
        for name in TIMEOUTS:
            parse_timedelta(dask.config.get(name))
    except (ValueError, KeyError, TypeError) as error:
        reason = _one_line(str(error.args[0] if error.args else error).partition(". Valid")[0])
        raise SettingsError(
            f"the settings of Dask are invalid: {reason}. Correct its DASK_ variable, or the files of DASK_CONFIG"
        ) from None


def _require_groups(defaults: Mapping[str, Any], values: Any, path: str = "") -> None:
    """Raise ValueError if a value stands where Dask has a group of settings."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{path.removesuffix('.')} must be a group of settings, got {values!r}")
    for name, default in defaults.items():
        if isinstance(default, Mapping) and name in values:
            _require_groups(default, values[name], f"{path}{name}.")
