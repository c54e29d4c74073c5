"""report: the page, figures and tables of a finished run, and both matrices as arrays."""

from netsim.results.gallery import gallery
from netsim.results.labelled import stored_arrays
from netsim.results.results import load_results
from netsim.stages.work import StageResult
from netsim.store.layout import report_path, results_path
from netsim.store.provenance import report_metadata
from netsim.store.run import Run


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Write the report on the sweep and both of its matrices, from what is in the store; `name` is its id."""
    from netsim.report.page import render_report  # draws: no other stage waits for matplotlib

    results = load_results(run)
    contents = render_report(results, gallery(run), run.settings.to_yaml())
    files = {report_path(name, file): contents[file] for file in sorted(contents)}
    matrices = {results_path(name, str(kind)): cells.values for kind, cells in stored_arrays(results).items()}
    return StageResult(matrices, files, report_metadata(run))
