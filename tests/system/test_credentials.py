"""Credentials from a block on the Prefect server: they work, every refusal is one clear line, and they leak nowhere."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from distributed import Client, LocalCluster
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import credentials
from flows.server.credentials import UseBlock, use_block, variables
from netsim.errors import RunError, SettingsError, StoreError
from netsim.store.run import Run
from support.seaweed import BUCKET, KEYS, free_ports
from support.servers import NETSIM, netsim, wait_until
from support.sweeps import TINY
from system.test_flow_sweep import assert_same_bits

KEY, SECRET = KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]
BOTH = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}


@pytest.fixture
def environment(monkeypatch) -> Iterator[None]:
    """Without AWS_* variables, until the test ends."""
    with monkeypatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(variable)
        before = dict(os.environ)
        yield
        credentials._original.clear()
        os.environ.clear()
        os.environ.update(before)


def set_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


# ---- what a block says


def test_a_block_becomes_the_variables_that_s3_clients_read(tmp_path):
    (tmp_path / "ca.pem").touch()
    client = {"endpoint_url": "https://here", "verify_cert_path": str(tmp_path / "ca.pem"), "verify": True}
    found = variables("b", BOTH | {"region_name": "eu-west-1", "aws_client_parameters": client})
    assert found == {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": None,
        "AWS_SECURITY_TOKEN": None,
        "AWS_PROFILE": None,
        "AWS_DEFAULT_PROFILE": None,
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "https://here",
        "AWS_ENDPOINT_URL_S3": "https://here",
        "AWS_CA_BUNDLE": str(tmp_path / "ca.pem"),
    }


def test_a_profile_takes_the_place_of_keys():
    found = variables("b", {"profile_name": "team", "aws_access_key_id": "", "aws_client_parameters": None})
    assert found["AWS_PROFILE"] == "team" and found["AWS_ACCESS_KEY_ID"] is None and "AWS_REGION" not in found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"aws_access_key_id": None, "aws_secret_access_key": ""},
            "must have aws_access_key_id and aws_secret_access_key. Set",
        ),
        (
            {"aws_secret_access_key": None, "profile_name": "team"},
            "must have aws_secret_access_key. Set both keys, or a prof",
        ),
        ({"aws_client_parameters": {"verify": False}}, "sets verify, which netsim does not support"),
        ({"aws_client_parameters": {"verify": "ca.pem"}}, "for your own certificate authority, set verify_cert_path"),
        ({"aws_client_parameters": {"use_ssl": False}}, "sets use_ssl, which"),
        ({"aws_client_parameters": {"config": {"a": "netsim-test-secret"}, "api_version": "1"}}, "api_version, config"),
        ({"assume_role_arn": "arn:aws:iam::1:role/x"}, "sets assume_role_arn, which"),
        (
            {"aws_client_parameters": {"verify_cert_path": "no/ca.pem"}},
            f"verify_cert_path must be a file on {socket.gethostname()}, got no/ca.pem",
        ),
    ],
)
def test_a_block_that_cannot_be_heeded_is_one_clear_line_without_its_secrets(fields, message):
    with pytest.raises(SettingsError) as refused:
        variables("b", BOTH | fields)
    assert message in str(refused.value) and str(refused.value).startswith("block 'b'")
    assert "\n" not in str(refused.value) and SECRET not in str(refused.value) and KEY not in str(refused.value)


def test_ssl_is_a_matter_of_the_endpoint_where_there_is_one():
    """As boto3 has it."""
    variables("b", BOTH | {"aws_client_parameters": {"use_ssl": False, "endpoint_url": "http://here"}})


def test_a_block_replaces_who_and_keeps_where_and_the_next_one_starts_afresh(environment, monkeypatch):
    blocks = {
        "one": BOTH | {"aws_client_parameters": {"endpoint_url": "https://one"}},
        "two": {"profile_name": "two", "region_name": "eu-west-1"},
    }
    monkeypatch.setattr(credentials, "_read", blocks.get)
    os.environ |= {
        "AWS_SESSION_TOKEN": "of another key",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "https://env",
    }
    use_block("one")
    assert set_variables() == KEYS | {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "https://one",
        "AWS_ENDPOINT_URL_S3": "https://one",
    }
    use_block("two")
    assert set_variables() == {
        "AWS_PROFILE": "two",
        "AWS_DEFAULT_PROFILE": "two",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "https://env",
    }


def test_stores_asked_with_other_keys_before_are_asked_with_those_of_the_block(
    object_storage, environment, monkeypatch
):
    os.environ |= object_storage.environment | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    for _ in range(2):  # the first client is made anew: botocore rewrites the options it is given
        with pytest.raises(StoreError):
            Run.exists(f"s3://{BUCKET}/nothing")
    monkeypatch.setattr(credentials, "_read", {"right": BOTH}.get)
    use_block("right")
    assert not Run.exists(f"s3://{BUCKET}/nothing")


# ---- on a real server


@pytest.fixture(scope="session")
def make_block(server) -> Callable[..., None]:
    """Makes a block as the UI does."""
    api = server["PREFECT_API_URL"]

    def make(name: str, **fields: Any) -> None:
        of_type = httpx.get(f"{api}/block_types/slug/aws-credentials").raise_for_status().json()["id"]
        wanted = {"block_schemas": {"block_type_id": {"any_": [of_type]}}}
        schema = httpx.post(f"{api}/block_schemas/filter", json=wanted).raise_for_status().json()[0]["id"]
        block = {"name": name, "block_type_id": of_type, "block_schema_id": schema, "data": fields}
        httpx.post(f"{api}/block_documents/", json=block).raise_for_status()

    return make


def test_a_block_that_is_not_there_is_said_with_those_that_are(server, make_block, tmp_path):
    make_block("another", **BOTH)
    found = netsim("run", "demo", "--credentials", "mine", env=server, cwd=tmp_path)
    assert found.returncode == 2 and len(found.stderr.splitlines()) == 1
    assert "netsim: no AWS Credentials block 'mine'; existing blocks: another" in found.stderr
    ui = server["PREFECT_API_URL"].removesuffix("/api")
    assert f"Create it at {ui}/blocks/catalog/aws-credentials/create" in found.stderr
    assert not (tmp_path / "runs").exists()


def test_a_server_that_does_not_answer_is_said_in_one_line():
    nowhere = temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_ports(1)[0]}/api"})
    with (
        nowhere,
        pytest.raises(
            RunError, match=r"cannot read block 'mine' from the Prefect server at \S+ \(.*refused"
        ) as refused,
    ):
        use_block("mine")
    assert "\n" not in str(refused.value)


def test_workers_of_a_scheduler_read_the_block_themselves_and_so_do_those_that_join_later(
    server, make_block, environment, tmp_path
):
    make_block("of-workers", **BOTH)
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": ":0", "local_directory": tmp_path}
    with LocalCluster(n_workers=1, **options) as cluster, Client(cluster) as client:
        with temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}):
            with pytest.raises(SettingsError, match="no AWS Credentials block 'nothing'"):
                client.register_plugin(UseBlock("nothing"))
            client.register_plugin(UseBlock("of-workers"))
        cluster.scale(2)
        client.wait_for_workers(2)
        assert list(client.run(os.getenv, "AWS_SECRET_ACCESS_KEY").values()) == [SECRET, SECRET]
    assert set_variables() == {}


@contextmanager
def dask_elsewhere(env: dict[str, str], folder: Path) -> Iterator[str]:
    """A scheduler and a worker that somebody else started; gives the address."""
    address = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    shared = ["--dashboard-address", ":0"]
    commands = [
        ["scheduler", "--host", address, *shared],
        ["worker", address, "--nthreads", "1", "--local-directory", str(folder / "dask"), *shared],
    ]
    with (folder / "dask.log").open("wb") as log:
        started = [
            subprocess.Popen([sys.executable, "-m", "dask", *command], env=env, cwd=folder, stdout=log, stderr=log)
            for command in commands
        ]
    try:
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def run_watched(*arguments: str, env: dict[str, str], folder: Path) -> None:
    """Run a command to a good end; no process of it shows a secret to the other users of the machine."""
    with (folder / f"{arguments[0]}.log").open("wb") as output:
        process = subprocess.Popen([*NETSIM, *arguments], env=env, cwd=folder, stdout=output, stderr=output)
    seen: set[str] = set()

    def over() -> bool:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                seen.update(child.cmdline())
            except psutil.Error:  # it is gone
                continue
        return process.poll() is not None

    try:
        wait_until(over, seconds=240, what=(folder / f"{arguments[0]}.log").read_text)
    finally:
        process.kill()
    assert process.wait() == 0, (folder / f"{arguments[0]}.log").read_text()
    assert not any(SECRET in argument or KEY in argument for argument in seen)


def shown_by_prefect(server: dict[str, str], kind: str) -> bytes:
    answer = httpx.post(f"{server['PREFECT_API_URL']}/{kind}/filter", json={"limit": 200})
    return answer.raise_for_status().content


def in_the_database(home: Path) -> bytes:
    """All that the server keeps, but the event by which Prefect says that a block was made: it has the key id."""
    with closing(sqlite3.connect(home / "prefect.db")) as live, closing(sqlite3.connect(":memory:")) as copy:
        live.backup(copy)
        copy.execute("DELETE FROM events WHERE event = 'prefect.block-document.created'")
        return "\n".join(copy.iterdump()).encode()


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_sweep_with_credentials_in_a_block_only_ends_well_and_shows_them_nowhere(
    server, object_storage, make_block, finished, tmp_path
):
    """By a worker that somebody else started; neither it nor the command was given a key."""
    path, store = tmp_path / "tiny.yaml", f"s3://{BUCKET}/{tmp_path.name}"
    path.write_text(yaml.safe_dump(TINY))
    place = {"region_name": "us-east-1", "aws_client_parameters": {"endpoint_url": object_storage.endpoint}}
    make_block("team-storage", **BOTH, **place)
    env = {name: value for name, value in server.items() if not name.startswith("AWS_")}
    env |= {"AWS_EC2_METADATA_DISABLED": "true"}

    without = netsim(
        "run", str(path), "--store", store, env=env | {"AWS_ENDPOINT_URL": object_storage.endpoint}, cwd=tmp_path
    )
    assert without.returncode == 1 and "Unable to locate credentials" in without.stderr

    block = ("--credentials", "team-storage")
    with dask_elsewhere(env, tmp_path) as scheduler:
        run_watched("run", str(path), "--store", store, "--scheduler", scheduler, *block, env=env, folder=tmp_path)
    assert_same_bits(Run.open(store), finished)
    run_watched("status", store, *block, env=env, folder=tmp_path)

    shown = {kind: shown_by_prefect(server, kind) for kind in ("flow_runs", "task_runs", "logs", "artifacts")}
    assert b"team-storage" in shown["flow_runs"]
    database, home = in_the_database(Path(env["PREFECT_HOME"])), files_below(Path(env["PREFECT_HOME"]))
    assert b"invert-resnet18-0000" in database and any(b"team-storage" in content for content in home.values())
    filesystem = object_storage.filesystem()
    objects = filesystem.cat(filesystem.find(store))
    assert f"{BUCKET}/{tmp_path.name}/zarr.json" in objects
    everything = shown | objects | files_below(tmp_path) | {"database": database}  # with what the commands said
    assert [name for name, content in everything.items() if KEY.encode() in content] == []
    assert [name for name, content in (everything | home).items() if SECRET.encode() in content] == []
