"""Write the report into the store, and what it says into the Prefect UI."""

from typing import Any

from prefect import task

from netsim.results import gallery, load_results
from netsim.store.run import Run
from netsim.sweep import REPORT
from tasks.artifacts import show_results
from tasks.shards import OPTIONS, run_block


@task(name="report", task_run_name="report", **OPTIONS)
def report(store: str, name: str, shards: list[int]) -> dict[str, Any]:
    """Write the report from what is in the store; show tables, heatmaps and images as artifacts."""
    run = Run.open(store)
    show_results(load_results(run), gallery(run), report=run.files.place("report/report.html"))
    return run_block(store, REPORT, name, shards)  # last: once it is committed, nobody makes the artifacts any more
