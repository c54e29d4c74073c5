"""The process that measures networks: each in a process forked from it, whose end is an error of that network only."""

import os

import pytest

from netsim.errors import NetworkError, SettingsError
from netsim.planning.probe import ProbeRequest, host_bytes
from netsim.planning.prober import Prober
from support.sweeps import tiny

OWN = """
import os
import signal

from netsim.networks.sources.small import vgg


def lethal():
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory ends


def wrong():
    raise RuntimeError("no such thing")


def talkative():
    print("{}")
    return vgg()
"""


@pytest.fixture(scope="module")
def prober(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_networks.py").write_text(OWN)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    with Prober(["netsim.stages.invert"], {"PYTHONPATH": path}) as started:
        yield started


def request(network: str, **changes) -> ProbeRequest:
    settings = tiny(networks=[f"it={network}", "small:vgg"], **changes)
    return ProbeRequest(settings.model_dump(mode="json"), "it", timed=False)


def test_a_network_that_is_killed_while_it_is_measured_is_named_and_others_are_measured(prober):
    message = r"^it: measuring was killed \(signal 9\), probably for lack of memory; use a smaller inversion.batch_size"
    with pytest.raises(NetworkError, match=message):
        prober.measure(request("python:own_networks:lethal"))
    assert prober.measure(request("small:resnet18@none")).name == "it"


def test_what_is_wrong_with_a_network_is_told_by_its_error(prober):
    with pytest.raises(SettingsError, match=r"^size of fashion-mnist images must be 28, got 16"):
        prober.measure(request("small:vgg", images={"size": 16}))
    with pytest.raises(NetworkError, match=r"^own_networks:wrong failed: RuntimeError: no such thing"):
        prober.measure(request("python:own_networks:wrong"))


def test_what_a_network_prints_is_no_answer(prober):
    assert prober.measure(request("python:own_networks:talkative")).parameters > 0


def test_two_processes_give_one_probe(prober):
    one, two = (prober.measure(request("small:vgg"), processes) for processes in (1, 2))
    assert two.flops == one.flops and two.host_bytes == pytest.approx(one.host_bytes, rel=0.05)


def test_the_memory_is_that_of_a_process_that_imports_all_itself(prober):
    """Pages of libraries are shared with the process that forks, and counted nevertheless."""
    assert prober.measure(request("small:vgg")).host_bytes > 0.3e9 and host_bytes() > 0


def test_a_process_that_ends_is_an_error_with_its_last_line(tmp_path):
    with (
        Prober(["no_such_module"]) as broken,
        pytest.raises(NetworkError, match=r"^it: .*No module named 'no_such_mod"),
    ):
        broken.measure(request("small:vgg"))
