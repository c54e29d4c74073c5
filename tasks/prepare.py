"""Preparation of a flow: everything that can fail before work starts, fails here.

Modules that load torch are imported in the functions that need them: resuming a sweep needs none.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from netsim.errors import DataError, SettingsError
from netsim.results.layers import keep_spec
from netsim.results.measured import measure_stage
from netsim.results.stopping import current_look, first_look
from netsim.settings import SweepSettings
from netsim.store.quarantine import release
from netsim.store.run import Run
from netsim.store.stages import DRAW, EMBED, INVERT, TRAIN, Stage, require_finished
from netsim.store.status import unreadable_counts
from netsim.store.sweeps import Sweep
from netsim.store.views import view

_checked: ContextVar[tuple[str, str] | None] = ContextVar("_checked", default=None)
"""URL and sweep of the run whose networks and images the command has just checked."""


@contextmanager
def checked(run: Run) -> Iterator[None]:
    """Let the flow that is called in the block rely on the checks of `prepare` that led to `run`."""
    token = _checked.set((run.url, run.sweep.id))
    try:
        yield
    finally:
        _checked.reset(token)


def prepare(settings: SweepSettings, store: str, label: str = "", *, download: bool = False) -> Run:
    """Check the settings, then ask them of the store at `store`, which is made if there is none.

    Parameters
    ----------
    settings
        The settings.
    store
        Path or URL of the store.
    label
        Name of the sweep in the store.
    download
        Download weights that are not cached before anything starts, for workers that use the same cache.

    Returns
    -------
    Run
        The store, as the sweep sees it. Its URL means the same on every worker.

    Raises
    ------
    SettingsError, NetworkError, DataError, StoreError
        If the sweep cannot run. Nothing in the store has been changed then.
    """
    from netsim.planning.resolve import resolve

    sweep = resolve(settings, store, label=label)
    _require_different(sweep)
    run = Run.at(store, sweep) if Run.exists(store) else None
    if run:
        run.require(sweep.protocol)
        _require_readable(run)
        run = current_look(run)
    unrecorded = {name for name, _ in TRAIN.missing(run)} if run else set(sweep.columns)
    just_checked = run is not None and _checked.get() == (run.url, run.sweep.id)
    if not just_checked and (run is None or unrecorded or DRAW.missing(run)):
        from netsim.planning.preflight import preflight  # builds the networks with torch

        preflight(sweep, [name for name in sweep.columns if name in unrecorded], download=download)
    run = Run.create(store, run.sweep if run else first_look(sweep))
    release(run)
    return run


def _require_different(sweep: Sweep) -> None:
    """Raise SettingsError if `pairs.until` asks how a network differs from itself."""
    until = sweep.settings.pairs.until
    rows = until.differ if until and until.differ else ()
    if rows and len({sweep.stored_name(row) for row in rows}) == 1:
        raise SettingsError(f"pairs.until.differ must be two networks, got {rows[0]} and {rows[1]}, which are one")


def _require_readable(run: Run) -> None:
    """Raise DataError if images are unreadable, as an earlier sweep found that skips them, but this one does not."""
    if run.settings.images.unreadable == "skip":
        return
    for split, (count, listed) in unreadable_counts(run).items():
        if count:
            raise DataError(
                f"{count} of {listed} {split} images are unreadable, and an earlier sweep of {run.url} skipped them; "
                "skip them too with --set images.unreadable=skip"
            )


def open_run(store: str, sweep: str) -> Run:
    """Open a store as a sweep sees it; raises as `Run.open` does."""
    return Run.open(store, sweep)


def open_view(
    store: str, sweep: str | None = None, networks: Sequence[str] | None = None, pairs: int | None = None
) -> Run:
    """Open a store as a sweep sees it, or some networks and pairs; raises as `Run.open` and `view` do."""
    return view(Run.open(store, sweep), networks, pairs)


def prepare_measures(run: Run, measures: Sequence[str]) -> Run:
    """Check that `measures` exist and that a run has the representations they need.

    Raises
    ------
    SettingsError
        If a measure is unknown.
    StoreError
        If its representations are not complete.
    """
    measure_stage(measures)
    return _finished(run, EMBED, retry="measure")


def prepare_layers(run: Run, networks: Sequence[str], layers: Sequence[str], activations: str) -> str:
    """Check that a comparison of layers is possible, and save its specification in the run.

    Parameters
    ----------
    run
        The run.
    networks
        Names of one or two networks of the run.
    layers
        Patterns that the names of layers must match.
    activations
        ``pooled`` or ``flattened``.

    Returns
    -------
    str
        Key of the specification.

    Raises
    ------
    SettingsError
        If a network is unknown or no layer matches.
    StoreError
        If its inversions are not complete.
    """
    from netsim.stages.layers import layer_spec  # loads the networks with torch

    _finished(run, INVERT, retry="layers")
    spec = layer_spec(run, networks, layers, activations)
    keep_spec(run, spec)
    return spec.key


def _finished(run: Run, required: Stage, *, retry: str) -> Run:
    """Require that the stage `required` is complete, and release what is quarantined of the stage named `retry`."""
    require_finished(run, [required])
    release(run, retry)
    return run
