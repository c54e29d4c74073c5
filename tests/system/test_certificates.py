"""A Dask cluster that only holders of its certificates talk to: made, refused in one line, and swept on for real."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from distributed import Client, get_worker
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.clusters.certificates import make_certificates, read_certificates
from flows.clusters.runner import task_runner
from flows.clusters.settings import Local, parse_cluster
from flows.clusters.slurm import slurm_cluster, slurm_options
from netsim.errors import SettingsError
from support.seaweed import free_ports
from support.servers import netsim
from system.test_flow_cluster import Cluster


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("certificates") / "tls"
    make_certificates(folder, days=2)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, server: dict[str, str], certificates: Path) -> Iterator[Cluster]:
    """A scheduler and a worker as their own commands start them with those certificates."""
    folder, (port,) = tmp_path_factory.mktemp("cluster"), free_ports(1)
    files = {"--tls-ca-file": "ca.pem", "--tls-cert": "cert.pem", "--tls-key": "key.pem"}
    encrypted = [
        "--protocol",
        "tls",
        *(word for option, file in files.items() for word in (option, str(certificates / file))),
    ]
    found = Cluster(folder, f"tls://127.0.0.1:{port}", server | {"OMP_NUM_THREADS": "1"}, [])
    try:
        found.start("scheduler", "--port", str(port), *encrypted)
        found.start("worker", found.address, "--nthreads", "1", *encrypted)
        with Client(found.address, security=read_certificates(certificates), timeout=60) as client:
            client.wait_for_workers(1, timeout=120)
        yield found
    finally:
        found.stop()


def test_certificates_are_for_their_owner_alone_and_valid_as_long_as_was_said(tmp_path):
    before = datetime.now(UTC)
    until = make_certificates(tmp_path / "a" / "tls", days=30)
    assert timedelta(days=30, minutes=-1) < until - before < timedelta(days=30, minutes=1)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a").rglob("*")}
    assert modes == {"tls": 0o700, "ca.pem": 0o600, "cert.pem": 0o600, "key.pem": 0o600}


def test_certificates_are_never_overwritten(certificates, tmp_path):
    before = {path.name: path.read_bytes() for path in certificates.iterdir()}
    found = netsim("certificates", str(certificates), env=dict(os.environ), cwd=tmp_path)
    assert found.returncode == 2
    assert found.stderr == f"netsim: {certificates} must be a new or empty folder: certificates are never overwritten\n"
    assert {path.name: path.read_bytes() for path in certificates.iterdir()} == before
    assert [path.name for path in certificates.parent.iterdir()] == ["tls"]  # nothing half made is left


def damaged(folder: Path, how: str) -> None:
    make_certificates(folder, days=1)
    if how == "missing":
        (folder / "cert.pem").unlink()
        (folder / "key.pem").unlink()
    elif how == "no PEM":
        (folder / "ca.pem").write_text("hello")
    else:
        make_certificates(folder.parent / "others", days=1)
        (folder / "key.pem").write_bytes((folder.parent / "others" / "key.pem").read_bytes())


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", r"tls: \S+/tls must have cert.pem and key.pem. Create them with `netsim certificates FOLDER`"),
        ("no PEM", r"tls: \S+/tls/ca.pem must be a PEM certificate"),
        ("other key", r"tls: cannot use the certificates in \S+/tls: KEY_VALUES_MISMATCH"),
    ],
)
def test_a_folder_that_can_not_be_used_is_one_clear_error(how, says, tmp_path):
    damaged(tmp_path / "tls", how)
    with pytest.raises(SettingsError, match=says) as refused:
        read_certificates(tmp_path / "tls")
    assert "\n" not in str(refused.value)


def test_an_expired_certificate_is_told_before_anything_is_asked(tmp_path):
    make_certificates(tmp_path / "tls", days=0)
    with pytest.raises(
        SettingsError, match=r"ca.pem is valid from .* UTC only. .* restart the scheduler and its workers"
    ):
        read_certificates(tmp_path / "tls")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"address": "tls://here:1"}, r"tls must be set for address tls://here:1. Give the folder of its certificates"),
        ({"address": "tcp://here:1", "tls": "tls"}, r"address must be tls://... with tls tls, got tcp://here:1"),
    ],
)
def test_an_address_and_its_certificates_go_together(said, says):
    with pytest.raises(SettingsError, match=says):
        parse_cluster({"kind": "scheduler", **said})


def test_flows_submit_their_tasks_to_it_over_tls(server, cluster, certificates):
    """What sweeps do; those on local workers talk TLS too."""
    from prefect import flow, task

    @task
    def encrypted() -> str:
        return get_worker().address

    @flow
    def ask() -> str:
        return encrypted.submit().result()

    where = parse_cluster({"kind": "scheduler", "address": cluster.address, "tls": str(certificates)})
    with temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}), task_runner(where) as runner:
        assert ask.with_options(task_runner=runner)().startswith("tls://127.0.0.1:")


@pytest.mark.parametrize("who", ["with others", "with none"])
def test_a_cluster_lets_nobody_in_who_has_not_its_certificates(who, cluster, tmp_path):
    """Nor does a sweep trust a scheduler that another authority vouches for."""
    make_certificates(tmp_path / "others", days=1)
    others = {"address": cluster.address, "tls": str(tmp_path / "others")}
    said = others if who == "with others" else {"address": cluster.address.replace("tls://", "tcp://")}
    refused = pytest.raises(SettingsError, match=f"no Dask scheduler answers at {said['address']}")
    with refused as error, task_runner(parse_cluster({"kind": "scheduler", **said})):
        pass
    assert "\n" not in str(error.value) and "ertificates" in str(error.value)


def test_a_local_cluster_lets_no_other_user_of_the_machine_in():
    with task_runner(Local(workers=1)) as runner:
        assert runner.address.startswith("tls://127.0.0.1:")
        plain = runner.address.replace("tls://", "tcp://")
        with pytest.raises(OSError, match=plain), Client(plain, timeout=5):
            pass


def test_jobs_of_slurm_are_told_where_the_certificates_are(certificates):
    cluster = parse_cluster({"kind": "slurm", "tls": str(certificates)})
    with slurm_cluster()(**slurm_options(cluster)) as started:  # type: ignore[arg-type]
        assert started.scheduler_address.startswith("tls://")
        script = started.job_script()
    for words in ("--protocol tls://", *(f"{certificates}/{file}.pem" for file in ("ca", "cert", "key"))):
        assert words in script
    assert "PRIVATE KEY" not in script
