"""Preparation of a flow: everything that can fail before work starts, fails here.

Modules that load torch are imported in the functions that need them: resuming a sweep needs none.
"""

from collections.abc import Sequence

from netsim.results.layers import keep_spec
from netsim.results.measured import measure_stage
from netsim.settings import SweepSettings
from netsim.store.quarantine import release
from netsim.store.run import Run
from netsim.store.stages import DRAW, EMBED, INVERT, TRAIN, Stage, require_finished


def prepare(settings: SweepSettings, store: str) -> str:
    """Check the settings, then create or open their run at `store`.

    Returns
    -------
    str
        URL of the run, which means the same on every worker.

    Raises
    ------
    SettingsError, NetworkError, DataError, StoreError
        If the sweep cannot run. Nothing in the store has been changed then.
    """
    if not _has_its_inputs(settings, store):
        from netsim.planning.preflight import preflight  # builds the networks with torch

        preflight(settings)
    run = Run.create(store, settings)
    release(run)
    return run.url


def prepare_measures(store: str, measures: Sequence[str]) -> str:
    """Check that `measures` exist and that the run at `store` has the representations they need.

    Returns
    -------
    str
        URL of the run.

    Raises
    ------
    SettingsError
        If a measure is unknown.
    StoreError
        If there is no run at `store`, or its representations are not complete.
    """
    measure_stage(measures)
    return _open_finished(store, EMBED, retry="measure").url


def prepare_layers(store: str, networks: Sequence[str], layers: Sequence[str], activations: str) -> tuple[str, str]:
    """Check that a comparison of layers is possible, and save its specification in the run at `store`.

    Parameters
    ----------
    store
        Path or URL of the run.
    networks
        Names of one or two networks of the run.
    layers
        Patterns that the names of layers must match.
    activations
        ``pooled`` or ``flattened``.

    Returns
    -------
    tuple of str
        URL of the run, and the key of the specification.

    Raises
    ------
    SettingsError
        If a network is unknown or no layer matches.
    StoreError
        If there is no run at `store`, or its inversions are not complete.
    """
    from netsim.stages.layers import layer_spec  # loads the networks with torch

    run = _open_finished(store, INVERT, retry="layers")
    spec = layer_spec(run, networks, layers, activations)
    keep_spec(run, spec)
    return run.url, spec.key


def _open_finished(store: str, required: Stage, *, retry: str) -> Run:
    """Open a run whose stage `required` is complete, and release what is quarantined of the stage named `retry`."""
    run = Run.open(store)
    require_finished(run, [required])
    release(run, retry)
    return run


def _has_its_inputs(settings: SweepSettings, store: str) -> bool:
    """Tell whether all networks are recorded and all pairs drawn: then the image source may be gone."""
    if not Run.exists(store):
        return False
    run = Run.create(store, settings)
    return not TRAIN.missing(run) and not DRAW.missing(run)
