"""The engine: what it evaluates is the network, whatever it folds, rounds or cuts into batches."""

import logging
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from netsim.errors import NetworkError
from netsim.inversion import calibrate, memory
from netsim.inversion.calibrate import choose_precision
from netsim.inversion.engine import Engine
from netsim.inversion.folding import QuickStem
from netsim.inversion.invert import invert_batches
from netsim.inversion.memory import fitting_batch_size
from netsim.inversion.precision import Precision, fast_precisions
from netsim.networks import as_network, load_network
from netsim.networks.sources.small import SMALL
from netsim.settings import InversionSettings

HALF = Precision("float16", "float16")


def images(n, shape=(3, 16, 16), *, rng_seed=1, dtype=torch.float32):
    return torch.rand(n, *shape, generator=torch.manual_seed(rng_seed), dtype=torch.float64).to(dtype)


def norms_with_statistics(model, shape=(3, 16, 16)):
    """The model in evaluation mode, after its BatchNorms have seen images."""
    model.train()
    with torch.no_grad():
        for batch in range(3):
            model(images(16, shape, rng_seed=100 + batch, dtype=next(model.parameters()).dtype))
    return model.eval()


def convolutional(*, dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, stride=2, groups=4),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).to(dtype)
    return as_network(norms_with_statistics(model), images(2, dtype=dtype))


def norms(engine_):
    return sum(isinstance(part, nn.BatchNorm2d) for part in engine_.modules())


# --- folding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_every_small_network_represents_as_before_with_its_norms_folded(name):
    network = load_network(f"small:{name}@none")
    norms_with_statistics(network.requires_grad_(False), (1, 28, 28))
    network.double()
    ready = Engine(network, images(1, (1, 28, 28)).double(), batch_size=4)
    x = images(4, (1, 28, 28), rng_seed=2).double()
    torch.testing.assert_close(ready.represent(x), network.represent(x), rtol=1e-10, atol=1e-10)
    left = {"densenet": 11}  # those that come before a convolution instead of after one
    assert norms(ready) == left.get(name, 0)


@pytest.mark.parametrize("name", ["vit_b_16", "convnext_tiny", "swin_t", "efficientnet_b0", "googlenet"])
def test_networks_of_other_kinds_work_unchanged(name):
    shape = (3, 224, 224) if name == "vit_b_16" else (3, 64, 64)
    network = load_network(f"torchvision:{name}@none", num_classes=5, input_shape=shape)
    network.double()
    seed, target = (images(1, shape, rng_seed=k).double() for k in (1, 2))
    goal = network.represent(target).detach()
    x = seed.clone().requires_grad_(True)
    distance = torch.linalg.vector_norm(network.represent(x) - goal)
    (gradient,) = torch.autograd.grad(distance, x)
    loss, descent = Engine(network, seed, batch_size=1).loss_and_descent(seed, goal)
    torch.testing.assert_close(loss[0], (distance / torch.linalg.vector_norm(goal)).detach(), rtol=1e-9, atol=0)
    difference = torch.linalg.vector_norm(descent + gradient) / torch.linalg.vector_norm(gradient)
    assert difference < 1e-6


class UsedTwice(nn.Module):
    """A convolution whose output goes to a BatchNorm and around it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.conv(x)
        return self.head((self.norm(x) + x).mean(dim=(2, 3)))


class InPlaceBetween(UsedTwice):
    """An activation between the two that leaves no trace in the identity of the tensor."""

    def forward(self, x):
        return self.head(self.norm(self.conv(x).relu_()).mean(dim=(2, 3)))


class Shared(UsedTwice):
    """One BatchNorm after two convolutions."""

    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.head(self.norm(self.second(self.norm(self.conv(x)))).mean(dim=(2, 3)))


@pytest.mark.parametrize("kind", [UsedTwice, InPlaceBetween, Shared])
def test_a_norm_that_cannot_be_folded_stays(kind):
    torch.manual_seed(0)
    network = as_network(norms_with_statistics(kind().double()), images(2).double())
    ready = Engine(network, images(1).double(), batch_size=2)
    assert norms(ready) == 1
    x = images(2, rng_seed=3).double()
    torch.testing.assert_close(ready.represent(x), network.represent(x), rtol=1e-12, atol=1e-12)


class Flattens(nn.Module):
    """As LeNet does: a map of features is taken for a row of numbers, which it is not when stored channels last."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3)
        self.out = nn.Linear(8 * 12 * 12, 5)
        with torch.no_grad():
            self.norm.running_mean.uniform_(-1, 1), self.norm.running_var.uniform_(0.5, 2)
            self.norm.weight.uniform_(0.5, 2), self.norm.bias.uniform_(-1, 1)

    def forward(self, x):
        return self.out(self.second(self.norm(self.first(x).relu())).view(-1, self.out.in_features))


class OfVolumes(Flattens):
    """A weight of five dimensions, which no layout of images fits."""

    def __init__(self):
        super().__init__()
        self.volume = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.out(self.second(self.volume(self.first(x).relu()[:, None])[:, 0]).flatten(1))


class AsksItsNorm(Flattens):
    def forward(self, x):
        x = self.norm(self.first(x)) * self.norm.weight.mean()
        return self.out(self.second(x).flatten(1))


