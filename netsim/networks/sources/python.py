"""python:[FOLDER/]MODULE:FUNCTION: the return value of a user's function. Errors in its code become netsim's own."""

import importlib
import os
import sys
from types import ModuleType

from torch import nn

from netsim.errors import NetworkError, SettingsError, first_line, nearest
from netsim.networks.ambient import plain_torch
from netsim.networks.sources.base import Built, NetworkSource, Reference
from netsim.networks.wrappers import unwrap
from netsim.references import module_file


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
    module = _import(module_name, parsed.folder)
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


def _import(name: str, folder: str | None) -> ModuleType:
    """Import a module from a folder, if it has it, or else from the path. Raises SettingsError if that fails."""
    file = None if folder is None else module_file(folder, name)
    if file is not None:
        _append_to_path(os.path.abspath(os.path.expanduser(str(folder))))
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise SettingsError(f"cannot import {name!r}: {error.name!r} is missing. Install it.") from error
        where = f"in {folder}" if folder else "beside the settings file"
        raise SettingsError(f"cannot import {name!r}: {first_line(error)}. Is it {where}, or on PYTHONPATH?") from error
    except (Exception, SystemExit) as error:  # user code can fail in any way, and sys.exit(0) must not count as success
        raise SettingsError(f"cannot import {name!r}: {type(error).__name__}: {first_line(error)}") from error
    imported = module.__file__
    if file is not None and (imported is None or not os.path.samefile(imported, file)):
        raise SettingsError(
            f"module {name!r} must be {file}, got {imported or 'one without a file'}, which comes first. Rename yours."
        )
    return module


def _append_to_path(folder: str) -> None:
    """Let modules be found in a folder too, after all others: a file of the user's must not replace a library."""
    if folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()


SOURCE = NetworkSource(check, build)
