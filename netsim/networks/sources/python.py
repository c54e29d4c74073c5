"""python:MODULE:FUNCTION: what a function of the user's returns. Its faults are named, and end nothing else."""

import importlib

from torch import nn

from netsim.errors import NetworkError, SettingsError, nearest
from netsim.networks.network import first_line, unwrap
from netsim.networks.sources.base import Built, NetworkSource, Reference


def check(parsed: Reference) -> None:
    module, _, function = parsed.name.partition(":")
    if not (module and function):
        raise SettingsError(f"network 'python:{parsed.name}' names no function: write 'python:module:function'")


def build(parsed: Reference, num_classes: int | None) -> Built:
    module_name, _, function_name = parsed.name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise SettingsError(f"importing {module_name!r} finds no module {error.name!r}; install it") from error
        message = f"cannot import {module_name!r} ({first_line(error)}); is its folder on PYTHONPATH?"
        raise SettingsError(message) from error
    except (Exception, SystemExit) as error:  # the user's code can fail in any way, and must not end ours with success
        raise SettingsError(f"importing {module_name!r} raises {type(error).__name__}: {first_line(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise SettingsError(f"no function {function_name!r} in {module_name}{nearest(function_name, known)}")
    try:
        model = function()
    except (Exception, SystemExit) as error:
        raise NetworkError(f"{parsed.name} raises {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise NetworkError(f"{parsed.name} returns {type(model).__name__}, not a torch.nn.Module")
    return Built(*unwrap(model))


SOURCE = NetworkSource(check, build)
