"""Results do not depend on what a caller has set in torch, and what is set is the same afterwards."""

import threading
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import netsim
from netsim.images import ArrayImages
from netsim.inversion.calibrate import choose_precision
from netsim.inversion.invert import invert, invert_batches, invert_images
from netsim.networks import as_network, content_hash, load_network
from netsim.networks.ambient import plain_numbers, plain_torch
from netsim.networks.training import accuracy, train_epochs
from netsim.settings import InversionSettings
from support.classifiers import Classifier, images

FEW = InversionSettings(iterations=5)


@contextmanager
def restored(read, write, value):
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def default_dtype(dtype):
    return restored(torch.get_default_dtype, torch.set_default_dtype, dtype)


def default_device(device):
    return restored(lambda: None, torch.set_default_device, device)


def matmul(precision):
    return restored(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, precision)


def attribute(owner, name, value):
    return restored(lambda: getattr(owner, name), lambda given: setattr(owner, name, given), value)


class Halves(TorchFunctionMode):
    """It halves whatever a function of torch returns in floating point."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        return result / 2 if func is torch.nn.functional.linear else result


def packed():
    """Save tensors for gradients in bfloat16, as some do to save memory."""
    return torch.autograd.graph.saved_tensors_hooks(lambda x: x.bfloat16(), lambda x: x.float())


SURROUNDINGS = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "default device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "default float64": lambda: default_dtype(torch.float64),
    "default float16": lambda: default_dtype(torch.float16),
    "function mode": Halves,
    "saved tensor hooks": packed,
    "anomaly detection": torch.autograd.detect_anomaly,
    "medium products": lambda: matmul("medium"),
    "deterministic algorithms": lambda: restored(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "flushed denormals": lambda: restored(lambda: False, torch.set_flush_denormal, True),
}


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return Classifier().eval()


@pytest.fixture(scope="module")
def network(classifier):
    return as_network(classifier, images(1))


def seeds_and_targets():
    with torch.inference_mode(False), torch.device("cpu"), default_dtype(torch.float32):
        return images(4).split(2)


def represented_goal(network):
    with plain_torch(), torch.no_grad():
        return network.represent(seeds_and_targets()[1])


def inverted(network, seed, target):
    result = invert_batches(network, seed, target, FEW)
    return [result.images, result.final_loss, result.history]


def trained():
    """Train a small network, which draws random numbers too, and test it."""
    network = load_network("small:vgg@none")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 1, 28, 28), dtype=np.uint8)
    some = ArrayImages("some", pixels, np.arange(16) % 10, tuple("0123456789"))
    rates = {"learning_rate": 0.1, "weight_decay": 1e-3}
    train_epochs(network, some, epochs=1, batch_size=8, rng_seed=0, **rates)
    with torch.device("cpu"):
        return [*network.state_dict().values(), torch.tensor(accuracy(network, some), dtype=torch.float64)]


def stated(classifier, images):
    """Make a network that states its preprocessing, and return what is recorded of it."""
    classifier.preprocessing = netsim.Preprocessing(mean=(0.1, 0.2, 0.3), std=[0.5] * 3)
    try:
        network = as_network(torch.nn.DataParallel(classifier), images)
    finally:
        del classifier.preprocessing
    with torch.device("cpu"):
        return network.mean, network.std, torch.tensor(network.preprocessing.to_json()["mean"], dtype=torch.float64)


ENTRIES = {
    "training": lambda *_: trained(),
    "invert_images": lambda classifier, _, *pair: [invert_images(classifier, *pair, iterations=5)],
    "invert_batches": lambda _, network, *pair: inverted(network, *pair),
    "invert": lambda _, network, seed, target: [
        invert(network.represent, seed, represented_goal(network), FEW).history
    ],
    "preprocessing": lambda classifier, _, seed, target: list(stated(classifier, seed)),
    "represent": lambda _, network, seed, target: [network.represent(seed).detach(), network(target).detach()],
    "as_network": lambda classifier, _, seed, target: list(as_network(classifier, seed).state_dict().values()),
    "load_network": lambda *_: list(load_network("small:resnet18@none").state_dict().values()),
    "precision": lambda _, network, seed, target: [
        torch.tensor(choose_precision(network, "float32", seed).dtype == "float32", device="cpu")
    ],
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_results_have_the_same_bits_in_any_surrounding(surrounding, entry, classifier, network):
    pair = seeds_and_targets()
    expected = ENTRIES[entry](classifier, network, *pair)
    with SURROUNDINGS[surrounding]():
        result = ENTRIES[entry](classifier, network, *pair)
    assert all(torch.equal(*both) for both in zip(result, expected, strict=True))
    assert [tensor.dtype for tensor in result] == [tensor.dtype for tensor in expected]


def test_the_loss_that_is_stated_is_that_of_the_images(network):
    seed, target = seeds_and_targets()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = invert_batches(network, seed, target, InversionSettings(iterations=30))
    with torch.no_grad():
        distance = (network.represent(result.images) - network.represent(target)).norm(dim=1)
        assert torch.allclose(result.final_loss, distance / network.represent(target).norm(dim=1), rtol=1e-5)


def test_a_gradient_that_is_not_finite_is_flagged_under_anomaly_detection_too():
    def represent(x):
        return (0 * x.flatten(1)[:, :4]).sqrt()

    with torch.autograd.set_detect_anomaly(True):
        result = invert(represent, torch.zeros(1, 3, 4, 4), torch.ones(1, 4), FEW)
    assert result.nonfinite.all()


def test_a_network_that_was_made_in_inference_mode_is_inverted():
    with torch.inference_mode():
        torch.manual_seed(0)
        made_inside = Classifier().eval()
    torch.manual_seed(0)
    made_outside = Classifier().eval()
    pair = seeds_and_targets()
    assert torch.equal(
        invert_images(made_inside, *pair, iterations=3), invert_images(made_outside, *pair, iterations=3)
    )


def precision_of_products():
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # newer settings contradict it
        return None


def precisions():
    owners = [torch.backends, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul, torch.backends.cuda.matmul]
    return [precision_of_products(), *(owner.fp32_precision for owner in owners)]


def state():
    return [
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_anomaly_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch._C._autograd._top_saved_tensors_default_hooks(False),
        torch._C._len_torch_function_stack(),
    ]


PRECISIONS = {
    "products": lambda: matmul("high"),
    "convolutions on a GPU": lambda: attribute(torch.backends.cudnn.conv, "fp32_precision", "tf32"),
    "products on a CPU": lambda: attribute(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "everything": lambda: attribute(torch.backends, "fp32_precision", "tf32"),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("surrounding", SURROUNDINGS | PRECISIONS)
def test_what_the_caller_has_set_is_plain_inside_and_as_it_was_afterwards(surrounding):
    with plain_torch():
        plain = state()
    with (SURROUNDINGS | PRECISIONS)[surrounding]():
        before = state(), precisions()
        with plain_torch():
            assert state() == plain
            assert {*precisions()} <= {"highest", "ieee", "none"}
            with plain_torch(), torch.device("meta"):
                assert torch.empty(1).device.type == "meta"
        assert (state(), precisions()) == before
    assert plain == [torch.float32, torch.device("cpu"), False, True, False, False, None, 0]


def test_represent_keeps_the_gradient_mode_of_its_caller(network):
    x = images(1).requires_grad_()
    for mode, expected in ((nullcontext, True), (torch.no_grad, False)):
        with mode():
            assert network.represent(x).requires_grad == network(x).requires_grad == expected


def test_threads_that_overlap_leave_what_was_set_before_the_first(network):
    inside, left = threading.Event(), threading.Event()

    def stay():
        with plain_numbers():
            inside.set()
            left.wait(10)

    with default_dtype(torch.float64):
        first = threading.Thread(target=stay)
        with plain_numbers():
            first.start()
            inside.wait(10)
        assert torch.get_default_dtype() == torch.float32  # the other one still computes
        left.set()
        first.join()
        assert torch.get_default_dtype() == torch.float64


def test_a_module_that_sets_something_when_it_is_imported_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "lab_setting.py").write_text(
        "import torch\nfrom torch import nn\n"
        "torch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)\n"
        "torch.set_float32_matmul_precision('medium')\ntorch.autograd.set_detect_anomaly(True)\n"
        "def f():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = state(), precisions()
    network = load_network("python:lab_setting:f", input_shape=(3, 8, 8))
    assert (state(), precisions()) == before
    assert network.mean.dtype == torch.float32
    assert content_hash(load_network("python:lab_setting:f", input_shape=(3, 8, 8))) == content_hash(network)
