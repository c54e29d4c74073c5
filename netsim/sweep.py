"""A sweep: its stages in order, the last of which writes the report of what the others found."""

import tempfile
from pathlib import Path

from netsim.results import MATRICES, both_matrices, gallery, load_results
from netsim.stages import AGGREGATE, CHECK, DRAW, EMBED, INVERT, TRAIN, Stage, Work
from netsim.store import stages
from netsim.store.arrays import ArraySpec
from netsim.store.provenance import made_from, source_records
from netsim.store.run import Run


def report_arrays(run: Run) -> list[ArraySpec]:
    """Both matrices, for whoever opens the store without netsim."""
    names = run.settings.names
    dims = {"set": ("natural", "inverted"), "through": names, "observer": names}
    shape = (2, len(names), len(names))
    return [ArraySpec(f"results/{kind}", shape, "float64", tuple(dims), dims) for kind in MATRICES]


def write_report_files(run: Run, name: str, shard: int) -> Work:
    """The report and both matrices, from what is in the store."""
    from netsim.report import write_report  # draws: no other stage waits for matplotlib

    results = load_results(run)
    with tempfile.TemporaryDirectory() as folder:
        write_report(results, gallery(run), Path(folder), settings_yaml=run.settings.to_yaml())
        files = {f"report/{path.name}": path.read_bytes() for path in sorted(Path(folder).iterdir())}
    made_of = source_records(run, [("report", name, shard)]).values()
    matrices = {f"results/{kind}": cells for kind, cells in both_matrices(results).items()}
    return Work(matrices, files, facts={"made_from": made_from(record.content for record in made_of)})


REPORT = Stage(stages.REPORT, report_arrays, write_report_files)

STAGES = (CHECK, TRAIN, DRAW, INVERT, EMBED, AGGREGATE, REPORT)
