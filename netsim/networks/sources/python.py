"""python:MODULE:FUNCTION: the return value of a user's function. Errors in user code are reported as netsim's own."""

import importlib

from torch import nn

from netsim.errors import NetworkError, SettingsError, first_line, nearest
from netsim.networks.ambient import plain_torch
from netsim.networks.sources.base import Built, NetworkSource, Reference
from netsim.networks.wrappers import unwrap


def check(parsed: Reference) -> None:
    """Raise SettingsError unless the reference names a module and a function."""
    module, _, function = parsed.name.partition(":")
    if not (module and function):
        raise SettingsError(f"network 'python:{parsed.name}' requires a function: write 'python:module:function'")


def build(parsed: Reference, num_classes: int | None) -> Built:
    """Call the function. It takes no arguments, so `num_classes` is checked later, by `load_network`.

    Raises
    ------
    SettingsError
        If the module cannot be imported, or has no such function.
    NetworkError
        If the function fails, or returns anything but a torch.nn.Module.
    """
    module_name, _, function_name = parsed.name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise SettingsError(f"cannot import {module_name!r}: {error.name!r} is missing. Install it.") from error
        message = f"cannot import {module_name!r}: {first_line(error)}. Is its folder on PYTHONPATH?"
        raise SettingsError(message) from error
    except (Exception, SystemExit) as error:  # user code can fail in any way, and sys.exit(0) must not count as success
        message = f"cannot import {module_name!r}: {type(error).__name__}: {first_line(error)}"
        raise SettingsError(message) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise SettingsError(f"no function {function_name!r} in {module_name}{nearest(function_name, known)}")
    try:
        with plain_torch():  # again, because the module may have set something when it was imported
            model = function()
    except (Exception, SystemExit) as error:
        raise NetworkError(f"{parsed.name} failed: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise NetworkError(f"{parsed.name} must return a torch.nn.Module, got {type(model).__name__}")
    return Built(*unwrap(model))


SOURCE = NetworkSource(check, build)
