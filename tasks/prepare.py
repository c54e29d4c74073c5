"""Everything that can go wrong before work starts does so here."""

from netsim.config import SweepSettings
from netsim.preflight import check
from netsim.store import Run


def prepare(settings: SweepSettings, store: str) -> str:
    """Check the settings, then make or find their run at `store`. Returns its URL, which means the same on any worker.

    Raises SettingsError, NetworkError, DataError or StoreError; nothing stored is touched then.
    """
    check(settings)
    return Run.create(store, settings).url
