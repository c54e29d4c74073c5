"""report: the page, figures and tables of a finished run, and both matrices as arrays."""

from netsim.results.gallery import gallery
from netsim.results.labelled import stored_arrays
from netsim.results.results import load_results
from netsim.stages.work import StageResult
from netsim.store.metadata import Metadata
from netsim.store.provenance import dependency_records, made_from
from netsim.store.run import Run


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Write the report and both matrices, from what is in the store."""
    from netsim.report.page import render_report  # draws: no other stage waits for matplotlib

    results = load_results(run)
    contents = render_report(results, gallery(run), run.settings.to_yaml())
    files = {f"report/{file}": contents[file] for file in sorted(contents)}
    upstream = dependency_records(run, [("report", name, shard)]).values()
    matrices = {f"results/{name}": cells.values for name, cells in stored_arrays(results).items()}
    return StageResult(matrices, files, Metadata(made_from=made_from(record.content for record in upstream)))
