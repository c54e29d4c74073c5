"""Networks are kept while there is room, and one that has none does not cost the others their places."""

import copy

import pytest

from netsim.networks import kept, load_network
from netsim.networks.kept import KeptNetworks
from netsim.networks.weights import weight_bytes


@pytest.fixture(scope="module")
def network():
    return load_network("small:vgg@none")


@pytest.fixture
def memory(monkeypatch, network):
    """Give the process room for so many networks, which are not deducted from it."""
    size = weight_bytes(network)

    def have_room_for(count: float) -> None:
        monkeypatch.setattr(kept, "free_bytes", lambda _device: count * size)

    return have_room_for


def loads(networks: KeptNetworks, network, keys, run="run") -> list:
    """Ask for networks in turn; return those that were loaded."""
    loaded = []
    for key in keys:
        networks.get(key, run, lambda key=key: loaded.append(key) or copy.deepcopy(network))
    return loaded


def test_every_network_is_loaded_once_however_many_there_are(memory, network):
    memory(100)
    networks = KeptNetworks()
    assert loads(networks, network, 3 * list(range(70))) == list(range(70))


def test_networks_without_room_do_not_drive_out_those_that_are_kept(memory, network):
    memory(3)
    networks = KeptNetworks()
    assert loads(networks, network, 3 * [0, 1, 2, 3]) == [0, 1, 2, 3, 3, 3]
    memory(2)  # other programs take more now
    assert loads(networks, network, [0, 1, 2, 3]) == [3]


def test_those_of_another_run_make_room(memory, network):
    memory(3)
    networks = KeptNetworks()
    loads(networks, network, [0, 1, 2], run="earlier")
    assert loads(networks, network, [3, 4, 3, 4], run="later") == [3, 4] and len(networks) == 2
    assert loads(networks, network, [0, 1], run="earlier") == [0, 1]


def test_a_network_is_the_one_that_was_loaded_for_its_key(memory, network):
    memory(2)
    networks = KeptNetworks()
    first = networks.get("first", "run", lambda: network)
    assert networks.get("first", "run", lambda: pytest.fail("it is kept")) is first
    networks.clear()
    assert len(networks) == 0
