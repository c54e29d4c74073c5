"""The doctor names what would stop a run, with the way out, and exits with code 1 if anything would."""

import json
import resource
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from flows.cli import doctor
from flows.cli.doctor import Finding
from flows.cli.main import main
from netsim.errors import SettingsError


def call(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["netsim", "doctor", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return (int(ended.value.code or 0), *capsys.readouterr())


@pytest.fixture
def sound(monkeypatch) -> None:
    """A machine whose server is of no interest."""
    monkeypatch.setattr(doctor, "_server", lambda: iter([Finding("Prefect server", "none yet")]))
    monkeypatch.setattr(doctor, "_devices", lambda: iter([Finding("GPUs", "0")]))


@pytest.mark.usefixtures("sound")
def test_a_sound_machine_has_versions_disk_and_store_and_exit_code_0(capsys, monkeypatch, tmp_path, finished):
    code, out, _ = call(capsys, monkeypatch, "--store", finished.url)
    text = " ".join(out.split())
    assert code == 0 and "Nothing that would stop a run was found." in text
    assert "torch" in text and "GB free" in text and f"{finished.digest}, sweep tiny" in text
    code, out, _ = call(capsys, monkeypatch, "--json", "--store", str(tmp_path / "new"))
    assert code == 0 and json.loads(out)["ready"] is True
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("sound")
def test_a_store_that_cannot_be_written_would_stop_a_run(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, _ = call(capsys, monkeypatch, "--store", str(tmp_path / "file" / "run"))
    assert code == 1 and "PROBLEM  store: " in out and "A run would be stopped." in out
    code, out, _ = call(capsys, monkeypatch, "--json", "--store", str(tmp_path / "file" / "run"))
    content = json.loads(out)
    assert code == 1 and content["ready"] is False
    assert [finding["name"] for finding in content["findings"] if finding["stops"]] == ["store"]


def test_a_server_that_cannot_be_used_would_stop_a_run(monkeypatch, tmp_path):
    monkeypatch.setattr("flows.server.server.inspect_server", lambda: ("http://x/api", "does not answer. Start it"))
    with temporary_settings({PREFECT_HOME: tmp_path}):
        server, disk = doctor._server()
    assert server == Finding("Prefect server", "http://x/api", "does not answer. Start it", stops=True)
    assert disk.name == "disk of PREFECT_HOME" and disk.value.endswith(f" GB free, {tmp_path}")


def test_gpus_that_cannot_be_counted_would_stop_a_run(monkeypatch):
    def fail() -> int:
        raise SettingsError("CUDA_VISIBLE_DEVICES must be numbers")

    monkeypatch.setattr("tasks.devices.count_gpus", fail)
    assert list(doctor._devices()) == [Finding("GPUs", "unknown", "CUDA_VISIBLE_DEVICES must be numbers", stops=True)]


@pytest.mark.parametrize("few", [True, False])
def test_few_open_files_and_a_limited_address_space_are_warnings(monkeypatch, few):
    files, space = (256, 4 * 10**9) if few else (1024, resource.RLIM_INFINITY)
    limits = {resource.RLIMIT_NOFILE: (files, files), resource.RLIMIT_AS: (space, space)}
    monkeypatch.setattr(doctor.resource, "getrlimit", limits.get)
    monkeypatch.setattr(doctor, "FULL", 0)
    findings = [finding for finding in doctor._machine() if finding.problem]
    assert not any(finding.stops for finding in findings)
    assert [finding.problem for finding in findings] == few * [
        "open files must be at least 1,024, got 256. Raise `ulimit -n`",
        "address space must be unlimited, got 4.0 GB. Raise `ulimit -v`",
    ]


def test_a_package_that_is_missing_or_too_old_is_named(monkeypatch):
    def version(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError(name)
        return "1.0" if name == "prefect" else "99.0"

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "requires", lambda _: ["prefect>=3.8.8", "zarr>=3", "ruff>=9; extra == 'dev'"])
    problems = {finding.name: finding.problem for finding in doctor._packages() if finding.stops}
    assert problems == {
        "torch": "torch must be installed, got none. Install netsim again, with its requirements",
        "prefect": "prefect must be >=3.8.8, got 1.0. Install netsim again, with its requirements",
    }


def test_what_is_installed_is_compared_with_the_requirements_of_this_package(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: "0.0.1")
    problems = {finding.name: finding.problem for finding in doctor._packages() if finding.stops}
    assert problems.keys() >= {"torch", "prefect", "zarr"} and ", got 0.0.1. Install netsim again" in problems["zarr"]


def test_a_full_disk_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "FULL", 10**18)
    (store,) = doctor._store(str(tmp_path / "new"))
    for finding in (doctor._disk("disk", tmp_path), store):
        assert finding.problem.startswith("free space must be at least 1000000000 GB, got ") and not finding.stops


def test_invalid_settings_of_prefect_are_a_finding(capsys, monkeypatch):
    def fail(_: bool) -> None:
        raise SettingsError("the settings of Prefect are invalid")

    monkeypatch.setattr("flows.cli.orchestrators.load_orchestrators", fail)
    code, out, _ = call(capsys, monkeypatch, "--json")
    assert code == 1 and json.loads(out)["findings"][-1]["problem"] == "the settings of Prefect are invalid"
