"""Batch sizes that fit into memory, and the memory of an evaluation."""

import pytest
import torch

from netsim.networks import memory
from netsim.networks.memory import MAX_BATCH_SIZE, LiveBytes, fitting_batch_size, is_out_of_memory, peak_bytes

CPU = torch.device("cpu")


def bytes_of(count):
    return 1000 + 100 * count


@pytest.mark.parametrize(("held", "size"), [(1, 1), (5, 4), (40, 32), (1e9, 32)])
def test_the_batch_size_is_the_largest_power_of_two_that_fits(held, size, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda _device: (1000 + (held + 0.5) * 100) / memory.MEMORY_SHARE)
    assert fitting_batch_size(bytes_of, CPU) == size <= MAX_BATCH_SIZE["cpu"]


def test_memory_that_an_image_keeps_counts_too(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda _device: (1000 + 40.5 * 100) / memory.MEMORY_SHARE)
    assert fitting_batch_size(bytes_of, CPU, kept_bytes=400) == 8  # a fifth of 40.5, rounded down to a power of two


def test_the_batch_size_is_one_without_any_free_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 0)
    assert fitting_batch_size(bytes_of, CPU) == 1


def test_the_batch_size_is_one_if_the_probe_runs_out_of_memory_with_two_images(monkeypatch):
    def probe(count):
        if count == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1000

    monkeypatch.setattr(memory, "free_bytes", lambda _device: 1e15)
    assert fitting_batch_size(probe, CPU) == 1


def test_another_error_of_the_probe_is_raised():
    with pytest.raises(RuntimeError, match="shapes"):
        fitting_batch_size(lambda count: 1 if count == 1 else _fail(), CPU)


def _fail():
    raise RuntimeError("shapes cannot be multiplied")


def test_peak_bytes_are_those_of_the_tensors_that_an_evaluation_holds_at_once():
    x = torch.zeros(1000)
    assert peak_bytes(lambda: (x + 1) * 2, CPU) == 8000


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
