"""The engine: loss and descent are the network's, in half precision, in any batches, and with too little memory."""

import logging
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from netsim.errors import DataError, NetworkError
from netsim.inversion.engine import Engine, loss_and_descent, relative_distance
from netsim.inversion.invert import invert_batches
from netsim.inversion.precision import Precision
from netsim.networks import as_network
from netsim.networks.ambient import plain_torch
from netsim.settings import InversionSettings
from unit.inversion.examples import HALF, Scaled, convolutional, images


def test_loss_and_descent_of_a_linear_representation_by_hand():
    """One image of two pixels, represented as (x, 2 y): t = (3, 4), residual (3, 4), loss 5 / 5."""
    image, target = torch.zeros(1, 1, 1, 2), torch.tensor([[3.0, 4.0]])
    loss, descent = loss_and_descent(lambda x: x.flatten(1) * torch.tensor([1.0, 2.0]), image, target)
    assert loss.tolist() == [1.0]
    torch.testing.assert_close(descent.flatten(), torch.tensor([3 / 5, 2 * 4 / 5]))
    loss, descent = loss_and_descent(lambda x: x.flatten(1), image, target, with_descent=False)
    assert (loss.tolist(), descent.numel()) == ([1.0], 0)


def test_an_image_that_equals_its_target_has_a_loss_and_a_descent_of_zero():
    image = images(2, (1, 2, 2))
    loss, descent = loss_and_descent(lambda x: x.flatten(1), image, image.flatten(1))
    assert loss.tolist() == [0, 0]
    assert not descent.any()


def test_relative_distance_is_per_row_and_relative_to_the_target():
    distance = relative_distance(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert distance.tolist() == [float("inf"), 1.0]


@pytest.mark.parametrize(
    "precision", [HALF, Precision("float16", "float32"), Precision("bfloat16", "float32")], ids=str
)
def test_half_precision_inverts_as_well_and_its_final_loss_is_evaluated_by_the_network(precision):
    network, seed, target = convolutional(), images(6, rng_seed=1), images(6, rng_seed=2)
    full = invert_batches(network, seed, target, InversionSettings(iterations=60, batch_size=6))
    half = invert_batches(network, seed, target, InversionSettings(iterations=60, batch_size=6), precision=precision)
    assert half.images.dtype == half.final_loss.dtype == half.history.dtype == torch.float32
    assert (half.final_loss < 0.5 * half.initial_loss).all()
    torch.testing.assert_close(half.final_loss, full.final_loss, rtol=0.3, atol=0.02)
    with torch.no_grad():
        goal = network.represent(target)
        loss = (network.represent(half.images) - goal).norm(dim=1) / goal.norm(dim=1)
    torch.testing.assert_close(half.final_loss, loss, rtol=1e-5, atol=0)


def test_tf32_is_allowed_for_the_layers_alone_and_not_for_what_is_reported():
    network, seen = convolutional(), []
    x, goal = images(3), network.represent(images(3, rng_seed=2)).detach()

    def state():
        backends = torch.backends
        return [backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision]

    engine = Engine(network, x, precision=Precision("tf32", "tf32"), batch_size=2)
    expected = Engine(network, x, batch_size=2).loss_and_descent(x, goal)
    before = state()
    for body in (engine, network):
        first = next(part for part in body.modules() if isinstance(part, nn.Conv2d))
        first.register_forward_hook(lambda *_: seen.append(state()))
    with plain_torch():
        loss, descent = engine.loss_and_descent(x.requires_grad_(), goal)
        engine.represent_all(x)
        assert seen == [["tf32", "tf32"]] * 4
        seen.clear()
        engine.represent_exactly(x)
        assert all("tf32" not in both for both in seen) and seen
        with pytest.raises(DataError):
            engine.loss_and_descent(x, goal[:, :3])
        assert "tf32" not in state()
    assert state() == before
    assert torch.equal(loss, expected[0]) and torch.equal(descent, expected[1])  # a CPU rounds nothing


@pytest.mark.parametrize("power", [0, 10, 20])
def test_a_gradient_that_would_overflow_in_float16_is_taken_with_a_shorter_cotangent(power):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Scaled(power), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 5))
    network = as_network(model, images(2))
    goal = network.represent(images(2, rng_seed=2))
    _, descent = Engine(network, images(1), precision=HALF, batch_size=2).loss_and_descent(images(2), goal)
    _, exact = Engine(network, images(1), batch_size=2).loss_and_descent(images(2), goal)
    assert torch.isfinite(descent).all()
    assert (torch.cosine_similarity(descent.flatten(1), exact.flatten(1)) > 0.99).all()


def test_loss_and_descent_do_not_depend_on_the_batch_size():
    network = convolutional(dtype=torch.float64)
    x, goal = images(7).double(), network.represent(images(7, rng_seed=2).double()).detach()
    whole = Engine(network, x, batch_size=7).loss_and_descent(x, goal)
    parts = Engine(network, x, batch_size=3).loss_and_descent(x, goal)
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_out_of_memory_halves_the_batch_and_changes_no_result(monkeypatch, caplog):
    network, seed, target = convolutional(dtype=torch.float64), images(7).double(), images(7, rng_seed=2).double()
    expected = invert_batches(network, seed, target, InversionSettings(iterations=5, batch_size=7))
    represent, sizes = Engine.represent, []

    def in_little_memory(self, x):
        if torch.is_grad_enabled():
            sizes.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return represent(self, x)

    monkeypatch.setattr(Engine, "represent", in_little_memory)
    with caplog.at_level(logging.WARNING):
        record = invert_batches(network, seed, target, InversionSettings(iterations=5, batch_size=7))
    assert sizes[:4] == [7, 4, 2, 2]
    assert record.batch_size == 2
    torch.testing.assert_close(record.images, expected.images, rtol=0, atol=1e-10)
    assert "out of memory with a batch of 7 images; continuing with 4" in caplog.text

    monkeypatch.setattr(
        Engine, "represent", lambda self, x: torch.empty(2**60) if torch.is_grad_enabled() else represent(self, x)
    )
    with pytest.raises(NetworkError, match="out of memory on cpu with a single image"):
        invert_batches(network, seed, target, InversionSettings(iterations=5, batch_size=7))


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space")
def test_a_process_that_really_runs_out_of_memory_continues_with_fewer_images():
    code = """
        import logging, resource, torch
        from netsim.inversion.invert import invert_batches
        from netsim.settings import InversionSettings
        from netsim.networks import load_network
        logging.basicConfig()
        torch.backends.mkldnn.set_flags(False)  # where memory ends while oneDNN writes code, it ends the process
        network = load_network("torchvision:resnet18@none", input_shape=(3, 64, 64))
        x = torch.rand(96, 3, 64, 64)
        invert_batches(network, x[:1], x[1:2], InversionSettings(iterations=1, batch_size=1))
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 220_000_000,) * 2)
        print(invert_batches(network, x, x.flip(0), InversionSettings(iterations=1, batch_size=96)).batch_size)
    """
    # Concurrent threads take 64 MB of addresses each.
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) in (1, 2, 3, 6, 12, 24, 48)  # libraries take more or less for themselves
    assert "out of memory with a batch of 96 images; continuing with 48" in done.stderr
