"""Proxies of the environment are not used on loopback addresses. tests/system/test_server.py runs a sweep with one."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import proxy_bypass_environment

import httpx
import pytest

from tasks.proxies import LOOPBACK, bypass_proxies_on_loopback

PROXY = {"HTTP_PROXY": "http://proxy.example:3128"}


def extended(**environment: str) -> dict[str, str]:
    bypass_proxies_on_loopback(environment)
    return environment


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_loopback_addresses_are_exceptions_from_any_proxy(name):
    environment = extended(**{name: "http://proxy.example:3128"})
    assert environment["NO_PROXY"] == environment["no_proxy"] == "localhost,127.0.0.1,::1"


def test_exceptions_of_the_user_are_kept_under_both_names():
    assert extended(NO_PROXY="lab.example", **PROXY)["no_proxy"] == "lab.example,localhost,127.0.0.1,::1"
    both = extended(NO_PROXY="upper.example", no_proxy="lower.example, 127.0.0.1", **PROXY)
    assert both["NO_PROXY"] == "upper.example,localhost,127.0.0.1,::1"
    assert both["no_proxy"] == "lower.example,127.0.0.1,localhost,::1"
    assert extended(**both) == both


def test_an_environment_without_a_proxy_is_left_alone():
    assert extended(NO_PROXY="lab.example", HTTP_PROXY="") == {"NO_PROXY": "lab.example", "HTTP_PROXY": ""}


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_process_that_imports_tasks_reaches_a_server_on_this_machine(port):
    """Port 9 refuses connections, as some proxies do."""
    env = os.environ | {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    env = {name: value for name, value in env.items() if name.lower() != "no_proxy"}
    code = f"import httpx; print(httpx.get('http://127.0.0.1:{port}').status_code)"
    for before, printed in (("import tasks; ", "200"), ("", "")):
        command = [sys.executable, "-c", before + code]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == printed, done.stderr


@pytest.mark.parametrize("host", LOOPBACK)
def test_the_libraries_in_use_understand_each_address(host, monkeypatch):
    """httpx carries Prefect, and urllib decides for botocore."""
    for name, value in extended(**PROXY).items():
        monkeypatch.setenv(name, value)
    url = httpx.URL(f"http://[{host}]:1" if ":" in host else f"http://{host}:1")
    with httpx.Client() as client:
        assert client._transport_for_url(url) is client._transport
        assert client._transport_for_url(httpx.URL("http://lab.example")) is not client._transport
    assert proxy_bypass_environment(host)
