"""Artifacts in the Prefect UI, without a server."""

import base64
import html
import json
import logging
import shutil
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from markdown_it import MarkdownIt
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

from netsim.results.gallery import gallery
from netsim.results.results import load_results
from netsim.store.run import Run
from netsim.store.stages import EMBED, REPORT, TRAIN
from support.results import make_gallery, make_results, with_eps, with_verdict
from tasks import artifacts, verbs, worker

LANDING = uuid4()
"""The flow run that a user lands on."""


class Server:
    """A server that keeps what it is sent of artifacts, by key without the name of the store, and may be away."""

    def __init__(self) -> None:
        self.made: dict[str, SimpleNamespace] = {}
        self.sent: list[Any] = []
        self.away = False

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _take(self, data: Any) -> Any:
        self.sent.append(data)
        if self.away:
            raise httpx.ConnectError("refused")
        return json.loads(data) if isinstance(data, str) and data.startswith("[") else data

    def create_artifact(self, artifact: ArtifactCreate) -> SimpleNamespace:
        content = self._take(artifact.data)
        assert artifact.flow_run_id == LANDING and artifact.task_run_id is None
        name, _, key = str(artifact.key).partition("-")
        assert name in ("run", "demo")
        self.made[key] = SimpleNamespace(content=content, description=artifact.description)
        return SimpleNamespace(id=uuid4())

    def update_artifact(self, _: UUID, artifact: ArtifactUpdate) -> None:
        self._take(artifact.data)


@pytest.fixture
def server(monkeypatch) -> Server:
    """The server that artifacts are shown on."""
    made = Server()
    monkeypatch.setattr(artifacts, "get_client", lambda **_: made)
    monkeypatch.setattr(artifacts, "landing_run", lambda: LANDING)
    return made


@pytest.fixture
def created(server) -> dict[str, SimpleNamespace]:
    """The artifacts that are created, by key without the name of the store."""
    return server.made


DEMO: Any = SimpleNamespace(url="runs/demo")
"""A run of which only its place is used."""


def test_a_bar_moves_every_few_seconds_at_most_and_once_more_at_the_end(finished, server, monkeypatch):
    """However many blocks end in between."""
    moved = server.sent
    with artifacts.stage_progress(finished, TRAIN, missing=3) as bar:
        bar.add(1)
        bar.add(1)
        assert moved == [0]
        monkeypatch.setattr(artifacts, "PROGRESS_INTERVAL", 0.0)
        bar._bar_due = 0.0
        bar.add(0)
        bar.add(1)
    assert moved == [0, pytest.approx(200 / 3), 100, 100]


def test_the_bar_names_the_stage_the_count_and_the_store(finished, created):
    with artifacts.stage_progress(finished, TRAIN, missing=1):
        pass
    assert created["train"].description == f"Networks trained or checked: 2 of 3\n\nRun `{finished.url}`"


@pytest.mark.parametrize("text", ["runs/<b>x</b>", "a`b", "``", "`", "a|b*c*_d_[e](f)~~g~~ #h &amp; \\", "plain"])
def test_text_of_a_user_is_shown_as_it_is_and_never_as_markup(text):
    markdown = MarkdownIt("gfm-like", {"linkify": False})
    assert markdown.renderInline(artifacts.code_span(text)) == f"<code>{html.escape(text)}</code>"
    assert markdown.renderInline(artifacts.escape_markdown(text)) == html.escape(text)


def test_nothing_missing_shows_no_bar_but_the_throughput(finished, created):
    with artifacts.stage_progress(finished, EMBED, missing=0):
        pass
    assert created.keys() == {"throughput-embed"}
    (row,) = created["throughput-embed"].content
    assert (row["shards"], row["images"]) == ("20", "160")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_bar_shows_how_a_stage_failed_but_does_not_keep_ctrl_c_waiting(error, finished, server):
    def work() -> None:
        with artifacts.stage_progress(finished, TRAIN, missing=2) as bar:
            bar.add(1)
            raise error

    with pytest.raises(error):
        work()
    assert server.sent[1:] == ([pytest.approx(200 / 3)] if error is ValueError else [])


