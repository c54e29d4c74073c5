"""Artifacts of flow and task runs, which show a sweep in the Prefect UI. docs/howto/monitoring.md lists their keys.

All are made from the store, so they are right after resuming too, and for information only: if the server does not
accept them, the sweep continues.
"""

import base64
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException

from netsim.errors import NetsimError
from netsim.results.findings import (
    NETWORK_TABLE,
    matrix_table,
    network_table,
    sentences,
    verdict_table,
    warnings,
)
from netsim.results.gallery import Gallery
from netsim.results.results import Results
from netsim.results.stopping import Verdict
from netsim.results.study import Study, has_levels, level_table, make_study, study_headline, study_warnings
from netsim.storage.stopwatch import Stopwatch
from netsim.store.run import Run
from netsim.store.stages import Stage, Unit, unit_label
from netsim.store.throughput import Tally, throughput_table
from tasks import metrics

PROGRESS_INTERVAL = 3.0
"""Minimum seconds between two updates of a progress bar."""

TABLE_INTERVAL = 60.0
"""Minimum seconds between two updates of a throughput table, which lists the store and reads the new records."""

MAX_LISTING_SHARE = 0.05
"""Maximum share of the time spent on throughput tables: listing a large run takes seconds."""

MAX_ROWS = 100
"""Maximum rows of a table with one row per worker or shard: pages of the UI load the artifacts they list as a whole."""


# ---- progress of a stage


class StageProgress:
    """Progress bar and throughput table of one stage of a run."""

    def __init__(self, run: Run, stage: Stage, missing: int) -> None:
        self._run, self._stage = run, stage
        self._total = stage.total(run.sweep)
        self._done = self._total - missing
        self._bar: UUID | None = None
        self._table: UUID | None = None
        self._tally = Tally(run, stage) if stage.per_pair else None
        self._bar_due, self._table_due = 0.0, time.monotonic() + TABLE_INTERVAL
        if missing:
            self._show_bar()

    def add(self, shards: int) -> None:
        """Count further shards as done, and update what is due."""
        self.set_missing(max(self._total - self._done - shards, 0))
        if time.monotonic() > self._bar_due:
            self._show_bar()
        if self._tally and time.monotonic() > self._table_due:
            self._show_table(self._tally)

    def set_missing(self, missing: int) -> None:
        """Set how many shards the store is missing."""
        self._done = self._total - missing

    def finish(self) -> None:
        """Show the final state."""
        if self._bar:
            self._show_bar()
        if self._tally:
            self._show_table(self._tally)

    def _show_bar(self) -> None:
        metrics.MISSING.labels(self._stage.name).set(self._total - self._done)
        progress = 100 * self._done / self._total
        description = f"{self._stage.label}: {self._done:,} of {self._total:,}, {code_span(self._run.url)}"
        with _tolerate_outages():
            if self._bar is None:
                self._bar = _id(create_progress_artifact(progress, key=self._stage.name, description=description))
            else:
                update_progress_artifact(self._bar, progress=progress, description=description)
        self._bar_due = time.monotonic() + PROGRESS_INTERVAL

    def _show_table(self, tally: Tally) -> None:
        watch = Stopwatch()
        with _tolerate_outages():
            tally.read(self._stage.units_done(self._run))
            rows = throughput_table(tally.workers, limit=MAX_ROWS)
            if rows and self._table is None:
                description = (
                    f"Throughput of {self._stage.name} by worker, over all shards in {code_span(self._run.url)}"
                )
                key = f"throughput-{self._stage.name}"
                self._table = _id(create_table_artifact(rows, key=key, description=description))
            elif self._table is not None:
                with get_client(sync_client=True) as client:
                    client.update_artifact(self._table, ArtifactUpdate(data=json.dumps(rows)))
        self._table_due = time.monotonic() + max(TABLE_INTERVAL, watch() / MAX_LISTING_SHARE)


