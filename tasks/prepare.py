"""Everything that can go wrong before work starts does so here."""

from collections.abc import Sequence

from netsim.planning.preflight import check
from netsim.results.layers import keep_spec
from netsim.settings import SweepSettings
from netsim.stages.layers import layer_spec
from netsim.stages.measure import measure_stage
from netsim.store.quarantine import release
from netsim.store.run import Run
from netsim.store.stages import DRAW, EMBED, INVERT, TRAIN, Stage, require_finished


def prepare(settings: SweepSettings, store: str) -> str:
    """Check the settings, then make or find their run at `store`. Returns its URL, which means the same on any worker.

    Raises SettingsError, NetworkError, DataError or StoreError; nothing stored is touched then.
    """
    if not _has_its_inputs(settings, store):
        check(settings)
    run = Run.create(store, settings)
    release(run)
    return run.url


def prepare_measures(store: str, measures: Sequence[str]) -> str:
    """Check that there are such measures, and that the run at `store` has what they need. Returns its URL.

    Raises SettingsError for a measure that is not there, StoreError for a run that is not.
    """
    measure_stage(measures)
    return _with(EMBED, store, "measure").url


def prepare_layers(store: str, networks: Sequence[str], layers: Sequence[str], activations: str) -> tuple[str, str]:
    """The same for layers, whose names fit the patterns `layers`. Returns the run's URL, and the key of what is asked.

    Raises SettingsError for networks or layers that are not there, StoreError for a run that is not.
    """
    run = _with(INVERT, store, "layers")
    spec = layer_spec(run, networks, layers, activations)
    keep_spec(run, spec)
    return run.url, spec.key


def _with(needed: Stage, store: str, stage: str) -> Run:
    """The run at `store`, where the stage `needed` is finished. What was set aside of `stage` is to be tried again."""
    run = Run.open(store)
    require_finished(run, [needed])
    release(run, stage)
    return run


def _has_its_inputs(settings: SweepSettings, store: str) -> bool:
    """Once networks are known and pairs drawn, a run needs its image source no more: it may be gone."""
    if not Run.exists(store):
        return False
    run = Run.create(store, settings)
    return not TRAIN.missing(run) and not DRAW.missing(run)
