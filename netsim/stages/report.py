"""report: the page, figures and tables of a finished run, and both matrices as arrays."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from netsim.errors import DataError
from netsim.results.gallery import Gallery, gallery
from netsim.results.labelled import stored_arrays
from netsim.results.matrices import column_names, row_names
from netsim.results.results import Loss, Results, load_results
from netsim.similarity.hsic import cka
from netsim.similarity.streaming import pair_hsic
from netsim.stages.inputs import Represented
from netsim.stages.work import StageResult
from netsim.store.layout import converged_path, inverted, report_path, results_path
from netsim.store.provenance import report_metadata
from netsim.store.run import Run


def compute(
    run: Run, name: str, shard: int, *, show: Callable[[Results, Gallery], None] = lambda *_: None
) -> StageResult:
    """Write the report on the sweep and both of its matrices, from what is in the store; `name` is its id.

    `show` is called with what the report is made of.
    """
    from netsim.report.page import render_report  # draws: no other stage waits for matplotlib

    results = load_results(run, on_converged=partial(on_converged, run))
    assert results.on_converged is not None
    images = gallery(run)
    show(results, images)
    contents = render_report(results, images, run.sweep.given_settings.to_yaml())
    files = {report_path(name, file): contents[file] for file in sorted(contents)}
    matrices = {results_path(name, str(kind)): cells.values for kind, cells in stored_arrays(results).items()}
    return StageResult(matrices | {converged_path(name): results.on_converged}, files, report_metadata(run))


def on_converged(run: Run, losses: Mapping[str, Loss]) -> np.ndarray:
    """Compute the inverted matrix, unbiased CKA, over those images only whose final loss is at most the tolerance.

    Returns
    -------
    array (1 + G, M, C)
        Over all shards, then without each; NaN where fewer than 4 images are left.
    """
    rows = {through: _row(run, through, losses[through].final) for through in dict.fromkeys(row_names(run))}
    return np.stack([rows[through] for through in row_names(run)], axis=1)


def _row(run: Run, through: str, final: np.ndarray) -> np.ndarray:
    """Compute a row: (1 + G, C)."""
    shards, observers = run.sweep.shards, column_names(run)
    reached = (final <= run.settings.inversion.tolerance).reshape(shards, -1)
    looks = Represented(run, inverted(through), run.sweep.columns, shards)
    pairs = [(through, observer) for observer in run.sweep.columns]
    pairs += [(observer, observer) for observer in run.sweep.columns if observer != through]
    sources = [partial(_select, partial(looks.read, shard), reached[shard]) for shard in range(shards)]
    try:
        sums = pair_hsic(sources, pairs)
    except DataError:  # too few rows
        return np.full((1 + shards, len(observers)), np.nan)
    cells = {
        observer: cka(sums[through, observer], sums[through, through], sums[observer, observer], "unbiased")
        for observer in run.sweep.columns
    }
    return np.stack([cells[observer] for observer in observers], axis=1)


def _select(read: Callable[[], dict[str, np.ndarray]], rows: Sequence[bool] | np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in read().items()}
