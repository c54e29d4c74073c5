"""What the Prefect UI shows of a sweep, as artifacts of its flow and task runs. docs/monitoring.md lists their keys.

All of it is made from the store, so it is right after a resumption too. What is shown while a stage works is for
looking only: if the server does not take it, the sweep goes on.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator
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
    biased_headline,
    headline,
    intervals,
    matrix_table,
    network_table,
    warnings,
)
from netsim.results.gallery import Gallery
from netsim.results.results import Results
from netsim.storage.stopwatch import Stopwatch
from netsim.store.run import Run
from netsim.store.stages import Stage, Unit, unit_label
from netsim.store.throughput import Tally, throughput_table
from tasks import metrics

PROGRESS_EVERY = 3.0
"""Seconds between two updates of a bar."""

TABLE_EVERY = 60.0
"""Seconds between two updates of a table of throughput, which lists the store and reads what is new."""

LISTING_SHARE = 0.05
"""The largest share of the time spent on that: a large run takes seconds to list."""

MOST_ROWS = 100
"""Rows of a table with one for each worker or shard: pages of the UI load the artifacts they list, whole."""


# ---- while a stage works


class Shown:
    """One stage of a run in the UI: a bar, and how fast its workers are."""

    def __init__(self, run: Run, stage: Stage, missing: int) -> None:
        self._run, self._stage = run, stage
        self._total = stage.total(run.settings)
        self._done = self._total - missing
        self._bar: UUID | None = None
        self._table: UUID | None = None
        self._tally = Tally(run, stage) if stage.per_pair else None
        self._bar_due, self._table_due = 0.0, time.monotonic() + TABLE_EVERY
        if missing:
            self._show_bar()

    def add(self, shards: int) -> None:
        """Some more are done. Most calls look at the clock and no further."""
        self.left(max(self._total - self._done - shards, 0))
        if time.monotonic() > self._bar_due:
            self._show_bar()
        if self._tally and time.monotonic() > self._table_due:
            self._show_table(self._tally)

    def left(self, missing: int) -> None:
        """What the store says is missing."""
        self._done = self._total - missing

    def last(self) -> None:
        """Show how it ended."""
        if self._bar:
            self._show_bar()
        if self._tally:
            self._show_table(self._tally)

    def _show_bar(self) -> None:
        metrics.MISSING.labels(self._stage.name).set(self._total - self._done)
        progress = 100 * self._done / self._total
        says = f"{self._stage.label}: {self._done:,} of {self._total:,}, {self._run.url}"
        with _if_possible():
            if self._bar is None:
                self._bar = _id(create_progress_artifact(progress, key=self._stage.name, description=says))
            else:
                update_progress_artifact(self._bar, progress=progress, description=says)
        self._bar_due = time.monotonic() + PROGRESS_EVERY

    def _show_table(self, tally: Tally) -> None:
        watch = Stopwatch()
        with _if_possible():
            tally.read(self._stage.done(self._run))
            rows = throughput_table(tally.found, most=MOST_ROWS)
            if rows and self._table is None:
                says = f"{self._stage.name}, by worker, of all shards in {self._run.url}"
                made = create_table_artifact(rows, key=f"throughput-{self._stage.name}", description=says)
                self._table = _id(made)
            elif self._table is not None:
                with get_client(sync_client=True) as client:
                    client.update_artifact(self._table, ArtifactUpdate(data=json.dumps(rows)))
        self._table_due = time.monotonic() + max(TABLE_EVERY, watch() / LISTING_SHARE)


@contextmanager
def shown(run: Run, stage: Stage, missing: int) -> Iterator[Shown]:
    """For the work of a stage. How it ended is shown also when it failed, but not when somebody presses Ctrl-C."""
    progress = Shown(run, stage, missing)
    try:
        yield progress
    except Exception:
        progress.last()
        raise
    progress.last()


@contextmanager
def _if_possible() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectException, NetsimError) as error:
        get_run_logger().warning("the UI is not up to date (%s: %s)", type(error).__name__, error)


def _id(made: Any) -> UUID:
    """These functions of Prefect are typed for coroutines too."""
    return made


def show_quarantined(aside: dict[Unit, dict[str, Any]]) -> None:
    """Why shards were set aside."""
    rows = [
        {"shard": unit_label(unit)} | {key: str(value) for key, value in why.items()} for unit, why in aside.items()
    ]
    more = [{"shard": f"and {len(rows) - MOST_ROWS:,} more"}] if len(rows) > MOST_ROWS else []
    with _if_possible():
        create_table_artifact(
            [*rows[:MOST_ROWS], *more], key="set-aside", description="Shards that could not be computed"
        )


# ---- what was found


def show_results(results: Results, gallery: Gallery, *, report: str) -> None:
    """The finding, both matrices, losses, heatmaps and gallery. `report` is where the whole report is."""
    from netsim.report.figures import gallery_figure, heatmaps
    from netsim.report.svg import (
        to_svg,
        to_webp,  # no other task waits for matplotlib
    )

    create_markdown_artifact(_summary(results, report), key="summary", description="What was found")
    for title, matrix in (("natural", results.natural), ("inverted", results.inverted)):
        says = f"{title} CKA, unbiased; row = through, column = observer; 95 % interval in brackets"
        create_table_artifact(matrix_table(results, matrix), key=f"{title}-cka", description=says)
    create_table_artifact(network_table(results), key="losses", description=NETWORK_TABLE)
    picture = _data_uri("svg+xml", to_svg(heatmaps(results)).encode())
    create_image_artifact(picture, key="heatmaps", description="Natural and inverted CKA")
    if figure := gallery_figure(gallery):
        says = "Seeds, targets, and what was inverted through each network"
        create_image_artifact(_data_uri("webp", to_webp(figure)), key="gallery", description=says)


def _summary(results: Results, report: str) -> str:
    says: tuple[Callable[[Results], str], ...] = (headline, biased_headline, intervals)
    doubts = [f"**Warning.** {doubt}" for doubt in warnings(results)]
    return "\n\n".join([*(f"{say(results)}." for say in says), *doubts, f"Report: `{report}`"])


def _data_uri(kind: str, content: bytes) -> str:
    """A browser needs nothing else: the store may be where it can't look."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
