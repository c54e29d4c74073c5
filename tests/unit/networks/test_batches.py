"""Batch sizes of evaluations."""

import logging

import pytest
import torch

from netsim.errors import NetworkError
from netsim.networks import batches, load_network, memory
from netsim.networks.batches import Batches, evaluation_batches, forward_bytes


@pytest.fixture
def network():
    return load_network("small:vgg@none")


def images(count, pixels=28):
    return torch.rand(count, 1, pixels, pixels, generator=torch.Generator().manual_seed(0))


def test_batches_change_no_result(network):
    at_once = network(images(7))
    for size in (1, 3, 7, 32):
        torch.testing.assert_close(Batches(network, size).evaluate(network, images(7)), at_once, rtol=1e-5, atol=1e-6)


def test_nothing_is_evaluated_with_gradients(network):
    assert not Batches(network, 2).evaluate(network, images(3).requires_grad_()).requires_grad


def test_a_batch_that_does_not_fit_is_halved_for_good(network, caplog):
    sizes = []

    def in_little_memory(batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(batch)

    held = Batches(network, 32)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(held.evaluate(in_little_memory, images(7)), network(images(7)), rtol=1e-5, atol=1e-6)
    assert sizes == [7, 4, 2, 2, 2, 1]
    assert held.size == 2
    assert "out of memory with a batch of 7 images; continuing with 4" in caplog.text


def test_nothing_is_halved_while_a_graph_is_captured(network, monkeypatch):
    def without_memory(_batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    held = Batches(network, 32)
    monkeypatch.setattr(batches, "is_capturing", lambda device: device == torch.device("cpu"))
    with pytest.raises(torch.OutOfMemoryError):
        held.evaluate(without_memory, images(7))
    assert held.size == 32


def test_a_single_image_that_does_not_fit_is_an_error(network):
    with pytest.raises(NetworkError, match="out of memory on cpu with a single image"):
        Batches(network, 2).evaluate(lambda _: torch.empty(2**60), images(2))


def test_other_errors_are_raised_as_they_are(network):
    with pytest.raises(RuntimeError, match="shapes"):
        Batches(network, 2).evaluate(lambda batch: batch.flatten(1) @ torch.ones(3, 3), images(2))


def test_the_memory_of_a_forward_pass_decides_once_per_network_and_shape(network, monkeypatch):
    one, two = (forward_bytes(network, images(count)) for count in (1, 2))
    measured = []
    monkeypatch.setattr(batches, "forward_bytes", lambda _, x: measured.append(len(x)) or forward_bytes(network, x))
    monkeypatch.setattr(memory, "free_bytes", lambda _: (one + 5 * (two - one)) / memory.MEMORY_SHARE)
    chosen = evaluation_batches(network, images(9))
    assert chosen.size == 4
    assert evaluation_batches(network, images(3)) is chosen
    assert measured == [1, 2]
    other = load_network("small:vgg@none")
    assert evaluation_batches(other, images(9)) is not chosen


def test_large_images_are_evaluated_a_few_at_a_time():
    network = load_network("torchvision:resnet18@none", input_shape=(3, 64, 64))
    photographs = torch.rand(2, 3, 64, 64)
    per_image = forward_bytes(network, photographs) - forward_bytes(network, photographs[:1])
    assert per_image > 2 * 64 * 32 * 32 * 4  # input and output of the first normalisation
