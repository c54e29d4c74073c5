"""Compatibility of the `robustness` library with current torchvision, and with machines without CUDA.

robustness 1.2.1.post2 (Engstrom, Ilyas, Salman, Santurkar, Tsipras 2019, https://github.com/MadryLab/robustness) is the
newest on the package index. It imports `torchvision.models.utils`, which torchvision 0.11 removed, and it moves the
model and the images to CUDA even where there is none. Nothing else in netsim depends on its internals: an
AttackerModel is recognised by its attributes, and the library itself is required only to build or train one.
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
    """Import the `robustness` package with all `SUBMODULES`, as in `import_robustness().attacker`.

    Adds a stand-in for `torchvision.models.utils` if that is missing. Without CUDA, it also replaces two methods of
    robustness's own classes, so that `make_and_restore_model` and attacks stay on the CPU; training
    (`robustness.train`) and `DataParallel` are unchanged, and require CUDA. torch itself is not changed.

    Raises
    ------
    ModuleNotFoundError
        If robustness is not installed.
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
    """Add the one function that old code imports from there, and that torch.hub has always had."""
    try:
        importlib.import_module("torchvision.models.utils")
    except ModuleNotFoundError:
        stand_in = ModuleType("torchvision.models.utils", "Stand-in made by netsim for what torchvision 0.11 removed.")
        stand_in.load_state_dict_from_url = torch.hub.load_state_dict_from_url  # type: ignore[attr-defined]
        sys.modules["torchvision.models.utils"] = stand_in


class _StayingTensor(Tensor):
    """Tensor whose `.cuda()` returns the plain tensor, on its own device."""

    def cuda(self, *_: Any, **__: Any) -> Tensor:
        return self.as_subclass(Tensor)


def _stay_on_cpu(package: ModuleType) -> None:
    """Disable `model.cuda()` in make_and_restore_model, and `orig_input.cuda()` in Attacker.forward."""
    attacker = package.attacker
    published_forward = attacker.Attacker.forward

    @functools.wraps(published_forward)
    def forward(self: Any, x: Tensor, *args: Any, orig_input: Tensor | None = None, **kwargs: Any) -> Any:
        centre = (x if orig_input is None else orig_input).detach().as_subclass(_StayingTensor)
        return published_forward(self, x, *args, orig_input=centre, **kwargs)

    attacker.Attacker.forward = forward
    attacker.AttackerModel.cuda = lambda self, device=None: self
