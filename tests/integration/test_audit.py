"""The audit of what is locked, against a service and an index of our own on 127.0.0.1."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest

from support import audit
from support.seaweed import free_ports

HASH = f"--hash=sha256:{'0' * 64}"


class Outside(BaseHTTPRequestHandler):
    """Knows of one vulnerability, as OSV says it, and of one withdrawn release, as PEP 691 says it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = {"name": "jinja2", "ecosystem": "PyPI"}
        mended = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.7.2"}]}
        known = {"id": "TEST-1", "summary": "bad", "affected": [{"package": package, "ranges": [mended]}]}
        self.answer({"vulns": [known]} if asked["package"]["name"] == "jinja2" and asked["version"] == "2.4.1" else {})

    def do_GET(self) -> None:
        name = self.path.strip("/").rpartition("/")[2]
        files = [{"filename": f"{name}-1.0{end}", "yanked": yanked} for end, yanked in (("", "broken"), (".1", False))]
        self.answer({"files": [file | {"filename": f"{file['filename']}.tar.gz"} for file in files]})

    def answer(self, content: object) -> None:
        self.send_response(200)
        self.send_header("Content-Type", audit.JSON)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def outside(monkeypatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Outside)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    ask(monkeypatch, url)
    yield url
    server.shutdown()
    server.server_close()


def ask(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"{url}/v1/query")
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")


def lock(tmp_path: Path, *pins: str) -> list[str]:
    path = tmp_path / "requirements.lock"
    path.write_text("".join(f"{pin} {HASH}\n" for pin in pins))
    return [str(path)]


def test_a_known_vulnerability_of_a_locked_package_is_told_with_where_it_is_mended(outside, tmp_path):
    found = audit.vulnerabilities(lock(tmp_path, "jinja2==2.4.1", "six==1.17.0"))
    assert found == {"TEST-1": "jinja2 2.4.1, mended in 2.7.2"}
    assert audit.vulnerabilities(lock(tmp_path, "jinja2==3.1.6")) == {}


def test_a_withdrawn_release_is_told_with_its_reason_and_no_other_one(outside, tmp_path):
    assert audit.yanked(lock(tmp_path, "left==1.0", "right==1.0.1")) == {"left 1.0": "withdrawn, broken"}


def test_what_is_away_fails_only_those_who_want_an_answer(monkeypatch, capsys, tmp_path):
    ask(monkeypatch, f"http://127.0.0.1:{free_ports(1)[0]}")
    pins = lock(tmp_path, f"numpy=={version('numpy')}")
    assert list(audit.faults(pins, must_answer=False)) == []
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in told] == [
        "audit: nobody tells of vulnerabilities",
        "audit: nobody tells of withdrawn releases",
    ]
    assert len(list(audit.faults(pins, must_answer=True))) == 2


def test_an_allowed_vulnerability_has_a_reason_until_it_is_gone(outside, monkeypatch, tmp_path):
    monkeypatch.setattr(audit, "ALLOWED", {"TEST-1": "templates are ours"})
    monkeypatch.setattr(audit, "differences", lambda _: [])
    assert list(audit.faults(lock(tmp_path, "jinja2==2.4.1"), must_answer=True)) == []
    (stale,) = audit.faults(lock(tmp_path, "jinja2==3.1.6"), must_answer=True)
    assert stale == "TEST-1 is not reported any more: take it out of ALLOWED"


def test_another_version_than_the_locked_one_is_told(tmp_path):
    (fault,) = audit.differences(lock(tmp_path, "numpy==0.1"))
    assert fault == f"numpy 0.1 is locked, and {version('numpy')} is installed"


def test_a_lock_with_a_pin_without_hashes_is_no_lock(tmp_path):
    path = tmp_path / "requirements.lock"
    path.write_text("numpy==0.1\n")
    with pytest.raises(AssertionError, match="not a hashed pin"):
        audit.differences([str(path)])