@contextmanager
def stage_progress(run: Run, stage: Stage, missing: int) -> Iterator[StageProgress]:
    """Show the progress of a stage during the block, and its final state at the end unless Ctrl-C ended it."""
    progress = StageProgress(run, stage, missing)
    try:
        yield progress
    except Exception:
        progress.finish()
        raise
    progress.finish()


@contextmanager
def _tolerate_outages() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectException, NetsimError) as error:
        get_run_logger().warning("could not update the UI (%s: %s)", type(error).__name__, error)


def _id(artifact: Any) -> UUID:
    """Narrow the type of a new artifact's ID: Prefect annotates these functions for coroutines too."""
    return artifact


def show_quarantined(units: dict[Unit, dict[str, Any]]) -> None:
    """Show the quarantined shards with the reasons, in a table."""
    rows = [
        {"shard": unit_label(unit)} | {key: str(value) for key, value in reason.items()}
        for unit, reason in units.items()
    ]
    more = [{"shard": f"and {len(rows) - MAX_ROWS:,} more"}] if len(rows) > MAX_ROWS else []
    with _tolerate_outages():
        description = "Quarantined shards: they failed every attempt"
        create_table_artifact([*rows[:MAX_ROWS], *more], key="set-aside", description=description)


def show_looks(verdicts: Sequence[Verdict]) -> None:
    """Show what a sweep that stops when its results are known knew at each of its looks, in a table."""
    with _tolerate_outages():
        description = "Looks: what was known after how many pairs, with 95 % intervals"
        create_table_artifact(verdict_table(verdicts), key="looks", description=description)


# ---- results


def show_results(results: Results, gallery: Gallery, *, report: str) -> None:
    """Show the summary, both matrices, losses, heatmaps and gallery; `report` is the location of the full report."""
    # imported here, so that no other task waits for matplotlib
    from netsim.report.figures import gallery_figure
    from netsim.report.heatmaps import heatmaps
    from netsim.report.svg import to_svg, to_webp

    with _tolerate_outages():
        create_markdown_artifact(_summary(results, report), key="summary", description="Findings")
        for title in ("natural", "inverted"):
            description = (
                f"Unbiased CKA on {title} images, with 95 % intervals: rows are through, columns are observers"
            )
            create_table_artifact(matrix_table(results, title), key=f"{title}-cka", description=description)
        create_table_artifact(network_table(results), key="losses", description=NETWORK_TABLE)
        picture = _data_uri("svg+xml", to_svg(heatmaps(results)).encode())
        create_image_artifact(picture, key="heatmaps", description="Natural and inverted CKA")
        if figure := gallery_figure(gallery):
            description = "Seeds, targets, and the images inverted through each network"
            create_image_artifact(_data_uri("webp", to_webp(figure)), key="gallery", description=description)
        if has_levels(results):
            _show_study(make_study(results))


def _show_study(study: Study) -> None:
    """Show similarity by eps, as a table and as curves."""
    from netsim.report.study import curves_figure
    from netsim.report.svg import to_svg

    description = escape_markdown(f"{study_headline(study)}. {' '.join(study_warnings(study))}")
    create_table_artifact(level_table(study), key="robustness", description=description)
    picture = _data_uri("svg+xml", to_svg(curves_figure(study)).encode())
    create_image_artifact(picture, key="robustness-curves", description="Similarity by eps")


def _summary(results: Results, report: str) -> str:
    paragraphs = [escape_markdown(sentence) for sentence in sentences(results)]
    paragraphs += [f"**Warning.** {escape_markdown(warning)}" for warning in warnings(results)]
    return "\n\n".join([*paragraphs, f"Report: {code_span(report)}"])


def code_span(text: str) -> str:
    """Return text as code in Markdown, with a fence that is longer than any in it: a path may have any character.

    Examples
    --------
    >>> code_span("runs/<b>")
    '`runs/<b>`'
    """
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is: names of files and classes may have any character."""
    return re.sub(r"([\\`*_\[\]<>&|#~])", r"\\\1", text)


def _data_uri(kind: str, content: bytes) -> str:
    """Embed content in a URI: browsers may not be able to reach the store."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
