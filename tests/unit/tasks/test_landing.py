"""Names and addresses of the flow run that a user lands on. tests/system/test_flow_sweep.py has a real server."""

import httpx
import pytest
from prefect.settings import PREFECT_UI_URL, temporary_settings

from tasks import landing
from tasks.landing import artifact_key, redact_password, run_page, store_name


@pytest.mark.parametrize(
    ("store", "key"),
    [("runs/demo", "demo-cka"), ("s3://a/B_2.0/", "b-2-0-cka"), ("/runs/Ünïcode", "n-code-cka"), ("/runs/日本", "cka")],
)
def test_the_key_of_an_artifact_has_what_prefect_allows_of_the_name_of_its_store(store, key):
    assert artifact_key(store, "cka") == key


@pytest.mark.parametrize("store", ["runs/demo", "/runs/demo/", "s3://bucket/a/demo"])
def test_a_store_is_named_by_the_last_part_of_its_place(store):
    assert store_name(store) == "demo"


V2 = {"default_ui": "v2", "v1_base_url": "/", "v2_base_url": "/v2"}


@pytest.mark.parametrize(
    ("ui", "answer", "page"),
    [
        ("http://host:4200", V2, "http://host:4200/v2/runs/flow-run/7"),
        ("http://host:4200/", V2 | {"default_ui": "v1"}, "http://host:4200/runs/flow-run/7"),
        ("http://host/lab", V2 | {"v2_base_url": "/lab/v2"}, "http://host/lab/v2/runs/flow-run/7"),
        ("http://me:secret@host", {}, "http://host/runs/flow-run/7"),
        ("http://host", None, "http://host/runs/flow-run/7"),
    ],
)
def test_the_page_of_a_run_is_in_the_default_ui_of_its_server_and_has_no_password(ui, answer, page, monkeypatch):
    def get(url: str, **_: object) -> httpx.Response:
        if answer is None:
            raise httpx.ConnectError("refused")
        assert url == f"{redact_password(ui).rstrip('/')}/ui-settings"
        return httpx.Response(200, json=answer)

    monkeypatch.setattr(landing.httpx, "get", get)
    with temporary_settings({PREFECT_UI_URL: ui}):
        assert run_page("7") == page
