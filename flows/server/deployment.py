"""A build step for prefect.yaml that reads the settings of a deployment from the files of `netsim run`."""

from collections.abc import Sequence
from typing import Any

from netsim.settings import load_settings


def read_sweep(sweep: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of a sweep for `{{ ID.settings }}` in prefect.yaml.

    All settings are included: the UI shows every one, and a deployment changes when it is deployed again, not when a
    file is edited.

    Parameters
    ----------
    sweep
        A settings file, or the name of a sweep shipped with netsim.
    changes
        Overrides as for `netsim run --set`, such as `pairs.count=64`.

    Raises
    ------
    SettingsError
        For everything that `netsim run` would reject.
    """
    return {"settings": load_settings(sweep, changes).model_dump(mode="json")}
