"""Networks that a user's function returns, and errors in the user's code."""

import importlib
import sys

import pytest

from netsim.errors import NetworkError, SettingsError
from netsim.networks import load_network, weights_to_bytes

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
