"""What only a GPU can show: CUDA graphs, TF32, memory that ends, and one worker per GPU. `make gpu` runs it."""

import logging

import pytest
import torch
from torch import nn

from flows.clusters.local import worker_specs
from netsim.errors import DataError
from netsim.inversion import execution
from netsim.inversion.calibrate import choose_precision
from netsim.inversion.engine import Engine
from netsim.inversion.execution import CudaGraphs, Plain
from netsim.inversion.invert import invert_batches
from netsim.inversion.precision import Precision, fast_precisions
from netsim.networks import as_network
from netsim.settings import InversionSettings
from tasks.devices import visible_gpus
from unit.inversion.examples import HALF, Branching, Scaled, convolutional, images

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]
N = 9
NAMES = ("images", "final_loss", "history", "iterations", "stop_reason")


class Called(Plain):
    """Calls, with as rare looks at the flags as graphs have: the same images are then evaluated together."""

    look_every, shrink_at = CudaGraphs.look_every, CudaGraphs.shrink_at


def network_on_gpu(*, dtype=torch.float32):
    return convolutional(dtype=dtype).cuda()


def pairs(*, dtype=torch.float32):
    return images(N, rng_seed=1, dtype=dtype), images(N, rng_seed=2, dtype=dtype)


def differing(result, expected):
    return [name for name in NAMES if not torch.equal(getattr(result, name), getattr(expected, name))]


@pytest.mark.parametrize("preset", ["published", "fast"])
def test_in_double_precision_results_are_those_of_a_cpu(preset):
    settings = InversionSettings(preset=preset, iterations=12, batch_size=4)
    expected = invert_batches(convolutional(dtype=torch.float64), *pairs(dtype=torch.float64), settings)
    result = invert_batches(network_on_gpu(dtype=torch.float64), *pairs(dtype=torch.float64), settings)
    assert result.images.device.type == "cpu"
    torch.testing.assert_close(result.images, expected.images, rtol=0, atol=1e-7)
    torch.testing.assert_close(result.history, expected.history, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("precision", [Precision(), Precision("tf32", "tf32"), HALF], ids=str)
@pytest.mark.parametrize(("preset", "stop_loss"), [("published", None), ("published", 0.2), ("fast", 0.02)])
def test_graphs_have_the_bits_of_calls_and_repeat_them(preset, stop_loss, precision, caplog):
    network = network_on_gpu()
    settings = InversionSettings(preset=preset, iterations=30, stop_loss=stop_loss, batch_size=4)
    with caplog.at_level(logging.WARNING, logger="netsim"):
        first, second = (invert_batches(network, *pairs(), settings, precision=precision) for _ in range(2))
    assert "without CUDA graphs" not in caplog.text
    assert differing(first, second) == []
    called = invert_batches(network, *pairs(), settings, precision=precision, execution=Called())
    assert differing(first, called) == []


def test_graphs_are_captured_and_replayed(monkeypatch):
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(graph) or replay(graph))
    invert_batches(network_on_gpu(), *pairs(), InversionSettings(iterations=20, batch_size=N))
    assert len(set(map(id, replays))) == 2  # evaluate and step
    assert len(replays) == 21 + 20 - 4  # but for the first two calls of each


def test_a_network_that_cannot_be_captured_is_called_and_the_log_says_so_once(caplog):
    execution._warn_once.cache_clear()
    network = as_network(Branching().cuda(), images(2).cuda())
    settings = InversionSettings(iterations=10, batch_size=4)
    with caplog.at_level(logging.WARNING):
        results = [invert_batches(network, *pairs(), settings) for _ in range(2)]
    expected = invert_batches(network, *pairs(), settings, execution=Called())
    assert [differing(result, expected) for result in results] == [[], []]
    assert caplog.text.count("inverting without CUDA graphs") == 1
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.zeros(1, device="cuda").item() == 0  # the device works on


def test_a_gradient_that_overflows_in_float16_is_taken_again():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Scaled(10), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 5))
    network = as_network(model.eval().cuda(), images(2).cuda())
    record = invert_batches(network, *pairs(), InversionSettings(iterations=20, batch_size=N), precision=HALF)
    assert not record.nonfinite.any()
    assert (record.final_loss < record.initial_loss).all()


def test_tf32_rounds_the_layers_alone_and_is_off_afterwards():
    if "tf32" not in fast_precisions(torch.device("cuda")):
        pytest.skip("this GPU has no TF32")
    network, x = network_on_gpu(), images(N).cuda()
    engine = Engine(network, x, precision=Precision("tf32", "tf32"), batch_size=N)
    exact = engine.represent_exactly(x)
    moved = (engine.represent_all(x) - exact).norm(dim=1) / exact.norm(dim=1)
    assert 1e-6 < moved.max() < 1e-2
    assert torch.equal(engine.represent_exactly(x), exact)
    with pytest.raises(DataError):
        engine.loss_and_descent(x, exact[:, :3])
    assert torch.equal(engine.represent_exactly(x), exact)


def test_auto_chooses_among_what_the_device_has():
    precision = choose_precision(network_on_gpu(), "auto", images(8))
    assert precision.dtype in ("float32", *fast_precisions(torch.device("cuda")))


def test_memory_that_ends_halves_the_batch_and_graphs_go_on():
    network = as_network(
        nn.Sequential(nn.Conv2d(3, 256, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256 * 62 * 62, 5)).cuda().eval(),
        torch.rand(2, 3, 64, 64).cuda(),
    )
    x = torch.rand(64, 3, 64, 64)
    settings = InversionSettings(iterations=6, batch_size=64)
    expected = invert_batches(network, x, x.flip(0), settings)
    torch.cuda.empty_cache()
    one = 256 * 62 * 62 * 4
    allowed = torch.cuda.memory_allocated() + 48 * 3 * one
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        result = invert_batches(network, x, x.flip(0), settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.batch_size < 64 == expected.batch_size
    torch.testing.assert_close(result.final_loss, expected.final_loss, rtol=0.05, atol=1e-3)


def test_an_inversion_is_cancelled_between_replays_and_the_next_one_works():
    class Cancelled(BaseException):
        pass

    def cancel(at):
        if at.k.max() == 7:
            raise Cancelled

    settings = InversionSettings(iterations=20, batch_size=N)
    expected = invert_batches(network_on_gpu(), *pairs(), settings)
    with pytest.raises(Cancelled):
        invert_batches(network_on_gpu(), *pairs(), settings, on_iteration=cancel)
    assert differing(invert_batches(network_on_gpu(), *pairs(), settings), expected) == []


def test_every_gpu_gets_one_worker_of_its_own():
    gpus = visible_gpus(None)
    assert len(gpus) == torch.cuda.device_count()
    specs = worker_specs(1, gpus, security=None)
    workers = [spec for name, spec in specs.items() if str(name).startswith("gpu-")]
    assert [spec["options"]["env"]["CUDA_VISIBLE_DEVICES"] for spec in workers] == gpus
