"""Everything that can go wrong before work starts does so here."""

from collections.abc import Sequence
from shlex import quote

from netsim.config import SweepSettings
from netsim.errors import RunError
from netsim.measuring import measure_stage
from netsim.preflight import check
from netsim.store import Run
from netsim.units import DRAW, EMBED, TRAIN


def prepare(settings: SweepSettings, store: str) -> str:
    """Check the settings, then make or find their run at `store`. Returns its URL, which means the same on any worker.

    Raises SettingsError, NetworkError, DataError or StoreError; nothing stored is touched then.
    """
    if not _has_its_inputs(settings, store):
        check(settings)
    return Run.create(store, settings).url


def prepare_measures(store: str, measures: Sequence[str]) -> str:
    """Check that there are such measures, and that the run at `store` has what they need. Returns its URL.

    Raises SettingsError for a measure that is not there, RunError or StoreError for a run that is not.
    """
    measure_stage(measures)
    run = Run.open(store)
    missing = EMBED.missing(run)
    if missing:
        raise RunError(
            f"{run.url} is not finished: {len(missing)} of {EMBED.total(run.settings)} shards of embed are missing; "
            f"`netsim run --store {quote(run.url)}` goes on"
        )
    return run.url


def _has_its_inputs(settings: SweepSettings, store: str) -> bool:
    """Once networks are known and pairs drawn, a run needs its image source no more: it may be gone."""
    if not Run.exists(store):
        return False
    run = Run.create(store, settings)
    return not TRAIN.missing(run) and not DRAW.missing(run)
