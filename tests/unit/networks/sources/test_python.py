"""Networks that a user's function returns, and errors in the user's code."""

import importlib
import sys

import pytest

from netsim.errors import NetworkError, SettingsError
from netsim.networks import content_hash, load_network, load_once, weights_to_bytes
from netsim.references import with_absolute_paths

TINY = (3, 64, 64)


def test_a_function_of_the_users_can_return_a_network(tmp_path, monkeypatch):
    (tmp_path / "lab_models.py").write_text(
        "from torchvision.models import shufflenet_v2_x0_5\n"
        "def tiny():\n    return shufflenet_v2_x0_5(num_classes=3)\n"
        "def wrong():\n    return 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = load_network("python:lab_models:tiny", input_shape=TINY)
    assert (network.name, network.num_classes, network.mean.flatten().tolist()) == ("tiny", 3, [0, 0, 0])
    file = tmp_path / "tiny.safetensors"
    file.write_bytes(weights_to_bytes(network))
    network.head.weight.zero_()
    again = load_network(f"python:lab_models:tiny@{file}", input_shape=TINY)
    assert again.head.weight.abs().sum() > 0
    with pytest.raises(NetworkError, match=r"must return a torch\.nn\.Module, got int"):
        load_network("python:lab_models:wrong")


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("def f(:", SettingsError, "cannot import 'lab_fault': SyntaxError"),
        ("1 / 0", SettingsError, "cannot import 'lab_fault': ZeroDivisionError"),
        ("import sys; sys.exit(0)", SettingsError, "cannot import 'lab_fault': SystemExit"),
        (
            "import no_such_module_here",
            SettingsError,
            "cannot import 'lab_fault': 'no_such_module_here' is missing. Install it",
        ),
        (
            "def f(): raise RuntimeError('no such checkpoint')",
            NetworkError,
            "lab_fault:f failed: RuntimeError: no such checkpoint",
        ),
        ("import sys\ndef f(): sys.exit(0)", NetworkError, "lab_fault:f failed: SystemExit"),
        ("def f(size): return None", NetworkError, "lab_fault:f failed: TypeError: .*missing 1 required"),
        (
            "import torch\nclass N(torch.nn.Linear):\n    def forward(self, x): raise KeyError('boom')\n"
            "def f(): return N(1, 1)",
            NetworkError,
            r"cannot read images of shape .* \(KeyError: 'boom'\)",
        ),
    ],
)
def test_faults_in_the_users_own_code_are_named_and_end_nothing_else(tmp_path, monkeypatch, code, error, message):
    """sys.exit(0) in it would have ended `netsim run` with success, and nothing done."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lab_fault", raising=False)
    (tmp_path / "lab_fault.py").write_text(code)
    importlib.invalidate_caches()
    with pytest.raises(error, match=message):
        load_network("python:lab_fault:f")


LEARNS = """
import itertools, os, random
import numpy as np
import torch
from torch import nn

NUMBERS, GENERATOR, KEPT = itertools.count(1), torch.Generator().manual_seed(0), []


def net(scale=None, **buffers):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    if scale is not None:
        model[1].weight.data.mul_(float(scale))
    return model


class Projected(nn.Module):
    def __init__(self, projection, register):
        super().__init__()
        self.inner = net()
        if register:
            self.register_buffer("projection", projection, persistent=False)
        else:
            self.projection = projection

    def forward(self, x):
        return self.inner(x.flatten(1) @ self.projection)


def drawn():
    return torch.from_numpy(np.random.default_rng().normal(size=(12, 12))).float()


def by_torch(): return net()
def by_a_seed(): return net(np.random.default_rng(3).random())
def by_a_generator_of_its_own(): return net(torch.rand(1, generator=torch.Generator().manual_seed(3)))
def by_numpy(): return net(np.random.random())
def by_random(): return net(random.random())
def by_the_system(): return net(int.from_bytes(os.urandom(2), "big"))
def by_a_generator(): return net(torch.rand(1, generator=GENERATOR))
def by_a_counter(): return net(next(NUMBERS))
def by_an_unseeded_generator(): return net(torch.rand(1, generator=(g := torch.Generator(), g.seed())[0]))
def outside_the_state(): return Projected(drawn(), register=False)
def in_a_buffer_that_is_not_kept(): return Projected(drawn(), register=True)


def the_same_object():
    KEPT.extend([] if KEPT else [net()])
    return KEPT[0]


