"""Pickled checkpoints -> safetensors, once, so that nothing else ever reads a pickle.

What robustness (and so Salman et al.) saves is the state dict of an AttackerModel in DataParallel. Every name begins
with `module.`; the network is there as `model.` and again as `attacker.model.`, each one `model.` deeper where it was
torchvision's in a DummyModel; `normalizer.` has the mean and std. Plain state dicts of an architecture are taken too.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from netsim.errors import NetworkError, SettingsError
from netsim.networks.load import assembled, parse_reference, untrained
from netsim.networks.network import Network, first_line
from netsim.networks.sources import robust_imagenet
from netsim.networks.sources.base import Reference
from netsim.networks.weights import Weights, named_tensors, read_weights, weights_to_bytes
from netsim.storage.files import Files

READER = Path(__file__).parent / "unpickle.py"
NEEDED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "OMP_NUM_THREADS")
"""All that the process which reads a pickle learns of our environment, where there may be keys."""

MODULE, MODEL, NORMALIZER, ATTACKER = "module.", "model.", "normalizer.", "attacker."


@dataclass(frozen=True)
class Converted:
    """Where the safetensors are, and the reference that names them."""

    path: str
    reference: str
    sha256: str  # of the checkpoint


def convert(
    reference: str,
    checkpoint: str | None = None,
    *,
    output: str | None = None,
    sha256: str | None = None,
    allow_pickle: bool = False,
) -> Converted:
    """Make safetensors of a checkpoint of the network that `reference` (source:name) names.

    Without a `checkpoint`, that of a `robust:` network is downloaded. `output`: by default the folder of weights for
    `robust:` networks, else beside the checkpoint. The checkpoint is read by a process of its own, which runs nothing
    that is in it, if `allow_pickle` is said and its hash is `sha256`.

    Raises SettingsError for what was not allowed or is there already, NetworkError for a checkpoint that cannot be had,
    is not the one expected, or does not fit.
    """
    parsed, template = _template(reference)
    output = output or _output(parsed, checkpoint)
    folder, name = Files(os.path.dirname(output) or "."), os.path.basename(output)
    if name in folder.names():
        raise SettingsError(f"{output} is there already: remove it, or name another with --output")
    checkpoint = checkpoint or _download(parsed)
    found = _sha256(checkpoint)
    _check_allowed(checkpoint, found, sha256, allow_pickle)

    tensors = _read(checkpoint)
    facts = {"reference": reference, "checkpoint": os.path.basename(checkpoint), "sha256": found}
    given, normalised = unwrapped(tensors, set(named_tensors(template)), origin=checkpoint)
    network = assembled(parsed, reference, Weights(checkpoint, given, facts | normalised))
    _check_normalisation(parsed, network, template, checkpoint)
    folder.put(name, weights_to_bytes(network, facts | normalised))
    named = reference if parsed.source == "robust" and output == parsed.file else f"{_with_file(parsed)}@{output}"
    return Converted(output, named, found)


def _template(reference: str) -> tuple[Reference, Network]:
    """The architecture, with random weights."""
    if "@" in reference:
        bare = reference.partition("@")[0]
        raise SettingsError(f"{reference} names weights already; convert takes the network alone, {bare}")
    parsed = parse_reference(reference if reference.startswith("robust:") else untrained(reference))
    parsed = Reference(parsed.source, parsed.name, "none", parsed.file)
    return parsed, assembled(parsed, reference, None)


def _with_file(parsed: Reference) -> str:
    if parsed.source == "robust":
        return f"torchvision:{robust_imagenet.ARCHITECTURES[robust_imagenet.NAMES[parsed.name]]}"
    return f"{parsed.source}:{parsed.name}"


def _output(parsed: Reference, checkpoint: str | None) -> str:
    if parsed.source == "robust":
        assert parsed.file is not None
        return parsed.file
    if checkpoint is None:
        raise SettingsError(
            f"name the checkpoint of {parsed.source}:{parsed.name} too; only those of robust: networks are downloaded"
        )
    return f"{os.path.splitext(checkpoint)[0]}.safetensors"


def _download(parsed: Reference) -> str:
    """Into torch's cache; a download that breaks off leaves nothing."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    name = f"{parsed.name}.ckpt"
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(robust_imagenet.HUB + name, str(folder / name), progress=sys.stderr.isatty())
        except OSError as error:
            raise NetworkError(
                f"cannot download {robust_imagenet.HUB}{name} ({first_line(error)}).\n"
                f"Fetch it where there is a network, and give the file: netsim convert robust:{parsed.name} {name}"
            ) from error
    return str(folder / name)


