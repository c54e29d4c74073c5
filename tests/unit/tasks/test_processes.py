"""Which processes are certainly gone; from here, from another PID namespace, and from another machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks import processes
from tasks.processes import CLOCK_TOLERANCE, HOST_NAMESPACE, ProcessName, is_gone, parse_tag, this_process

ROOT = Path(__file__).parents[3]


@pytest.fixture
def sleeper() -> Iterator[ProcessName]:
    """Another process that runs during the test."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        created = round(psutil.Process(process.pid).create_time())
        yield this_process()._replace(pid=process.pid, created=created)
        process.kill()


@pytest.fixture
def ended(sleeper: ProcessName) -> ProcessName:
    """A process that ended."""
    process = psutil.Process(sleeper.pid)
    process.kill()
    process.wait()
    return sleeper


def test_a_name_survives_its_tag():
    assert parse_tag(str(this_process())) == this_process()


@pytest.mark.parametrize("tag", ["store:/runs/demo", "process:elsewhere:1:1", "process"])
def test_other_tags_and_those_of_older_versions_name_no_process(tag):
    assert parse_tag(tag) is None


def test_a_process_is_gone_once_it_ended(sleeper):
    assert not is_gone(this_process()) and not is_gone(sleeper)
    psutil.Process(sleeper.pid).kill()
    psutil.Process(sleeper.pid).wait()
    assert is_gone(sleeper)


def test_a_process_with_the_same_number_and_another_start_is_another_process(sleeper):
    assert not is_gone(sleeper._replace(created=sleeper.created + int(CLOCK_TOLERANCE / 2)))  # a corrected clock
    assert is_gone(sleeper._replace(created=sleeper.created - int(2 * CLOCK_TOLERANCE)))


def test_a_process_of_another_namespace_may_run(ended):
    assert is_gone(ended) and not is_gone(ended._replace(namespace="1"))


def test_a_process_of_another_machine_with_the_same_name_may_run(ended):
    assert not is_gone(ended._replace(machine="0", boot="0"))


def test_a_process_from_before_a_restart_is_gone_unless_it_was_in_a_container(ended, monkeypatch):
    monkeypatch.setattr(processes, "_namespace", lambda: HOST_NAMESPACE)
    assert is_gone(ended._replace(boot="0", namespace=HOST_NAMESPACE))
    assert not is_gone(ended._replace(boot="0", namespace="1"))
    assert not is_gone(ended._replace(boot="0", namespace=HOST_NAMESPACE, host="elsewhere"))


def test_without_linux_the_name_of_the_machine_decides(ended, monkeypatch):
    monkeypatch.setattr(processes, "_namespace", str)
    monkeypatch.setattr(processes, "_boot", str)
    assert is_gone(ended._replace(boot="", namespace=""))
    assert not is_gone(ended._replace(boot="", namespace="", machine="0"))


@pytest.mark.parametrize("error", [psutil.AccessDenied(1), psutil.NoSuchProcess(1)])
def test_a_process_that_is_hidden_may_run(error, sleeper, monkeypatch):
    """With hidepid=2, /proc shows no processes of other users."""

    def hidden(_: int) -> None:
        raise error

    monkeypatch.setattr(processes, "this_process", lambda: sleeper)
    monkeypatch.setattr(processes.psutil, "Process", hidden)
    assert not is_gone(sleeper)


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs Linux and root")
def test_a_real_namespace_does_not_see_the_processes_outside_and_says_nothing_about_them(sleeper):
    code = f"""
from tasks.processes import *
outside = parse_tag({str(sleeper)!r})
this = this_process()
assert this.namespace != outside.namespace and this.boot == outside.boot and this.host == outside.host
print(is_gone(outside), is_gone(outside._replace(namespace=this.namespace)), is_gone(this))
"""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("no namespaces in this container")
    assert done.stdout.split() == ["False", "True", "False"], done.stderr
