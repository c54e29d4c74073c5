"""The engine: loss and descent are the network's, in half precision, in any batches, and with too little memory."""

import logging
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from netsim.errors import NetworkError
from netsim.inversion.engine import Engine
from netsim.inversion.invert import invert_batches
from netsim.inversion.precision import Precision
from netsim.networks import as_network
from netsim.settings import InversionSettings
from unit.inversion.examples import HALF, convolutional, images


@pytest.mark.parametrize(
    "precision", [HALF, Precision("float16", "float32"), Precision("bfloat16", "float32")], ids=str
)
def test_half_precision_inverts_as_well_and_its_final_loss_is_the_networks_own(precision):
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


class Scaled(nn.Module):
    """A layer in which the gradient is 2**`power` times as large as before."""

    def __init__(self, power):
        super().__init__()
        self.power = power

    def forward(self, x):
        return Steep.apply(x, 2.0**self.power)


class Steep(torch.autograd.Function):
    @staticmethod
    def forward(context, x, slope):
        context.slope = slope
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * context.slope, None


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


def test_a_smaller_batch_measures_the_same():
    network = convolutional(dtype=torch.float64)
    x, goal = images(7).double(), network.represent(images(7, rng_seed=2).double()).detach()
    whole = Engine(network, x, batch_size=7).loss_and_descent(x, goal)
    parts = Engine(network, x, batch_size=3).loss_and_descent(x, goal)
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_out_of_memory_halves_the_batch_and_changes_no_result(monkeypatch, caplog):
    network, seed, target = convolutional(dtype=torch.float64), images(7).double(), images(7, rng_seed=2).double()
    expected = invert_batches(network, seed, target, InversionSettings(iterations=5, batch_size=7))
    represent, tried = Engine.represent, []

    def in_little_memory(self, x):
        if torch.is_grad_enabled():
            tried.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return represent(self, x)

    monkeypatch.setattr(Engine, "represent", in_little_memory)
    with caplog.at_level(logging.WARNING):
        record = invert_batches(network, seed, target, InversionSettings(iterations=5, batch_size=7))
    assert tried[:4] == [7, 4, 2, 2]
    assert record.batch_size == 2
    torch.testing.assert_close(record.images, expected.images, rtol=0, atol=1e-10)
    assert "out of memory with a batch of 7 images; continuing with 4" in caplog.text

    monkeypatch.setattr(
        Engine, "represent", lambda self, x: torch.empty(2**60) if torch.is_grad_enabled() else represent(self, x)
    )
    with pytest.raises(NetworkError, match="out of memory on cpu with a single image"):
        invert_batches(network, seed, target, InversionSettings(iterations=5, batch_size=7))


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space")
def test_a_process_that_really_runs_out_of_memory_goes_on_with_fewer_images():
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
    # Threads that get into each other's way take 64 MB of addresses each.
    own = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) in (1, 2, 3, 6, 12, 24, 48)  # libraries take more or less for themselves
    assert "out of memory with a batch of 96 images; continuing with 48" in done.stderr
