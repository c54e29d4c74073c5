"""Makes the `robustness` library importable with today's torchvision, and usable without CUDA.

robustness 1.2.1.post2 (Engstrom, Ilyas, Salman, Santurkar, Tsipras 2019, https://github.com/MadryLab/robustness) is the
newest on the package index. It imports `torchvision.models.utils`, which torchvision 0.11 removed, and it moves the
model and the images to CUDA whether or not there is any. Nothing else in netsim touches its internals: an
AttackerModel is recognised by its attributes, and the library itself is needed only to make or train one.
"""

import functools
import importlib
import sys
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

SUBMODULES = ("attack_steps", "attacker", "cifar_models", "datasets", "model_utils", "tools.helpers")


@functools.cache
def import_robustness() -> ModuleType:
    """The `robustness` package, with the submodules of `SUBMODULES` imported: `import_robustness().attacker`.

    Adds a stand-in for `torchvision.models.utils` where that is missing. Where CUDA is missing, it also changes two
    methods of robustness's own classes so that `make_and_restore_model` and attacks stay on the CPU; training
    (`robustness.train`) and `DataParallel` are left as they are, and need CUDA. torch itself is not changed.
    Raises ModuleNotFoundError if robustness is not installed.
    """
    _provide_torchvision_models_utils()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=SyntaxWarning)  # its docstrings have "\ell" in plain strings
        warnings.simplefilter("ignore", category=DeprecationWarning)
        package = importlib.import_module("robustness")
        for name in SUBMODULES:
            importlib.import_module(f"robustness.{name}")
    if not torch.cuda.is_available():
        _stay_on_cpu(package)
    return package


def _provide_torchvision_models_utils() -> None:
    """Old code takes one function from there, which torch.hub has always had."""
    try:
        importlib.import_module("torchvision.models.utils")
    except ModuleNotFoundError:
        stand_in = ModuleType("torchvision.models.utils", "Stand-in made by netsim for what torchvision 0.11 removed.")
        stand_in.load_state_dict_from_url = torch.hub.load_state_dict_from_url  # type: ignore[attr-defined]
        sys.modules["torchvision.models.utils"] = stand_in


class _StayingTensor(Tensor):
    """A tensor whose `.cuda()` gives the plain tensor, where it is."""

    def cuda(self, *_: Any, **__: Any) -> Tensor:
        return self.as_subclass(Tensor)


def _stay_on_cpu(package: ModuleType) -> None:
    """Take the effect from `model.cuda()` in make_and_restore_model and `orig_input.cuda()` in Attacker.forward."""
    attacker = package.attacker
    published_forward = attacker.Attacker.forward

    @functools.wraps(published_forward)
    def forward(self: Any, x: Tensor, *args: Any, orig_input: Tensor | None = None, **kwargs: Any) -> Any:
        centre = (x if orig_input is None else orig_input).detach().as_subclass(_StayingTensor)
        return published_forward(self, x, *args, orig_input=centre, **kwargs)

    attacker.Attacker.forward = forward
    attacker.AttackerModel.cuda = lambda self, device=None: self
