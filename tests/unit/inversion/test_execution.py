"""Executions: what is captured, when again, and what happens to a network that cannot be. A GPU is played by `Tape`."""

import logging
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from netsim.inversion import execution
from netsim.inversion.execution import CudaGraphs, Plain, execution_on
from netsim.inversion.invert import invert_batches
from netsim.networks import as_network, batches
from netsim.settings import InversionSettings
from unit.inversion.examples import Branching, convolutional, images
from unit.inversion.tape import Tape

CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    """Tapes in place of CUDA graphs. Returns those that were begun."""
    begun = []

    def graph(tape, **_):
        begun.append(tape)
        return tape

    stream = SimpleNamespace(wait_stream=lambda _: None)
    for name, stand_in in {
        "Stream": lambda _: stream,
        "current_stream": lambda _: stream,
        "stream": lambda _: nullcontext(),
        "graph_pool_handle": object,
        "CUDAGraph": Tape,
        "graph": graph,
        "empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(batches, "is_capturing", lambda _: torch._C._len_torch_dispatch_stack() > 0)
    execution._warn_once.cache_clear()
    return begun


def counter():
    """A body that counts in a tensor how often it was executed, and a list of its calls."""
    count, calls = torch.zeros(()), []

    def body():
        calls.append(1)
        count.add_(1)

    return body, count, calls


def test_a_body_is_called_twice_then_captured_and_replayed(gpu):
    graphs, (body, count, calls) = CudaGraphs(CPU, "net"), counter()
    for expected in (1, 2):
        graphs.run(body)
        assert (count, len(calls), len(gpu)) == (expected, expected, 0)
    graphs.run(body)
    assert len(gpu) == 1 and len(calls) == 3
    for _ in range(4):
        graphs.run(body)
    assert (count, len(calls)) == (7, 3)
    graphs.reset()
    graphs.run(body)
    assert len(calls) == 4 and len(gpu) == 1


def differing(network, caplog, **options):
    """Invert plainly and with graphs; return the names of results with other bits, and what was logged."""
    seed, target = images(5, rng_seed=1), images(5, rng_seed=2)
    settings = InversionSettings(iterations=8, batch_size=3)
    expected = invert_batches(network, seed, target, settings, **options)
    with caplog.at_level(logging.WARNING):
        result = invert_batches(network, seed, target, settings, execution=CudaGraphs(CPU, "net"), **options)
    names = ("images", "history", "final_loss", "iterations", "batch_size")
    both = [(torch.as_tensor(getattr(result, name)), torch.as_tensor(getattr(expected, name))) for name in names]
    return [name for name, pair in zip(names, both, strict=True) if not torch.equal(*pair)]


def test_a_network_is_captured_anew_for_the_last_images(gpu, caplog):
    assert differing(convolutional(), caplog) == []
    assert len(gpu) == 4  # evaluation and step, of three images and of two
    assert "without CUDA graphs" not in caplog.text


def test_a_network_that_waits_for_the_device_is_inverted_without_graphs_and_the_log_says_so_once(gpu, caplog):
    network = as_network(Branching(), images(2))
    for _ in range(2):
        assert differing(network, caplog) == []
    assert len(gpu) == 2  # one attempt for each inversion, none for its other batch
    assert caplog.text.count("net: inverting without CUDA graphs (operation not permitted") == 1


def test_memory_that_ends_in_a_capture_ends_the_capture_and_halves_nothing(gpu, caplog, monkeypatch):
    network = convolutional()
    forward = type(network.body).forward

    def in_little_memory(self, x):
        if torch._C._len_torch_dispatch_stack() > 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(type(network.body), "forward", in_little_memory)
    assert differing(network, caplog) == []
    assert "net: inverting without CUDA graphs (CUDA out of memory)" in caplog.text
    assert "continuing with" not in caplog.text


def test_cancelling_ends_an_inversion_between_replays(gpu):
    class Cancelled(BaseException):
        pass

    calls = []

    def cancel(at):
        calls.append(at.k.max().item())
        if len(calls) == 6:
            raise Cancelled

    with pytest.raises(Cancelled):
        invert_batches(
            convolutional(),
            images(3),
            images(3, rng_seed=2),
            InversionSettings(iterations=20, batch_size=3),
            execution=CudaGraphs(CPU, "net"),
            on_iteration=cancel,
        )
    assert calls == [0, 1, 2, 3, 4, 5]
    assert len(gpu) == 2


def test_a_cpu_calls_what_it_executes():
    assert isinstance(execution_on(CPU, "net"), Plain)
