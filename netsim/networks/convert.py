"""One-time conversion of checkpoints to safetensors, so that nothing else ever reads a pickle.

What holds nothing but tensors, numbers and text can be named in a sweep as it is (`netsim.networks.tensor_files`), and
is converted without ado. Anything else is a pickle that the user must allow.

robustness, and so Salman et al., save the state dict of an AttackerModel in DataParallel. Every name begins with
`module.`; the network is under `model.` and again under `attacker.model.`, each one `model.` deeper if it was a network
of torchvision in a DummyModel; `normalizer.` has the mean and std. `netsim.networks.checkpoint` finds the weights in
these and in all other checkpoints.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from netsim.errors import NetworkError, SettingsError, first_line
from netsim.networks.checkpoint import find_weights
from netsim.networks.load import build_network, parse_reference, untrained
from netsim.networks.network import Network
from netsim.networks.sources import robust_imagenet
from netsim.networks.sources.base import Reference
from netsim.networks.tensor_files import NeedsPickleError, Saved, TensorFile, read_tensors
from netsim.networks.weights import listed, weights_to_bytes
from netsim.storage.files import Files
from netsim.storage.places import parse_place

READER = Path(__file__).parent / "unpickle.py"

# Environment variables that the process which reads a pickle inherits. All others may hold credentials.
INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Converted:
    """Result of a conversion.

    Attributes
    ----------
    path
        Path of the safetensors file.
    reference
        Reference that loads it.
    sha256
        Hash of the checkpoint, in hex.
    key
        Place of the weights in the checkpoint, such as "state_dict_ema"; "" if it is itself their mapping.
    ignored
        Names of tensors beside the weights that are not the network's, such as those of a loss.
    """

    path: str
    reference: str
    sha256: str
    key: str
    ignored: tuple[str, ...]


def convert(
    reference: str,
    checkpoint: str | None = None,
    *,
    output: str | None = None,
    key: str | None = None,
    strip_prefix: str | None = None,
    sha256: str | None = None,
    allow_pickle: bool = False,
) -> Converted:
    """Convert a checkpoint of a network to safetensors.

    Weights are found in it by the names and shapes of the network's tensors. A checkpoint with more than tensors,
    numbers and text is a pickle: it is read in a separate process, which executes nothing in it, and only if
    `allow_pickle` is set and its hash is `sha256`.

    Parameters
    ----------
    reference
        The network, source:name, without weights.
    checkpoint
        Path of the checkpoint. Without one, that of a `robust:` network is downloaded.
    output
        Path of the new file. Default: the folder of weights for a `robust:` network, else beside the checkpoint.
    key
        Place of the weights in the checkpoint, keys and prefixes joined by dots. Required if several sets match the
        network and differ: "state_dict_ema" or "state_dict" of a checkpoint of timm.
    strip_prefix
        Text to remove from the beginning of the names of tensors, such as "backbone_"; tensors of other names are not
        converted. Prefixes that end with a dot are found without it.
    sha256
        Expected hash of the checkpoint, in hex. Required of a pickle.
    allow_pickle
        Allow reading a pickle.

    Raises
    ------
    SettingsError
        If `output` exists, no name begins with `strip_prefix`, the reference names weights or nothing that exists, or
        several sets of weights differ and `key` does not choose one.
    NetworkError
        If the checkpoint cannot be downloaded or read, has another hash, or does not match the network.
    NeedsPickleError
        If the pickle is not allowed.
    """
    parsed, template = _template(reference)
    output = output or _output(parsed, checkpoint)
    parent, name = parse_place(output, setting="--output").split()
    folder = Files(parent, setting="--output")
    if name in folder.names():
        raise SettingsError(f"{output} exists already. Remove it, or name another file with --output.")
    checkpoint = checkpoint or _download(parsed)
    checkpoint_hash = _sha256(checkpoint)
    if sha256 is not None and sha256.lower() != checkpoint_hash:
        raise NetworkError(
            f"{checkpoint} must have the sha256 {sha256}, got {checkpoint_hash}. It is another file, or corrupted: "
            "download it again."
        )
    saved = _read(checkpoint, checkpoint_hash, allowed=allow_pickle and sha256 is not None)
    saved = saved if strip_prefix is None else _without_prefix(saved, strip_prefix, checkpoint)
    weights = find_weights(saved, template, key=key, origin=checkpoint)
    metadata: dict[str, Any] = {
        "reference": reference,
        "checkpoint": os.path.basename(checkpoint),
        "sha256": checkpoint_hash,
        "key": weights.key,
        **weights.normalisation,
    }
    network = build_network(parsed, reference, TensorFile(checkpoint, saved, metadata), chosen=weights)
    _check_normalisation(parsed, network, template, checkpoint)
    folder.put(name, weights_to_bytes(network, metadata))
    new_reference = (
        reference if parsed.source == "robust" and output == parsed.file else f"{_bare(parsed, reference)}@{output}"
    )
    return Converted(output, new_reference, checkpoint_hash, weights.key, weights.ignored)


def _template(reference: str) -> tuple[Reference, Network]:
    """Build the architecture with random weights."""
    if "@" in reference:
        bare = reference.partition("@")[0]
        raise SettingsError(f"convert requires a network without weights, got {reference}. Write {bare}.")
    parsed = parse_reference(reference if reference.startswith("robust:") else untrained(reference))
    parsed = replace(parsed, weights="none")
    return parsed, build_network(parsed, reference, None)


def _bare(parsed: Reference, reference: str) -> str:
    """Return the reference, without weights, to which a file elsewhere can be added with an @."""
    if parsed.source == "robust":
        return f"torchvision:{robust_imagenet.ARCHITECTURES[robust_imagenet.NAMES[parsed.name]]}"
    return reference


def _output(parsed: Reference, checkpoint: str | None) -> str:
    if parsed.source == "robust":
        assert parsed.file is not None
        return parsed.file
    if checkpoint is None:
        raise SettingsError(
            f"{parsed.source}:{parsed.name} requires a checkpoint: only those of robust: networks are downloaded. "
            "Name its file after the reference."
        )
    return f"{os.path.splitext(checkpoint)[0]}.safetensors"


def _download(parsed: Reference) -> str:
    """Download into torch's cache; a download that fails leaves nothing behind."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    name = f"{parsed.name}.ckpt"
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(robust_imagenet.HUB + name, str(folder / name), progress=sys.stderr.isatty())
        except OSError as error:
            raise NetworkError(
                f"cannot download {robust_imagenet.HUB}{name} ({first_line(error)}).\n"
                f"Download it on a machine with internet access, then run: netsim convert robust:{parsed.name} {name}"
            ) from error
    return str(folder / name)


