"""Networks that a process has loaded and will need again: as many as its memory has room for."""

from collections.abc import Callable, Hashable

from netsim.networks.memory import free_bytes
from netsim.networks.network import Network
from netsim.networks.weights import weight_bytes


class KeptNetworks:
    """Networks by what they were loaded from, kept as long as they take no more memory than they leave free.

    A worker looks at every shard with every network in turn. Were the oldest of too many networks dropped, each would
    be gone when its turn comes, and all of them loaded for every shard. So what is kept stays, and a network for which
    there is no room is loaded whenever it is needed. Only networks of another run make room.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Hashable, Network]] = {}

    def get(self, key: Hashable, run: Hashable, load: Callable[[], Network]) -> Network:
        """Return the network of `key`, which `load` loads if it is not kept; `run` is what it is needed for."""
        if key in self._kept:
            return self._kept[key][1]
        network = load()
        if not self._fits(network):
            self._kept = {each: entry for each, entry in self._kept.items() if entry[0] == run}
        if self._fits(network):
            self._kept[key] = run, network
        return network

    def clear(self) -> None:
        """Keep no network any longer."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def _fits(self, network: Network) -> bool:
        device = network.mean.device
        kept = [each for _, each in self._kept.values() if each.mean.device == device]
        return sum(map(weight_bytes, [*kept, network])) <= free_bytes(device)
