"""The Prefect server: the one that netsim starts is guarded, and one that keeps this user out says so in one line."""

import errno
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import prefect
import psutil
import pytest
from packaging.version import Version
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_BASE_PATH,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)

from flows.clusters.certificates import make_certificates
from flows.server.access import access_problem
from flows.server.listeners import listening_process
from flows.server.server import _local_api, prefect_server
from flows.server.start import (
    _exclusive,
    _starting_servers,
    _try_lock,
    ensure_running,
    require_space,
    short_authorities,
)
from netsim.errors import RunError
from netsim.settings import parse_settings
from support.seaweed import free_ports
from support.servers import NETSIM, netsim, wait_until
from support.sweeps import TINY

ROOT = Path(__file__).parents[2]

AUTH = "somebody:a-password"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment without a server, in which the one that netsim starts asks for a password; it is stopped."""
    home = tmp_path_factory.mktemp("prefect")
    env = os.environ | {"PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / "profiles.toml")}
    env |= {"PREFECT_SERVER_API_PORT": str(free_ports(1)[0])}
    env |= {"PREFECT_SERVER_API_AUTH_STRING": AUTH, "PREFECT_API_AUTH_STRING": AUTH}
    env.pop("PREFECT_API_URL", None)
    try:
        yield env
    finally:
        with suppress(FileNotFoundError):
            os.kill(int((home / "server.pid").read_text()), signal.SIGTERM)


def test_a_sweep_starts_a_server_with_a_password_and_nobody_else_gets_in(guarded, tmp_path):
    path, port = tmp_path / "mine.yaml", guarded["PREFECT_SERVER_API_PORT"]
    small = TINY | {"networks": TINY["networks"][1:], "pairs": {"count": 8, "shard_size": 4}}
    path.write_text(parse_settings(small).to_yaml())
    with (tmp_path / "log").open("w") as log:
        command = [*NETSIM, "run", str(path), "--workers", "1"]
        run = subprocess.Popen(command, env=guarded, cwd=tmp_path, stdout=log, stderr=log)
    seen: set[str] = set()
    while run.poll() is None:
        seen |= {" ".join(cmdline) for cmdline in map(command_of, psutil.Process(run.pid).children(recursive=True))}
        time.sleep(0.2)
    told = (tmp_path / "log").read_text()
    assert run.returncode == 0, told
    assert AUTH not in told and not any(AUTH in command for command in seen)
    assert {command for command in seen if "uvicorn" in command} == set()  # Prefect's temporary servers

    api = f"http://127.0.0.1:{port}/api"
    for wrong in ({"PREFECT_API_AUTH_STRING": "somebody:guesses"}, {}):
        env = {name: value for name, value in guarded.items() if "AUTH_STRING" not in name}
        env |= {"PREFECT_API_URL": api} | wrong
        refused = netsim("run", str(path), "--store", str(tmp_path / "other"), env=env, cwd=tmp_path)
        assert refused.returncode == 1
        assert refused.stderr == (
            f"netsim: the Prefect server at {api} rejects this user (401). "
            "Set PREFECT_API_AUTH_STRING to the USER:PASSWORD that it was started with\n"
        )

    # what a page of another site could have a browser send, with the password that the browser knows
    login = tuple(AUTH.split(":"))
    sent = httpx.post(
        f"{api}/flows/", content=b'{"name": "theirs"}', auth=login, headers={"Origin": "http://evil.example"}
    )
    assert (sent.status_code, sent.json()["detail"]) == (403, "Missing CSRF token.")
    read = httpx.get(f"{api}/health", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in read.headers


def test_a_sweep_whose_server_is_killed_starts_it_again_and_computes_meanwhile(guarded, tmp_path):
    path, store, port = tmp_path / "mine.yaml", tmp_path / "killed", int(guarded["PREFECT_SERVER_API_PORT"])
    path.write_text(parse_settings(TINY | {"pairs": {"count": 64, "shard_size": 8}}).to_yaml())
    command = [*NETSIM, "run", str(path), "--store", str(store), "--workers", "1", "--shards-per-task", "1"]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, env=guarded, cwd=tmp_path, stdout=log, stderr=log)

    def inverted() -> int:
        assert run.poll() is None, (tmp_path / "log").read_text()
        return len(list(store.glob("commits/invert/*/*.json")))

    wait_until(lambda: inverted() > 0, seconds=300)
    killed = listening_process(port)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    before = inverted()
    wait_until(lambda: inverted() > before, seconds=60)
    printed, code = (tmp_path / "log").read_text, run.wait(timeout=300)
    assert code == 0, printed()
    assert printed().count("the Prefect server at") == 1 and "is started again; work goes on meanwhile" in printed()
    assert "Traceback" not in printed() and "ERROR" not in printed()
    again = listening_process(port)
    assert again not in (None, killed) and (Path(guarded["PREFECT_HOME"]) / "server.pid").read_text() == str(again)
    status = netsim("status", str(store), env=guarded, cwd=tmp_path)
    assert "sweep-killed, the last one, completed" in status.stdout


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it is gone
        return []


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.skipif(not Path("/proc/net/tcp").exists() or os.geteuid() != 0, reason="needs Linux and two users")
def test_the_server_of_another_user_of_the_machine_is_not_used(tmp_path):
    """Whoever waits at Prefect's port would have what runs tell it, and their code in them."""
    os.seteuid(65534)
    try:
        listening = socket.create_server(("127.0.0.1", 0))
    finally:
        os.seteuid(0)
    port = listening.getsockname()[1]
    server = ThreadingHTTPServer(("127.0.0.1", port), Healthy, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = tmp_path / "mine.yaml"
    path.write_text(parse_settings(TINY).to_yaml())
    env = os.environ | {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_API_PORT": str(port)}
    env.pop("PREFECT_API_URL", None)
    found = netsim("run", str(path), env=env, cwd=tmp_path)
    server.shutdown()
    server.server_close()
    assert found.returncode == 1
    assert found.stderr == (
        f"netsim: the Prefect server at port {port} belongs to another user of this machine (uid 65534). "
        "Set PREFECT_SERVER_API_PORT to a free port, or PREFECT_API_URL if you trust it\n"
    )


def start(count: int, env: dict[str, str]) -> list[subprocess.Popen[str]]:
    """Start processes that want a server at the same time."""
    code = "from flows.server.server import prefect_server as p\nwith p() as server: print(*server)"
    options: dict[str, Any] = {"cwd": ROOT, "env": env, "stdout": -1, "stderr": -1, "text": True}
    return [subprocess.Popen([sys.executable, "-c", code], **options) for _ in range(count)]


def test_commands_that_begin_at_once_share_one_server_though_one_is_killed_and_a_proxy_refuses(tmp_path):
    (port,) = free_ports(1)
    env = os.environ | {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_API_PORT": str(port)}
    env |= {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}  # a port that refuses
    env = {name: value for name, value in env.items() if name not in ("PREFECT_API_URL", "NO_PROXY", "no_proxy")}
    (tmp_path / "server.pid").write_text("1")  # left by a server that was killed
    processes = start(3, env)
    wait_until(lambda: _starting_servers(port), seconds=60)
    (server,) = _starting_servers(port)
    (victim,) = (process for process in processes if process.pid == psutil.Process(server).ppid())
    victim.kill()
    victim.communicate()
    others = [process for process in processes if process is not victim]
    try:
        for output, errors in [process.communicate(timeout=300) for process in others]:
            assert output == f"http://127.0.0.1:{port} True\n", errors
        assert _starting_servers(port) == [server] == [listening_process(port)]
        assert (tmp_path / "server.pid").read_text() == str(server)
        stop = [sys.executable, "-m", "prefect", "server", "stop"]
        subprocess.run(stop, env=env, capture_output=True, check=True)
        wait_until(lambda: not _starting_servers(port), seconds=30)
    finally:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)


ANSWERS: dict[str, Any] = {"/api/health": True, "/api/admin/version": prefect.__version__, "/api/flows/filter": []}
"""What a server of this version answers."""


@contextmanager
def answering(answers: dict[str, Any], **tls: Any) -> Iterator[str]:
    """Serve JSON, or other things by their status; yields the address of the server."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path, 404)
            self.send_response(answer if isinstance(answer, int) and answer > 99 else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode() if answer != "html" else b"<html></html>")

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(**tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def problem_of(api: str) -> str:
    with temporary_settings({PREFECT_API_URL: api}):
        return str(access_problem(upgrade="Upgrade it"))


HERE = Version(prefect.__version__)


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({}, "None"),
        ({"/api/admin/version": f"{HERE.major}.99.0"}, "None"),
        ({"/api/admin/version": "3.1.0"}, f"must run Prefect {HERE} or later (3.x), got 3.1.0. Upgrade it"),
        ({"/api/admin/version": "4.0.0"}, f"must run Prefect {HERE} or later (3.x), got 4.0.0. Upgrade it"),
        ({"/api/admin/version": 401}, "rejects this user (401). Set PREFECT_API_AUTH_STRING to the USER:PASSWORD"),
        ({"/api/flows/filter": 403}, "rejects this user (403). Set PREFECT_API_AUTH_STRING to the USER:PASSWORD"),
        ({"/api/admin/version": 404}, "answers, but not as a Prefect server. Correct PREFECT_API_URL, or unset it"),
        ({"/api/admin/version": "html"}, "answers, but not as a Prefect server. Correct PREFECT_API_URL, or unset it"),
        ({"/api/admin/version": 501}, "answers with status 501. See its log, or unset PREFECT_API_URL"),
    ],
)
def test_a_server_that_cannot_be_used_says_why_before_work(answers, problem):
    with answering(ANSWERS | answers) as address:
        assert problem_of(f"{address}/api").startswith(problem)
        assert problem_of(f"{address}/api/").startswith(problem)


@pytest.mark.parametrize(("given", "right"), [("", "/api"), ("/", "/api"), ("/apo", "/api"), ("/lab", "/lab/api")])
def test_an_address_without_its_path_is_corrected(given, right):
    moved = {path.replace("/api", right, 1): answer for path, answer in ANSWERS.items()}
    with answering(moved) as address:
        assert problem_of(address + given) == f"has its API at another path. Set PREFECT_API_URL to {address}{right}"


def test_a_server_that_does_not_answer_or_is_not_trusted_says_what_to_set(tmp_path):
    make_certificates(tmp_path / "tls", days=1)
    pair = {"certfile": tmp_path / "tls/cert.pem", "keyfile": tmp_path / "tls/key.pem"}
    with answering(ANSWERS, **pair) as address:
        assert "Set PREFECT_API_SSL_CERT_FILE to the certificate of its authority" in problem_of(f"{address}/api")
    with answering(ANSWERS) as address:
        assert "write http:// in PREFECT_API_URL" in problem_of(f"{address.replace('http', 'https')}/api")
    assert "Start it, or unset PREFECT_API_URL" in problem_of(f"{address}/api")
    assert problem_of("127.0.0.1:4200/api") == (
        "has no valid address: PREFECT_API_URL must be like http://HOST:4200/api"
    )


def test_a_proxy_between_here_and_a_server_is_part_of_the_hint(monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with answering({}) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        assert problem_of("http://lab.example:4200/api").endswith("add lab.example to NO_PROXY and no_proxy")
        monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
        assert "can't be reached: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY must be http:// addresses or unset" in (
            problem_of("http://lab.example:4200/api")
        )


def test_a_server_elsewhere_is_never_said_to_be_stoppable():
    with (
        answering(ANSWERS) as address,
        temporary_settings({PREFECT_API_URL: f"{address}/api"}),
        prefect_server() as server,
    ):
        assert server == (address, False)


def test_the_path_of_a_server_on_this_machine_is_configured():
    with temporary_settings({PREFECT_SERVER_API_PORT: 4321}):
        assert _local_api() == "http://127.0.0.1:4321/api"
        with temporary_settings({PREFECT_SERVER_API_BASE_PATH: "/lab/api"}):
            assert _local_api() == "http://127.0.0.1:4321/lab/api"


@pytest.mark.parametrize("home", ["a file", "below/a file/"])
def test_a_folder_that_cannot_be_written_to_is_named_with_its_variable(home, tmp_path):
    (tmp_path / "a file").touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below/a file").touch()
    with (
        temporary_settings({PREFECT_HOME: tmp_path / home / "prefect"}),
        pytest.raises(RunError, match=r"cannot write to .*prefect, where a Prefect server .*\. Set PREFECT_HOME to"),
    ):
        ensure_running(free_ports(1)[0], "http://127.0.0.1:1/api")


def test_clients_of_a_server_without_tls_read_one_certificate_instead_of_all(tmp_path):
    with temporary_settings({PREFECT_HOME: tmp_path}):
        file = short_authorities()
        assert file == short_authorities() == str(tmp_path / "netsim-authority.pem")
        assert ssl.create_default_context(cafile=file).cert_store_stats()["x509"] == 1
        assert [path.name for path in tmp_path.iterdir()] == ["netsim-authority.pem"]
    (tmp_path / "file").touch()
    with temporary_settings({PREFECT_HOME: tmp_path / "file"}):
        assert short_authorities() is None


def test_a_disk_that_is_nearly_full_is_an_error_before_work(tmp_path, monkeypatch):
    with temporary_settings({PREFECT_HOME: tmp_path}):
        require_space()
        monkeypatch.setattr("flows.server.start.MIN_FREE", 10**18)
        with pytest.raises(RunError, match=r"must have 1000000000000 MB free, got \d+ MB. Free some, or set PREFECT_"):
            require_space()


def test_the_lock_of_a_process_that_is_killed_is_free(tmp_path):
    path = tmp_path / "lock"
    code = f"""
import time
from flows.server.start import Path, _exclusive
with _exclusive(Path({str(path)!r}), until=bool):
    print("held", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        asked: list[bool] = []

        def until() -> bool:
            asked.append(True)
            if len(asked) == 2:
                holder.kill()
                holder.wait()
            return False

        with _exclusive(path, until=until):
            assert len(asked) == 2
        with path.open("ab") as other:
            assert _try_lock(other)


def test_a_lock_is_not_waited_for_where_a_server_has_come_up_or_the_file_system_has_none(tmp_path, monkeypatch):
    with (tmp_path / "lock").open("ab") as held:
        assert _try_lock(held)
        with _exclusive(tmp_path / "lock", until=lambda: True), (tmp_path / "lock").open("ab") as other:
            assert not _try_lock(other)

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("flows.server.start.fcntl.flock", unsupported)
    with _exclusive(tmp_path / "lock", until=lambda: False):
        pass