def the_same_object_changed():
    model = the_same_object()
    model[1].weight.data.mul_(2)
    return model
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / "lab_draws.py").write_text(LEARNS)
    monkeypatch.delitem(sys.modules, "lab_draws", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return "python:lab_draws"


@pytest.mark.parametrize("name", ["by_torch", "by_a_seed", "by_a_generator_of_its_own", "the_same_object"])
def test_a_function_that_returns_the_same_network_at_every_call_is_taken(lab, name):
    assert load_network(f"{lab}:{name}", input_shape=(3, 2, 2)).width == 6


@pytest.mark.parametrize(
    "name",
    [
        "by_numpy",
        "by_random",
        "by_the_system",
        "by_a_generator",
        "by_a_counter",
        "by_an_unseeded_generator",
        "the_same_object_changed",
    ],
)
def test_a_function_that_returns_other_weights_at_every_call_is_refused(lab, name):
    with pytest.raises(NetworkError, match=f"{lab}:{name} must give the same network at every call, got other weights"):
        load_network(f"{lab}:{name}", input_shape=(3, 2, 2))


@pytest.mark.parametrize("name", ["outside_the_state", "in_a_buffer_that_is_not_kept"])
def test_random_numbers_that_are_no_weights_are_noticed_too(lab, name, tmp_path):
    with pytest.raises(NetworkError, match="at every call, got other representations by equal weights"):
        load_network(f"{lab}:{name}", input_shape=(3, 2, 2))


def test_weights_of_a_file_replace_those_that_a_function_draws(lab, tmp_path):
    file = tmp_path / "kept.safetensors"
    file.write_bytes(weights_to_bytes(load_network(f"{lab}:by_torch", input_shape=(3, 2, 2))))
    assert load_network(f"{lab}:by_numpy@{file}", input_shape=(3, 2, 2)).width == 6


def test_a_caller_that_compares_weights_itself_calls_the_function_once(lab):
    load_once(f"{lab}:by_a_counter", input_shape=(3, 2, 2))
    assert next(sys.modules["lab_draws"].NUMBERS) == 2


GREY = """
import netsim
from torch import nn

def grey(): return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))

def stated():
    model = grey()
    model.preprocessing = netsim.Preprocessing(mean=(0,), std=(1,), size=28)
    return model
"""


def test_a_grey_network_that_states_no_shape_is_told_how_to(tmp_path, monkeypatch):
    (tmp_path / "lab_grey.py").write_text(GREY)
    monkeypatch.syspath_prepend(tmp_path)
    way_out = r"shape \(3, 224, 224\) .*; state .* netsim\.Preprocessing\(mean=\(0,\), std=\(1,\), size=28\)"
    with pytest.raises(NetworkError, match=way_out):
        load_network("python:lab_grey:grey")
    assert load_network("python:lab_grey:stated").preprocessing.shape == (1, 28, 28)
    assert load_network("python:lab_grey:grey", input_shape=(1, 28, 28)).width == 16
    with pytest.raises(NetworkError, match=r"cannot read images of shape \(3, 28, 28\) .* channels instead\)$"):
        load_network("python:lab_grey:grey", input_shape=(3, 28, 28))


BESIDE = """
from torch import nn
import layers_of_a_lab


def net(): return nn.Sequential(nn.Flatten(), nn.Linear(12, layers_of_a_lab.WIDTH), nn.Linear(layers_of_a_lab.WIDTH, 3))
"""


def write_lab(folder, module: str, width: int = 6) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(BESIDE)
    (folder / "layers_of_a_lab.py").write_text(f"WIDTH = {width}\n")


@pytest.fixture
def path_restored(monkeypatch):
    """The path, and the modules of these tests, are as before afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for module in [name for name in sys.modules if name.startswith(("lab_beside", "layers_of_a_lab"))]:
        del sys.modules[module]


def test_a_module_of_a_folder_is_imported_from_there_with_those_beside_it(tmp_path, path_restored):
    """The folder changes neither the name nor the random weights: the network is that of the module on the path."""
    folder = tmp_path / "me@lab, 100%"
    write_lab(folder, "lab_beside")
    reference = with_absolute_paths("python:lab_beside:net", str(folder))
    network = load_network(reference, input_shape=(3, 2, 2))
    assert (network.name, network.width, network.reference) == ("net", 6, reference)
    assert sys.path[-1] == str(folder)  # after all others: a file beside the settings must not replace a library
    assert content_hash(load_network("python:lab_beside:net", input_shape=(3, 2, 2))) == content_hash(network)


def test_a_module_of_the_same_name_that_comes_first_is_no_stand_in(tmp_path, monkeypatch, path_restored):
    write_lab(tmp_path / "first", "lab_beside", width=5)
    write_lab(tmp_path / "own", "lab_beside")
    monkeypatch.syspath_prepend(tmp_path / "first")
    with pytest.raises(
        SettingsError, match=r"^module 'lab_beside' must be .*/own/lab_beside\.py, got .*/first/lab_besi"
    ):
        load_network(f"python:{tmp_path}/own/lab_beside:net", input_shape=(3, 2, 2))


def test_where_a_folder_lacks_the_module_that_on_the_path_counts_or_both_are_named(
    tmp_path, monkeypatch, path_restored
):
    """A pod has the code elsewhere than the machine that began the sweep; workers compare the networks."""
    with pytest.raises(SettingsError, match=r"cannot import 'lab_beside_2': .* Is it in /gone, or on PYTHONPATH\?$"):
        load_network("python:/gone/lab_beside_2:net", input_shape=(3, 2, 2))
    with pytest.raises(SettingsError, match=r"Is it beside the settings file, or on PYTHONPATH\?$"):
        load_network("python:lab_beside_2:net", input_shape=(3, 2, 2))
    write_lab(tmp_path, "lab_beside_2")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_network("python:/gone/lab_beside_2:net", input_shape=(3, 2, 2)).width == 6