def _sha256(checkpoint: str) -> str:
    try:
        with open(checkpoint, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NetworkError(f"cannot read the checkpoint {checkpoint!r}: {first_line(error)}") from error


def _check_allowed(checkpoint: str, found: str, expected: str | None, allow_pickle: bool) -> None:
    if expected is not None and expected.lower() != found:
        raise NetworkError(f"{checkpoint} has the sha256 {found}, not {expected}: it is another file, or damaged")
    if expected is None or not allow_pickle:
        raise SettingsError(
            f"{checkpoint} is a pickle, with the sha256 {found}. If that is what its publisher says, "
            f"allow it: --allow-pickle --sha256 {found}"
        )


def _read(checkpoint: str) -> Mapping[str, Tensor]:
    """By a process that knows nothing of us: not our environment, not our folder, not our modules."""
    environment = {name: os.environ[name] for name in NEEDED if name in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "tensors.safetensors")
        command = [sys.executable, "-I", str(READER), os.path.abspath(checkpoint), out]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            fault = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise NetworkError(f"cannot read the checkpoint {checkpoint!r} ({fault})")
        return read_weights(out).tensors


def unwrapped(
    tensors: Mapping[str, Tensor], wanted: set[str], *, origin: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of the network itself, by its own names, and the mean and std that were saved with it, if any.

    `wanted` are those names: a network may have a part that is called `model` itself.
    """
    found = _without_prefix(tensors, MODULE)
    facts: dict[str, Any] = {}
    if any(name.startswith((NORMALIZER, ATTACKER)) for name in found):
        facts = {
            kind: found[f"{NORMALIZER}new_{kind}"].double().flatten().tolist()
            for kind in ("mean", "std")
            if f"{NORMALIZER}new_{kind}" in found
        }
        _check_copies(found, origin)
        found = {name: tensor for name, tensor in found.items() if not name.startswith((NORMALIZER, ATTACKER))}
        found = _without_prefix(found, MODEL)
    if not found.keys() & wanted:
        found = _without_prefix(found, MODEL)
    return found, facts


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """If all have it."""
    every = all(name.startswith(prefix) for name in tensors)
    return {name.removeprefix(prefix) if every else name: tensor for name, tensor in tensors.items()}


def _check_copies(found: Mapping[str, Tensor], origin: str) -> None:
    """An AttackerModel saves its network twice; where the two differ, nobody can say which was meant."""
    copies = {name: found.get(name.removeprefix(ATTACKER)) for name in found if name.startswith(ATTACKER + MODEL)}
    for name, other in copies.items():
        if other is not None and not torch.equal(other, found[name]):
            raise NetworkError(f"{origin} holds two networks: {name} is not {name.removeprefix(ATTACKER)}")


def _check_normalisation(parsed: Reference, network: Network, template: Network, origin: str) -> None:
    if parsed.source == "robust" and not torch.allclose(network.mean, template.mean) & torch.allclose(
        network.std, template.std
    ):
        raise NetworkError(
            f"{origin} normalises by {network.preprocessing.mean} and {network.preprocessing.std}, "
            f"{parsed.source}:{parsed.name} by {template.preprocessing.mean} and {template.preprocessing.std}"
        )
