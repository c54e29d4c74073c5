"""Files of tensors: safetensors, and what `torch.save` writes of nothing but tensors, numbers and text.

A pickle is a program. `torch.load(weights_only=True)` runs none: it knows the functions that rebuild tensors, and
refuses a file that needs any other. It would also accept classes that some module has registered as safe, so the list
of those is empty meanwhile: whether a file can be read must not depend on what a process has imported. It is told by
its content which kind a file is, never by its name.
"""

import io
import os
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from netsim.errors import NetworkError, StoreError, first_line
from netsim.networks.weights import parse_safetensors
from netsim.storage.places import parse_place, read_file

Saved = Mapping[tuple[str, ...], Tensor]
"""Tensors of a file, by the keys that lead to their mapping, followed by their names in it."""

# How a file of torch.save begins: a ZIP archive, or, before torch 1.6, a pickle of protocol 2 or higher.
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"

_SETTING = "the file of weights"

_loading = threading.Lock()
"""Held while loading: the classes that torch takes for safe, and what it warns of, are the whole process's."""


class TensorFile(NamedTuple):
    """Content of a file of tensors.

    Attributes
    ----------
    name
        Path or URL of the file, for error messages.
    tensors
        All tensors, by the keys that lead to each.
    metadata
        What `netsim convert` recorded in the file: reference, checkpoint, sha256, mean, std. Empty for other files.
    """

    name: str
    tensors: Saved
    metadata: Mapping[str, Any]


class NeedsPickleError(NetworkError):
    """A file that holds more than tensors, numbers and text, so that reading it could run code."""


def read_tensors(url: str, *, hint: str = "") -> TensorFile:
    """Read the tensors in a file from a path or URL: safetensors, or what `torch.save` wrote.

    The tensors of a local file of `torch.save` are mapped into memory: the state of an optimizer beside the weights,
    twice their size, is not read.

    Raises
    ------
    NeedsPickleError
        If reading the file could run code.
    NetworkError
        If there is no such file, in a message that ends with `hint`, or if it holds no tensors.
    """
    last_line = f".\n{hint}" if hint else ""
    try:
        content = _content(url)
    except (OSError, StoreError) as error:
        raise NetworkError(f"cannot read the weights {url!r}: {_cause(error)}{last_line}") from error
    if not content:
        raise NetworkError(f"cannot read the weights {url!r}: the file is empty{last_line}")
    if isinstance(content, str) or content.startswith((_ZIP, _PICKLE)):
        return TensorFile(url, _tensors_of(_load(content, origin=url), origin=url), {})
    weights = parse_safetensors(content, origin=url)
    return TensorFile(url, {(name,): tensor for name, tensor in weights.tensors.items()}, weights.metadata)


def _content(url: str) -> bytes | str:
    """Return the bytes of a file, or the path of a local one that torch can map into memory."""
    place = parse_place(url, setting=_SETTING)
    if place.local and os.path.isfile(place.url) and _is_mappable(place.url):
        return place.url
    return read_file(url, setting=_SETTING)


def _is_mappable(path: str) -> bool:
    """Return True for an archive whose members are all stored as they are; another program may have compressed them."""
    if path.endswith(".safetensors"):
        return False  # torch.load goes by this name, whatever the content is
    with open(path, "rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return False
        try:
            return all(member.compress_type == zipfile.ZIP_STORED for member in zipfile.ZipFile(file).infolist())
        except (zipfile.BadZipFile, NotImplementedError):
            return False


def _cause(error: Exception) -> str:
    """Describe why a file cannot be read."""
    origin = error.__cause__ if isinstance(error, StoreError) else error
    if isinstance(origin, FileNotFoundError):
        return "there is no such file"
    reason = origin.strerror if isinstance(origin, OSError) else None
    return reason or first_line(error) or type(error).__name__


def _load(content: bytes | str, *, origin: str) -> Any:
    """Load a file of torch.save without running any code in it."""
    try:
        with _loading, _nothing_registered(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of files that load, or fail with an error below
            if isinstance(content, str):
                return torch.load(content, map_location="cpu", weights_only=True, mmap=True)
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        if "TorchScript" in str(error):
            raise NetworkError(
                f"{origin} must hold a dict of tensors, got a TorchScript program. Save its state_dict()."
            ) from error
        if isinstance(error, UnpicklingError):
            needed = re.search(r"GLOBAL (\S+)", str(error))
            other = "a newer pickle protocol" if "Unsupported operand" in str(error) else "other objects"
            got = needed[1] if needed else other
            raise NeedsPickleError(
                f"{origin} must hold tensors, numbers and text only, got {got}, and a pickle of those can run code"
            ) from error
        raise NetworkError(
            f"{origin} is damaged, or no checkpoint ({type(error).__name__}: {first_line(error)}). Copy it again."
        ) from error


@contextmanager
def _nothing_registered() -> Iterator[None]:
    """Empty the list of classes that torch was told to be safe, inside the context."""
    registered = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        torch.serialization.add_safe_globals(registered)


def _tensors_of(checkpoint: Any, *, origin: str) -> Saved:
    """Return the tensors of all mappings in a checkpoint.

    Keys that are not text are passed over: they belong to the state of an optimizer.
    """
    if not isinstance(checkpoint, dict):
        raise NetworkError(
            f"{origin} must hold a dict of tensors, got {type(checkpoint).__name__}. Save a state_dict()."
        )
    tensors = dict(_walk(checkpoint, (checkpoint,)))
    if not tensors:
        keys = ", ".join(repr(key) for key in list(checkpoint)[:8]) or "none"
        raise NetworkError(f"{origin} must hold a dict of tensors at any depth, got the keys {keys}")
    for names, tensor in tensors.items():
        if problem := _oddity(tensor):
            raise NetworkError(f"{origin} must hold plain tensors, got {problem}: {'.'.join(names)}. Save it dense.")
    return tensors


def _walk(mapping: Mapping[Any, Any], parents: tuple[Any, ...], *keys: str) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Yield every tensor in a mapping and those inside, with its keys. A mapping may contain itself."""
    for key, value in mapping.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            yield (*keys, key), value.detach()
        elif isinstance(key, str) and isinstance(value, dict) and not any(value is parent for parent in parents):
            yield from _walk(value, (*parents, value), *keys, key)


def _oddity(tensor: Tensor) -> str | None:
    """Return what a tensor is that does not hold its own numbers, one by one; None for a plain one."""
    if tensor.is_quantized:
        return "a quantized tensor"
    if tensor.layout is not torch.strided:
        return f"a tensor with the layout {str(tensor.layout).removeprefix('torch.')}"
    if tensor.device.type != "cpu":
        return f"a tensor without values, on the device {tensor.device.type}"
    return None if type(tensor) in (Tensor, nn.Parameter) else f"a {type(tensor).__name__}"
