"""Batch sizes that fit into memory, and the memory of an iteration."""

from netsim.inversion import memory
from netsim.inversion.engine import Engine
from netsim.inversion.memory import fitting_batch_size
from unit.inversion.examples import convolutional, images


def test_the_probe_sees_what_an_image_takes_and_goes_by_the_free_memory(monkeypatch):
    network = convolutional()
    ready = Engine(network, images(1), batch_size=3)
    each = memory.peak_bytes(ready, images(3)) - memory.peak_bytes(ready, images(2))
    first = 8 * 14 * 14 * 4  # bytes that the first convolution gives for an image
    assert first < each < 5 * first
    first_takes = memory.peak_bytes(ready, images(1))
    for held in (1, 5, 40):
        free = (first_takes + (held - 0.5) * each) / memory.MEMORY_SHARE
        monkeypatch.setattr(memory, "_free_bytes", lambda _device, free=free: free)
        assert fitting_batch_size(ready, images(1)) == {1: 1, 5: 4, 40: 32}[held]
    assert fitting_batch_size(ready, images(1), kept_bytes=4 * each) == 8  # a fifth of 39.5, and a power of two at most
    monkeypatch.setattr(memory, "_free_bytes", lambda _device: 0)
    assert fitting_batch_size(ready, images(1)) == 1
