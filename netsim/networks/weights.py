"""Weights as safetensors, with the tensor names of the original architecture, and their content hash."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import safetensors.torch
import torch
from blake3 import blake3
from safetensors import SafetensorError
from torch import Tensor, nn

from netsim.errors import NetworkError, first_line
from netsim.networks.network import Network

# Last part of the name of BatchNorm's count of batches. It changes no output, and exists only since torch 0.4.1.
BATCH_COUNT = "num_batches_tracked"

# The entry in a file's header that `netsim convert` writes.
METADATA_KEY = "netsim"


class Weights(NamedTuple):
    """Weights of a network, as a file has them.

    Attributes
    ----------
    name
        Path or URL of the file, for error messages.
    tensors
        Tensors by their names in the architecture.
    metadata
        What `netsim convert` recorded in the file: reference, checkpoint, sha256, mean, std. Empty for other files.
    """

    name: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]


def weight_bytes(module: nn.Module) -> int:
    """Count the bytes of all tensors in the state dict."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def content_hash(module: nn.Module) -> str:
    """Compute the BLAKE3 hash, in hex, of name, dtype, shape and bytes of every tensor in the state dict.

    Two networks that differ in one bit have different hashes; the memory format does not matter.
    """
    return hash_tensors(module.state_dict())


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Compute the BLAKE3 hash, in hex, of name, dtype, shape and bytes of every tensor."""
    digest = blake3()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_to_bytes(network: Network, metadata: Mapping[str, Any] | None = None) -> bytes:
    """Serialize as safetensors with the tensor names of the original architecture, so that its class can read it too.

    `metadata`, of values that JSON knows, goes into the header of the file.
    """
    tensors = named_tensors(network)
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        None if metadata is None else {METADATA_KEY: json.dumps(metadata)},
    )


def load_weights(network: Network, data: bytes, *, origin: str = "the weights") -> None:
    """Copy the weights in a safetensors file into `network`.

    Parameters
    ----------
    data
        Content of the file.
    origin
        Where `data` comes from, for error messages.

    Raises
    ------
    NetworkError
        For anything but safetensors (a pickle can run code), and for tensors that are missing, surplus, of another
        shape, or not finite; the first three of each kind are named. `network` is then unchanged.
    """
    fill(network, parse_safetensors(data, origin=origin).tensors, origin=origin)


def parse_safetensors(data: bytes, *, origin: str) -> Weights:
    """Read the content of a safetensors file. Raises NetworkError for anything else."""
    try:
        return Weights(origin, safetensors.torch.load(data), _metadata(data))
    except SafetensorError as error:
        if len(data) < 8 or data[8:9] == b"{":
            raise NetworkError(f"{origin} is damaged ({first_line(error)}). Copy or convert it again.") from error
        raise NetworkError(
            f"{origin} must be a safetensors file ({first_line(error)}), because a pickle can run code. "
            "Convert a checkpoint with `netsim convert`."
        ) from error


def _metadata(data: bytes) -> dict[str, Any]:
    """Read the metadata in the header, which is JSON after its length (8 bytes, little-endian)."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    try:
        metadata = json.loads(header.get("__metadata__", {}).get(METADATA_KEY, "{}"))
    except ValueError:
        metadata = None
    return metadata if isinstance(metadata, dict) else {}  # written by another program


def class_count(tensors: Mapping[str, Tensor], network: Network) -> int:
    """Count the classes in the last layer of `tensors`, or in that of `network` if `tensors` lack it."""
    weight = tensors.get(f"{network.head_paths[0]}.weight")
    return network.num_classes if weight is None or weight.ndim != 2 else len(weight)


def fill(network: Network, tensors: Mapping[str, Tensor], *, origin: str, hint: str = "") -> None:
    """Copy `tensors` into `network`, as `load_weights` does. `hint` ends an error message.

    Raises
    ------
    NetworkError
        For tensors that are missing, surplus, of another shape, or not finite. `network` is then unchanged.
    """
    expected = named_tensors(network)
    mismatches = _mismatches(expected, tensors)
    if mismatches:
        raise NetworkError(f"{origin} must have the tensors of {network.reference}, got {'; '.join(mismatches)}{hint}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            expected[name].copy_(tensor)


def named_tensors(network: Network) -> dict[str, Tensor]:
    """Return the tensors themselves, not copies, by their names in the original architecture."""
    tensors = dict(network.body.state_dict(keep_vars=True))
    for path in network.head_paths:
        tensors |= {f"{path}.{name}": tensor for name, tensor in network.head.state_dict(keep_vars=True).items()}
    return tensors


def _mismatches(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Describe every kind of mismatch in `tensors`."""
    common = sorted(expected.keys() & tensors.keys())
    shapes = {name: f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()}
    odd = [name for name in common if not (name.endswith(BATCH_COUNT) or _same_kind(tensors[name], expected[name]))]
    names_by_kind = {
        "missing": [name for name in expected.keys() - tensors.keys() if not name.endswith(BATCH_COUNT)],
        "surplus": [shapes[name] for name in tensors.keys() - expected.keys()],
        "misshapen": [
            f"{shapes[name]} instead of {tuple(expected[name].shape)}"
            for name in common
            if tensors[name].shape != expected[name].shape
        ],
        "of another kind": [f"{name} ({tensors[name].dtype} instead of {expected[name].dtype})" for name in odd],
        "not finite": [
            name
            for name in common
            if name not in odd and not torch.isfinite(tensors[name].to(expected[name].dtype)).all()
        ],
    }
    return [f"{kind} {listed(sorted(names))}" for kind, names in names_by_kind.items() if names]


def _same_kind(a: Tensor, b: Tensor) -> bool:
    """Return True if both are real, both complex, or both whole numbers: quantized weights lack their scale."""
    return (a.is_floating_point(), a.is_complex()) == (b.is_floating_point(), b.is_complex())


def listed(names: Sequence[str], *, most: int = 3) -> str:
    """List names for an error message, and count those above `most`."""
    unlisted = len(names) - most
    return ", ".join(names[:most]) + (f" and {unlisted} more" if unlisted > 0 else "")


@contextmanager
def no_code_in_pickles() -> Iterator[None]:
    """Forbid, inside the context, that torch.load runs code in a pickle.

    Published weights are pickles, and torch.hub unpickles without restriction unless this variable is set.
    """
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        os.environ.pop(key)
        if before is not None:
            os.environ[key] = before
