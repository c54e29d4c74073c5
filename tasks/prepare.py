"""Everything that can go wrong before work starts does so here."""

from netsim.config import SweepSettings
from netsim.preflight import check
from netsim.store import Run
from netsim.units import DRAW, TRAIN


def prepare(settings: SweepSettings, store: str) -> str:
    """Check the settings, then make or find their run at `store`. Returns its URL, which means the same on any worker.

    Raises SettingsError, NetworkError, DataError or StoreError; nothing stored is touched then.
    """
    if not _has_its_inputs(settings, store):
        check(settings)
    return Run.create(store, settings).url


def _has_its_inputs(settings: SweepSettings, store: str) -> bool:
    """Once networks are known and pairs drawn, a run needs its image source no more: it may be gone."""
    if not Run.exists(store):
        return False
    run = Run.create(store, settings)
    return not TRAIN.missing(run) and not DRAW.missing(run)
