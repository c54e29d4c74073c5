"""The Prefect server: the one that netsim starts is guarded, and one that keeps this user out says so in one line."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from flows.server.access import redact_password
from netsim.settings import parse_settings
from support.seaweed import free_ports
from support.servers import NETSIM, netsim
from support.sweeps import TINY

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


def test_a_password_in_the_address_of_the_server_is_not_redact_password():
    assert redact_password("http://me:secret@host:4200/api") == "http://host:4200/api"
    assert redact_password("http://host:4200/api") == "http://host:4200/api"
