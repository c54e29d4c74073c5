"""Batch sizes that fit into memory, and the memory of an iteration."""

import pytest
import torch

from netsim.inversion import memory
from netsim.inversion.engine import Engine
from netsim.inversion.memory import LiveBytes, fitting_batch_size, is_out_of_memory
from unit.inversion.examples import convolutional, images


def test_the_probe_sees_what_an_image_takes_and_goes_by_the_free_memory(monkeypatch):
    network = convolutional()
    engine = Engine(network, images(1), batch_size=3)
    each = memory.peak_bytes(engine, images(3)) - memory.peak_bytes(engine, images(2))
    first = 8 * 14 * 14 * 4  # bytes that the first convolution gives for an image
    assert first < each < 5 * first
    first_takes = memory.peak_bytes(engine, images(1))
    for held in (1, 5, 40):
        free = (first_takes + (held - 0.5) * each) / memory.MEMORY_SHARE
        monkeypatch.setattr(memory, "_free_bytes", lambda _device, free=free: free)
        assert fitting_batch_size(engine, images(1)) == {1: 1, 5: 4, 40: 32}[held]
    assert (
        fitting_batch_size(engine, images(1), kept_bytes=4 * each) == 8
    )  # a fifth of 39.5, rounded down to a power of two
    monkeypatch.setattr(memory, "_free_bytes", lambda _device: 0)
    assert fitting_batch_size(engine, images(1)) == 1


def test_the_batch_size_has_an_upper_limit(monkeypatch):
    engine = Engine(convolutional(), images(1), batch_size=1)
    monkeypatch.setattr(memory, "_free_bytes", lambda _device: 1e15)
    assert fitting_batch_size(engine, images(1)) == memory.MAX_BATCH_SIZE["cpu"] == 32


def test_the_batch_size_is_one_if_the_probe_ran_out_of_memory_with_two_images(monkeypatch):
    engine = Engine(convolutional(), images(1), batch_size=1)

    def probe(engine, images):
        engine.batch_size = 1 if len(images) == 2 else engine.batch_size
        return 1000

    monkeypatch.setattr(memory, "peak_bytes", probe)
    monkeypatch.setattr(memory, "_free_bytes", lambda _device: 1e15)
    assert fitting_batch_size(engine, images(1)) == 1


def test_live_bytes_are_those_of_new_tensors_that_are_alive_at_the_same_time():
    given = torch.zeros(1000)
    with LiveBytes() as live:
        first = given + 1  # 4000 bytes
        second = first + 1  # 8000
        del first
        second.add_(1)  # in place: no new storage
        third = second.view(10, 100)  # a view: none either
        fourth = torch.cat([third, third])  # 4000 + 8000
        del second, third, fourth
        given + 1
    assert live.peak == 12000


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
    ],
    ids=lambda error: str(error)[:20] or "MemoryError",
)
def test_errors_that_mean_out_of_memory(error):
    assert is_out_of_memory(error)


def test_another_error_does_not_mean_out_of_memory():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)  # torch's own words, whatever they are in this release