@pytest.mark.parametrize("kind", [Flattens, OfVolumes, AsksItsNorm])
@pytest.mark.parametrize("count", [1, 3])
def test_what_cannot_be_stored_or_folded_as_it_would_be_quickest_is_inverted_all_the_same(kind, count):
    torch.manual_seed(0)
    network = as_network(kind().double(), images(1, (3, 16, 16)).double())
    x, goal = images(count, (3, 16, 16)).double(), torch.rand(count, network.width, dtype=torch.float64)
    loss, descent = Engine(network, x, batch_size=count).loss_and_descent(x, goal)
    leaf = x.clone().requires_grad_()
    distance = torch.linalg.vector_norm(network.represent(leaf) - goal, dim=1)
    (gradient,) = torch.autograd.grad(distance.sum(), leaf)
    torch.testing.assert_close(loss, distance.detach() / torch.linalg.vector_norm(goal, dim=1))
    torch.testing.assert_close(descent, -gradient)


def test_the_network_is_left_as_it_was():
    network = convolutional()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layouts = [tensor.stride() for tensor in network.state_dict().values()]
    Engine(network, images(1), precision=HALF, batch_size=2).represent(images(2))
    assert [tensor.stride() for tensor in network.state_dict().values()] == layouts
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


# --- the first layer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 7, 9])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 31, 45), (3, 4, 224, 224)], ids=str)
def test_the_quick_gradient_of_a_first_layer_is_the_gradient(size, shape):
    conv = nn.Conv2d(shape[1], 6, size, stride=2, padding=size // 2).double()
    assert QuickStem.supports(conv)
    x = images(shape[0], shape[1:], dtype=torch.float64).requires_grad_()
    expected, found = conv(x), QuickStem(conv)(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    cotangent = torch.randn(expected.shape, dtype=torch.float64, generator=torch.manual_seed(2))
    torch.testing.assert_close(
        *(torch.autograd.grad(y, x, cotangent)[0] for y in (found, expected)), rtol=1e-12, atol=1e-12
    )


def test_only_the_first_layer_of_a_network_that_has_one_like_that_is_quickened():
    resnet, vgg = (load_network(f"torchvision:{name}@none", input_shape=(3, 64, 64)) for name in ("resnet18", "vgg11"))
    quick = {
        network.name: [
            part.conv.kernel_size
            for part in Engine(network, images(1, (3, 64, 64))).modules()
            if isinstance(part, QuickStem)
        ]
        for network in (resnet, vgg)
    }
    assert quick == {"resnet18": [(7, 7)], "vgg11": []}
    for unfit in ({"dilation": 2}, {"stride": 1}, {"padding": 2}, {"padding_mode": "reflect"}, {"kernel_size": (7, 5)}):
        conv = nn.Conv2d(3, 8, **{"kernel_size": 7, "stride": 2, "padding": 3} | unfit)
        assert not QuickStem.supports(conv)


# --- half precision ---------------------------------------------------------------------------------------------------


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


def test_grouped_convolutions_work_in_the_precision_of_the_plan():
    ready = Engine(convolutional(), images(1), precision=Precision("float16", "float32"), batch_size=1)
    dtypes = {part.groups: part.weight.dtype for part in ready.modules() if isinstance(part, nn.Conv2d)}
    assert dtypes == {1: torch.float16, 4: torch.float32}


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


def test_auto_takes_the_fastest_of_what_is_exact_enough(monkeypatch):
    network, x = convolutional(), images(4)
    seconds = {Precision(): 3.0, HALF: 2.0, Precision("bfloat16", "bfloat16"): 1.0}
    monkeypatch.setattr(calibrate, "fast_precisions", lambda _device: ("float16", "bfloat16"))
    monkeypatch.setattr(calibrate, "_seconds", lambda _network, precision, _images: seconds.get(precision, 9.0))
    assert choose_precision(network, "auto", x) == Precision("bfloat16", "bfloat16")
    monkeypatch.setattr(calibrate, "MAX_CHANGE", 1e-3)  # bfloat16 has 8 bits
    assert choose_precision(network, "auto", x) == HALF
    monkeypatch.setattr(calibrate, "MAX_CHANGE", 1e-6)
    assert choose_precision(network, "auto", x) == Precision()


def test_auto_measures_for_real_and_leaves_out_what_the_device_has_no_instructions_for(caplog):
    network = convolutional()
    with caplog.at_level(logging.INFO, logger="netsim.inversion.calibrate"):
        precision = choose_precision(network, "auto", images(4))
    assert precision.dtype in ("float32", *fast_precisions(torch.device("cpu")))
    assert "inverting in" in caplog.text and " ms in float32" in caplog.text


class WithCoordinates(nn.Module):
    """It makes tensors of its own, in float32 whatever it is given."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(4, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        where = torch.linspace(0, 1, x.shape[-1]).expand(len(x), 1, *x.shape[-2:])
        return self.out(self.conv(torch.cat([x, where], dim=1)).mean((2, 3)))


def test_what_cannot_be_computed_in_half_precision_is_not(monkeypatch):
    network = as_network(WithCoordinates(), images(1, (3, 16, 16)))
    monkeypatch.setattr(calibrate, "fast_precisions", lambda _device: ("bfloat16",))
    assert choose_precision(network, "auto", images(2, (3, 16, 16))) == Precision()
    with pytest.raises(
        NetworkError, match=r"cannot be computed in bfloat16.*; set inversion.precision to float32 or auto"
    ):
        choose_precision(network, "bfloat16", images(2, (3, 16, 16)))


def test_a_network_in_double_precision_stays_in_it():
    assert choose_precision(convolutional(dtype=torch.float64), "float16", images(2).double()) == Precision()


# --- batches and memory -----------------------------------------------------------------------------------------------


def test_a_smaller_batch_measures_the_same():
    network = convolutional(dtype=torch.float64)
    x, goal = images(7).double(), network.represent(images(7, rng_seed=2).double()).detach()
    whole = Engine(network, x, batch_size=7).loss_and_descent(x, goal)
    parts = Engine(network, x, batch_size=3).loss_and_descent(x, goal)
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


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