def _sha256(checkpoint: str) -> str:
    try:
        with open(checkpoint, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NetworkError(f"cannot read the checkpoint {checkpoint!r}: {first_line(error)}") from error


def _read(checkpoint: str, sha256: str, *, allowed: bool) -> Saved:
    """Read the tensors of a checkpoint; of one that needs pickle, only if that is allowed."""
    try:
        return read_tensors(checkpoint).tensors
    except NeedsPickleError as error:
        if allowed:
            return _unpickle(checkpoint)
        raise NeedsPickleError(
            f"{error}. Its sha256 is {sha256}; if you wrote it, or its publisher states the same hash, allow it: "
            f"--allow-pickle --sha256 {sha256}"
        ) from error


def _without_prefix(saved: Saved, prefix: str, origin: str) -> Saved:
    """Select the tensors whose names begin with a prefix, and remove it."""
    selected = {
        (*keys[:-1], keys[-1].removeprefix(prefix)): tensor
        for keys, tensor in saved.items()
        if keys[-1].startswith(prefix)
    }
    if not selected:
        names = listed(sorted({keys[-1] for keys in saved}))
        raise SettingsError(f"--strip-prefix must begin names in {origin}, got {prefix!r}; names are {names}")
    return selected


def _unpickle(checkpoint: str) -> Saved:
    """Read it in a process that has no access to our environment, working directory or modules."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "tensors.safetensors")
        command = [sys.executable, "-I", str(READER), os.path.abspath(checkpoint), out]
        process = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        if process.returncode != 0:
            cause = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise NetworkError(f"cannot read the checkpoint {checkpoint!r} ({cause})")
        return {tuple(json.loads(keys)): tensor for (keys,), tensor in read_tensors(out).tensors.items()}


def _check_normalisation(parsed: Reference, network: Network, template: Network, origin: str) -> None:
    if parsed.source == "robust" and not torch.allclose(network.mean, template.mean) & torch.allclose(
        network.std, template.std
    ):
        raise NetworkError(
            f"mean and std of {parsed.source}:{parsed.name} must be {template.preprocessing.mean} and "
            f"{template.preprocessing.std}, got {network.preprocessing.mean} and {network.preprocessing.std} "
            f"in {origin}"
        )
