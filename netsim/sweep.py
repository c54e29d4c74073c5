"""A sweep: its stages in order, the last of which writes the report of what the others found."""

import tempfile
from pathlib import Path

from netsim import units
from netsim.report import write_report
from netsim.results import gallery, load_results
from netsim.stages import AGGREGATE, DRAW, EMBED, INVERT, TRAIN, Stage
from netsim.store import Record, Run, Stopwatch


def report_files(run: Run, name: str, shard: int) -> Record:
    """Write the report into the store, from what is in the store."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        write_report(load_results(run), gallery(run), Path(folder), settings_yaml=run.settings.to_yaml())
        files = {f"report/{path.name}": path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return run.commit("report", name, shard, arrays={}, files=files, seconds=watch())


REPORT = Stage(units.REPORT, lambda run: [], report_files)

STAGES = (TRAIN, DRAW, INVERT, EMBED, AGGREGATE, REPORT)
