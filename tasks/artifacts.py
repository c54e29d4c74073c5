"""Artifacts, which show a sweep in the Prefect UI. docs/howto/monitoring.md lists their keys.

All are attached to the flow run that a user lands on, whichever flow or task makes them, and named after the store. All
are made from the store, so they are right after resuming too, and for information only: if the server does not accept
them, the sweep continues.
"""

import base64
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import Any, Literal
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from netsim.errors import NetsimError
from netsim.results.findings import (
    MEASURED_TABLE,
    NETWORK_TABLE,
    matrix_table,
    measured_table,
    network_table,
    sentences,
    verdict_table,
    warnings,
)
from netsim.results.gallery import Gallery
from netsim.results.layers import find_spec, load_layers
from netsim.results.measured import load_measured
from netsim.results.results import Results
from netsim.results.stopping import Verdict
from netsim.results.study import Study, has_levels, level_table, make_study, study_headline, study_warnings
from netsim.storage.stopwatch import Stopwatch
from netsim.store.run import Run
from netsim.store.stages import Stage, Unit, unit_label
from netsim.store.throughput import Tally, throughput_table
from tasks import metrics
from tasks.landing import artifact_key, landing_run

PROGRESS_INTERVAL = 3.0
"""Minimum seconds between two updates of a progress bar."""

TABLE_INTERVAL = 60.0
"""Minimum seconds between two updates of a throughput table, which lists the store and reads the new records."""

MAX_LISTING_SHARE = 0.05
"""Maximum share of the time spent on throughput tables: listing a large run takes seconds."""

OUTAGE = 30.0
"""Seconds without updates of progress after the server did not answer one: work must not wait for it each time."""

MAX_ROWS = 100
"""Maximum rows of a table with one row per worker or shard: pages of the UI load the artifacts they list as a whole."""


Kind = Literal["image", "markdown", "progress", "table"]


def _create(store: str, kind: Kind, key: str, data: Any, description: str) -> UUID:
    """Attach an artifact to the run that a user lands on; its key begins with the name of the store."""
    with get_client(sync_client=True) as client:
        made = ArtifactCreate(
            type=kind,
            key=artifact_key(store, key),
            description=_described(store, description),
            data=_encoded(data),
            flow_run_id=landing_run(),
        )
        return client.create_artifact(made).id


def _update(artifact: UUID, store: str, data: Any, description: str) -> None:
    with get_client(sync_client=True) as client:
        update = ArtifactUpdate(data=_encoded(data), description=_described(store, description))
        client.update_artifact(artifact, update)


def _described(store: str, description: str) -> str:
    return f"{description}\n\nRun {code_span(store)}"


def _encoded(data: Any) -> Any:
    """Encode the rows of a table as Prefect does; other data are numbers and text."""
    return json.dumps(data) if isinstance(data, list) else data


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
        self._bar_due, self._table_due, self._silent_until = 0.0, time.monotonic() + TABLE_INTERVAL, 0.0
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
        self._silent_until = 0.0
        if self._bar:
            self._show_bar()
        if self._tally:
            self._show_table(self._tally)

    def _show_bar(self) -> None:
        metrics.MISSING.labels(self._stage.name).set(self._total - self._done)
        progress = 100 * self._done / self._total
        description = f"{self._stage.label}: {self._done:,} of {self._total:,}"
        self._bar = self._show("progress", self._stage.name, self._bar, progress, description)
        self._bar_due = time.monotonic() + PROGRESS_INTERVAL

    def _show_table(self, tally: Tally) -> None:
        watch = Stopwatch()
        with _tolerate_outages():
            tally.read(self._stage.units_done(self._run))
        if rows := throughput_table(tally.workers, limit=MAX_ROWS):
            description = f"Throughput of {self._stage.name} by worker, over all shards in the store"
            self._table = self._show("table", f"throughput-{self._stage.name}", self._table, rows, description)
        self._table_due = time.monotonic() + max(TABLE_INTERVAL, watch() / MAX_LISTING_SHARE)

    def _show(self, kind: Kind, key: str, artifact: UUID | None, data: Any, description: str) -> UUID | None:
        """Create or update an artifact, unless the server did not answer of late, and return its ID."""
        if time.monotonic() < self._silent_until:
            return artifact
        self._silent_until = time.monotonic() + OUTAGE
        # Prefect repeats a request for a minute, in which no further shard would be submitted
        with _tolerate_outages(), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            if artifact is None:
                artifact = _create(self._run.url, kind, key, data, description)
            else:
                _update(artifact, self._run.url, data, description)
            self._silent_until = 0.0
        return artifact


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


