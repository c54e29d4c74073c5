"""A step for prefect.yaml: the settings of a deployment come from the same files as those of `netsim run`."""

from collections.abc import Sequence
from typing import Any

from netsim.settings import load_settings


def read_sweep(sweep: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """What `{{ ID.settings }}` stands for, of a settings file or of a sweep that comes with netsim, and of `changes`
    to it as in `netsim run --set`.

    Every setting is spelt out: the UI shows all of them, and what a deployment runs changes when it is deployed again,
    not when a file is edited. Raises SettingsError for what `netsim run` would refuse.
    """
    return {"settings": load_settings(sweep, changes).model_dump(mode="json")}
