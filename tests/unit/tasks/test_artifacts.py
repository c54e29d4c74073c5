"""Artifacts in the Prefect UI, without a server."""

import base64
import html
import json
import logging
import shutil
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from markdown_it import MarkdownIt

from netsim.results.gallery import gallery
from netsim.results.results import load_results
from netsim.store.run import Run
from netsim.store.stages import EMBED, REPORT, TRAIN
from support.results import make_gallery, make_results, with_eps, with_verdict
from tasks import artifacts, verbs, worker


@pytest.fixture
def created(monkeypatch) -> dict[str, SimpleNamespace]:
    """The artifacts that are created, by key."""
    made: dict[str, SimpleNamespace] = {}

    def keep(content: object = None, *, key: str, description: str, **more: object) -> object:
        made[key] = SimpleNamespace(content=more.get("image_url", content), description=description)
        return uuid4()

    for kind in ("image", "markdown", "progress", "table"):
        monkeypatch.setattr(artifacts, f"create_{kind}_artifact", keep)
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda *_, **__: None)
    return made


def test_a_bar_moves_every_few_seconds_at_most_and_once_more_at_the_end(finished, monkeypatch):
    """However many blocks end in between."""
    moved: list[float] = []
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda progress, **_: moved.append(progress) or uuid4())
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda _, progress, **__: moved.append(progress))
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
    assert created["train"].description == f"Networks trained or checked: 2 of 3, `{finished.url}`"


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
def test_a_bar_shows_how_a_stage_failed_but_does_not_keep_ctrl_c_waiting(error, finished, created, monkeypatch):
    updates: list[float] = []
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda _, progress, **__: updates.append(progress))

    def work() -> None:
        with artifacts.stage_progress(finished, TRAIN, missing=2) as bar:
            bar.add(1)
            raise error

    with pytest.raises(error):
        work()
    assert updates == ([pytest.approx(200 / 3)] if error is ValueError else [])


def test_a_server_that_is_away_is_a_warning(finished, monkeypatch, caplog):
    def refuse(*_: object, **__: object) -> None:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(artifacts, "create_progress_artifact", refuse)
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: logging.getLogger("a.flow"))
    with artifacts.stage_progress(finished, TRAIN, missing=1):
        pass
    assert caplog.messages == ["could not update the UI (ConnectError: refused)"]


def test_quarantined_shards_are_listed_with_their_reasons_a_hundred_at_most(created):
    units = {("invert", "vgg", shard): {"error": f"error {shard}", "workers": []} for shard in range(103)}
    artifacts.show_quarantined(units)
    table = created["set-aside"].content
    assert table[0] == {"shard": "invert vgg shard 0", "error": "error 0", "workers": "[]"}
    assert len(table) == 101 and table[-1] == {"shard": "and 3 more"}


def test_results_are_shown_with_findings_tables_and_images(finished, created):
    artifacts.show_results(load_results(finished), gallery(finished), report="runs/demo/report/report.html")
    assert created.keys() == {"summary", "natural-cka", "inverted-cka", "losses", "heatmaps", "gallery"}
    summary = created["summary"].content
    assert "**Warning.** Not converged: " in summary
    assert summary.count(r"(images)") >= 3 and "(networks)" in summary
    assert "95 % intervals over other networks and images" in summary
    assert summary.endswith("\n\nReport: `runs/demo/report/report.html`")
    assert [row["through"] for row in created["inverted-cka"].content] == ["vgg", "resnet18", "shufflenet"]
    json.dumps(created["losses"].content)
    for key, kind, begin in (("heatmaps", "svg+xml", b"<?xml"), ("gallery", "webp", b"RIFF")):
        head, content = created[key].content.split(",")
        assert head == f"data:image/{kind};base64" and base64.b64decode(content).startswith(begin)


def test_results_with_levels_of_eps_are_shown_by_eps(created):
    results = with_eps(make_results(6, n=64), 0.0, 0.5, architectures=3)
    artifacts.show_results(results, make_gallery(results), report="report.html")
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
    assert summary.endswith(f"\n\nReport: {artifacts.code_span(run.files.place(f'report/{run.sweep.id}/report.html'))}")


def test_looks_and_the_answer_are_shown(created):
    stopped = with_verdict(make_results(3, n=64), half_width=0.1)
    artifacts.show_looks([stopped.verdict])
    assert [row["verdict"] for row in created["looks"].content] == ["Known"]
    artifacts.show_results(stopped, make_gallery(stopped), report="report.html")
    assert created["summary"].content.startswith("Known: inverted mean")
