"""Write the report into the store, and what it says into the Prefect UI."""

import base64
from typing import Any

from prefect import task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from netsim.findings import biased_headline, headline, intervals, number, warnings
from netsim.plots import heatmaps, to_svg
from netsim.results import Matrix, Results, interval, load_results
from netsim.store import Run
from netsim.sweep import REPORT
from tasks.shards import OPTIONS, run_block


@task(name="report", task_run_name="report", **OPTIONS)
def report(store: str, name: str, shards: list[int]) -> dict[str, Any]:
    """Write the report from what is in the store; show both matrices and the heatmaps as artifacts."""
    run = Run.open(store)
    results = load_results(run)
    create_markdown_artifact(
        _markdown(results, run.files.place("report/report.html")), key="summary", description="What was found"
    )
    for title, matrix in (("natural", results.natural), ("inverted", results.inverted)):
        says = f"{title} CKA, unbiased; row = through, column = observer; 95 % interval in brackets"
        create_table_artifact(_table(results, matrix), key=f"{title}-cka", description=says)
    picture = base64.b64encode(to_svg(heatmaps(results)).encode()).decode()
    create_image_artifact(
        f"data:image/svg+xml;base64,{picture}", key="heatmaps", description="Natural and inverted CKA"
    )
    return run_block(store, REPORT, name, shards)  # last: once it is committed, nobody makes the artifacts any more


def _markdown(results: Results, place: str) -> str:
    doubts = [f"**Warning.** {doubt}" for doubt in warnings(results)]
    found = [f"{says(results)}." for says in (headline, biased_headline, intervals)]
    return "\n\n".join([*found, *doubts, f"Report: `{place}`"])


def _table(results: Results, matrix: Matrix) -> list[dict[str, str]]:
    values = matrix.cka_unbiased
    low, high = interval(results, values, matrix.cka_unbiased_se)

    def cell(at: tuple[int, int]) -> str:
        return f"{number(values[at])} [{number(low[at])}, {number(high[at])}]"

    return [
        {"through": name} | {observer: cell((row, column)) for column, observer in enumerate(results.networks)}
        for row, name in enumerate(results.networks)
    ]
