"""Weights as bytes: safetensors, by the names that tensors have in the original architecture, and content hashes."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import fsspec
import safetensors.torch
import torch
from blake3 import blake3
from safetensors import SafetensorError
from torch import Tensor, nn

from netsim.errors import NetworkError
from netsim.networks.network import Network, first_line

NAMED_TENSORS = 3  # of those that do not fit, in an error message
FACTS = "netsim"  # the entry in a file's header that `netsim convert` writes


class Weights(NamedTuple):
    """What a safetensors file holds: tensors by name, and what `netsim convert` knew of them."""

    name: str
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def content_hash(module: nn.Module) -> str:
    """BLAKE3 hex over name, dtype, shape and bytes of every tensor in the state dict: one bit makes another network."""
    digest = blake3()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_to_bytes(network: Network, facts: Mapping[str, Any] | None = None) -> bytes:
    """A safetensors file in the tensor names of the original architecture, so that its own class can read it too."""
    tensors = named_tensors(network)
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        None if facts is None else {FACTS: json.dumps(facts)},
    )


def load_weights(network: Network, data: bytes, *, origin: str = "the weights") -> None:
    """Fill `network` from a safetensors file. `origin` says in messages where `data` is from.

    Raises NetworkError for anything but safetensors (a pickle can run code), for tensors that are missing, surplus, of
    another shape (the first three are named), or not finite. Nothing is changed then.
    """
    fill(network, _parse(data, origin=origin).tensors, origin=origin)


def read_weights(url: str, *, advice: str = "") -> Weights:
    """Of a path or any fsspec URL. `advice` ends the message where there is no such file."""
    try:
        with fsspec.open(url, "rb") as file:
            data = file.read()
    except (OSError, ValueError, ImportError) as error:
        way_out = f".\n{advice}" if advice else ""
        raise NetworkError(f"cannot read the weights {url!r}: {first_line(error)}{way_out}") from error
    return _parse(data, origin=url)


def _parse(data: bytes, *, origin: str) -> Weights:
    try:
        return Weights(origin, safetensors.torch.load(data), _facts(data))
    except SafetensorError as error:
        raise NetworkError(
            f"{origin} is no safetensors file ({first_line(error)}); netsim reads nothing else, "
            "because a pickle can run code: `netsim convert` makes safetensors of a checkpoint"
        ) from error


def _facts(data: bytes) -> dict[str, Any]:
    """The header is JSON behind its length (8 bytes, little-endian)."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    try:
        found = json.loads(header.get("__metadata__", {}).get(FACTS, "{}"))
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}  # somebody else's entry


def class_count(tensors: Mapping[str, Tensor], network: Network) -> int:
    """How many classes a file's last layer tells apart; the network's own number where that layer is not in it."""
    weight = tensors.get(f"{network.head_paths[0]}.weight")
    return network.num_classes if weight is None or weight.ndim != 2 else len(weight)


def fill(network: Network, given: Mapping[str, Tensor], *, origin: str) -> None:
    wanted = named_tensors(network)
    faults = _misfits(wanted, given)
    if faults:
        raise NetworkError(f"{origin} does not fit {network.reference}: {'; '.join(faults)}")
    with torch.no_grad():
        for name, tensor in given.items():
            wanted[name].copy_(tensor)


def named_tensors(network: Network) -> dict[str, Tensor]:
    """The live tensors by the names they have in the original architecture."""
    tensors = dict(network.body.state_dict(keep_vars=True))
    for path in network.head_paths:
        prefix = f"{path}." if path else ""
        tensors |= {prefix + name: tensor for name, tensor in network.head.state_dict(keep_vars=True).items()}
    return tensors


def _misfits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    both = sorted(wanted.keys() & given.keys())
    faults = {
        # BatchNorm counts its batches only since torch 0.4.1, and the count changes no output
        "missing": [name for name in wanted.keys() - given.keys() if not name.endswith("num_batches_tracked")],
        "surplus": list(given.keys() - wanted.keys()),
        "misshapen": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in both
            if given[name].shape != wanted[name].shape
        ],
        "not finite": [name for name in both if not torch.isfinite(given[name].to(wanted[name].dtype)).all()],
    }
    return [f"{fault} {_some(names)}" for fault, names in faults.items() if names]


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_TENSORS
    return ", ".join(sorted(names)[:NAMED_TENSORS]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def no_code_in_pickles() -> Iterator[None]:
    """Published weights are pickles, and torch.hub unpickles without restriction unless this variable is set."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        os.environ.pop(key)
        if before is not None:
            os.environ[key] = before