def test_a_server_that_is_away_is_a_warning_and_is_not_waited_for_again_until_the_end(
    finished, server, monkeypatch, caplog
):
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: logging.getLogger("a.flow"))
    monkeypatch.setattr(artifacts, "PROGRESS_INTERVAL", -1.0)
    server.away = True
    with artifacts.stage_progress(finished, TRAIN, missing=3) as bar:
        for _ in range(3):
            bar.add(1)
        assert len(server.sent) == 1
        server.away, bar._silent_until = False, 0.0
        bar.add(0)
    assert server.sent[1:] == [100, 100]
    assert caplog.messages == ["could not update the UI (ConnectError: refused)"]


def test_quarantined_shards_are_listed_with_their_reasons_a_hundred_at_most(created):
    units = {("invert", "vgg", shard): {"error": f"error {shard}", "workers": []} for shard in range(103)}
    artifacts.show_quarantined(DEMO, units)
    table = created["quarantined"].content
    assert "To retry: `netsim run --store runs/demo`" in created["quarantined"].description
    assert table[0] == {"shard": "invert vgg shard 0", "error": "error 0", "workers": "[]"}
    assert len(table) == 101 and table[-1] == {"shard": "and 3 more"}


def test_results_are_shown_with_findings_tables_and_images(finished, created):
    artifacts.show_results(finished, load_results(finished), gallery(finished), report="runs/demo/report.html")
    assert created.keys() == {"summary", "natural-cka", "inverted-cka", "losses", "heatmaps", "gallery"}
    summary = created["summary"].content
    assert "**Warning.** Not converged: " in summary
    assert summary.count(r"(images)") >= 3 and "(networks)" in summary
    assert "95 % intervals over other networks and images" in summary
    assert "\n\nThe report is `runs/demo/report.html`. All tables" in summary
    assert summary.endswith(f"```\nnetsim results {finished.url}\nnetsim report {finished.url} -o report\n```")
    assert [row["through"] for row in created["inverted-cka"].content] == ["vgg", "resnet18", "shufflenet"]
    json.dumps(created["losses"].content)
    for key, kind, begin in (("heatmaps", "svg+xml", b"<?xml"), ("gallery", "webp", b"RIFF")):
        head, content = created[key].content.split(",")
        assert head == f"data:image/{kind};base64" and base64.b64decode(content).startswith(begin)


def test_results_with_levels_of_eps_are_shown_by_eps(created):
    results = with_eps(make_results(6, n=64), 0.0, 0.5, architectures=3)
    artifacts.show_results(DEMO, results, make_gallery(results), report="report.html")
    table = created["robustness"]
    assert [(row[""], row["images"]) for row in table.content[:2]] == [
        ("unbiased CKA", "natural"),
        ("unbiased CKA", "inverted"),
    ]
    assert "3 architectures" in table.description and "slope per eps" in table.content[0]
    head, content = created["robustness-curves"].content.split(",")
    assert head == "data:image/svg+xml;base64" and b"eps (l2) of both networks" in base64.b64decode(content)


def test_the_report_is_shown_with_the_mean_of_converged_images_before_it_is_committed(
    finished, created, tmp_path, monkeypatch
):
    shutil.copytree(finished.url, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    run.forget("report", run.sweep.id, 0)
    monkeypatch.setattr(worker, "get_run_logger", lambda: logging.getLogger("a.task"))
    shown = []

    def show(*given, **options):
        shown.append(REPORT.missing(run))
        artifacts.show_results(*given, **options)

    monkeypatch.setattr(verbs, "show_results", show)
    for computed in (1, 0):
        assert verbs.report.fn(run.url, run.sweep.id, [0])["computed"] == computed
    assert shown == [[(run.sweep.id, 0)]] and not REPORT.missing(run)
    summary = created["summary"].content
    assert "On converged images alone" in summary
    assert f"report is {artifacts.code_span(run.files.place(f'report/{run.sweep.id}/report.html'))}" in summary


def test_looks_and_the_answer_are_shown(created):
    stopped = with_verdict(make_results(3, n=64), half_width=0.1)
    artifacts.show_looks(DEMO, [stopped.verdict])
    assert [row["verdict"] for row in created["looks"].content] == ["Known"]
    artifacts.show_results(DEMO, stopped, make_gallery(stopped), report="report.html")
    assert created["summary"].content.startswith("Known: inverted mean")