def show_quarantined(run: Run, units: dict[Unit, dict[str, Any]]) -> None:
    """Show the quarantined shards of a run with the reasons, in a table."""
    rows = [
        {"shard": unit_label(unit)} | {key: str(value) for key, value in reason.items()}
        for unit, reason in units.items()
    ]
    more = [{"shard": f"and {len(rows) - MAX_ROWS:,} more"}] if len(rows) > MAX_ROWS else []
    with _tolerate_outages():
        description = f"Quarantined shards: they failed every attempt. To retry: {_command('run --store', run)}"
        _create(run.url, "table", "quarantined", [*rows[:MAX_ROWS], *more], description)


def show_looks(run: Run, verdicts: Sequence[Verdict]) -> None:
    """Show what a sweep that stops when its results are known knew at each of its looks, in a table."""
    with _tolerate_outages():
        description = "Looks: what was known after how many pairs, with 95 % intervals"
        _create(run.url, "table", "looks", verdict_table(verdicts), description)


# ---- results


def show_results(run: Run, results: Results, gallery: Gallery, *, report: str) -> None:
    """Show the summary, both matrices, losses, heatmaps and gallery; `report` is the location of the full report."""
    # imported here, so that no other task waits for matplotlib
    from netsim.report.figures import gallery_figure
    from netsim.report.heatmaps import heatmaps
    from netsim.report.svg import to_svg, to_webp

    store = run.url
    with _tolerate_outages():
        _create(store, "markdown", "summary", _summary(run, results, report), "Findings")
        for title in ("natural", "inverted"):
            description = (
                f"Unbiased CKA on {title} images, with 95 % intervals: rows are through, columns are observers"
            )
            _create(store, "table", f"{title}-cka", matrix_table(results, title), description)
        _create(store, "table", "losses", network_table(results), NETWORK_TABLE)
        picture = _data_uri("svg+xml", to_svg(heatmaps(results)).encode())
        _create(store, "image", "heatmaps", picture, "Natural and inverted CKA")
        if figure := gallery_figure(gallery):
            description = "Seeds, targets, and the images inverted through each network"
            _create(store, "image", "gallery", _data_uri("webp", to_webp(figure)), description)
        if has_levels(results):
            _show_study(store, make_study(results))


def _show_study(store: str, study: Study) -> None:
    """Show similarity by eps, as a table and as curves."""
    from netsim.report.study import curves_figure
    from netsim.report.svg import to_svg

    description = escape_markdown(f"{study_headline(study)}. {' '.join(study_warnings(study))}")
    _create(store, "table", "robustness", level_table(study), description)
    picture = _data_uri("svg+xml", to_svg(curves_figure(study)).encode())
    _create(store, "image", "robustness-curves", picture, "Similarity by eps")


def show_measured(run: Run, measures: Sequence[str]) -> None:
    """Show the means of other measures, in a table."""
    with _tolerate_outages():
        measured = {name: measure for name, measure in load_measured(run).items() if name in measures}
        description = f"Other measures: {MEASURED_TABLE}. All cells: {_command('results', run)}"
        _create(run.url, "table", "measures", measured_table(measured), description)


def show_layers(run: Run, key: str) -> None:
    """Show the similarity of the layers of two networks, as heatmaps."""
    from netsim.report.drawings import draw_layers, stem_of
    from netsim.report.options import ReportOptions
    from netsim.report.svg import to_svg

    with _tolerate_outages():
        spec = find_spec(run, key)
        picture = to_svg(draw_layers(spec, load_layers(run, spec), ReportOptions())).encode()
        first, second = spec.networks
        description = escape_markdown(f"Layers of {first} (rows) and {second} (columns), {spec.activations}")
        _create(run.url, "image", stem_of(spec), _data_uri("svg+xml", picture), description)


def _summary(run: Run, results: Results, report: str) -> str:
    """Return the findings, and the commands that show more: no browser follows a link from here to a file or to S3."""
    paragraphs = [escape_markdown(sentence) for sentence in sentences(results)]
    paragraphs += [f"**Warning.** {escape_markdown(warning)}" for warning in warnings(results)]
    store = quote(run.url)
    commands = f"```\nnetsim results {store}\nnetsim report {store} -o report\n```"
    more = f"The report is {code_span(report)}. All tables, and a copy of the report in the folder `report`:"
    return "\n\n".join([*paragraphs, more, commands])


def _command(command: str, run: Run) -> str:
    return code_span(f"netsim {command} {quote(run.url)}")


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
