"""Checkpoints of any nesting, damaged files and hostile pickles: the right weights are found and copied, or refused."""

import io
import json
import os
import pickle
import resource
import signal
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor, nn

from netsim.errors import NetsimError, NetworkError, SettingsError
from netsim.networks import (
    Network,
    Preprocessing,
    as_network,
    content_hash,
    load_network,
    load_weights,
    unpickle,
    weights_to_bytes,
)
from netsim.networks.checkpoint import FoundWeights, find_weights
from netsim.networks.weights import fill, named_tensors
from support.fuzz import files_below, inputs, mostly, new_folder, outcome


class Small(nn.Module):
    """A classifier of grey images of 6 x 6 pixels."""

    preprocessing = Preprocessing(mean=(0,), std=(1,), size=6)

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        self.fc = nn.Linear(2, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean(dim=(2, 3)))


def network(rng_seed: int = 0) -> Network:
    torch.manual_seed(rng_seed)
    return as_network(Small(), torch.linspace(0, 1, 36).reshape(1, 1, 6, 6))


def weights(rng_seed: int) -> dict[str, Tensor]:
    torch.manual_seed(rng_seed)
    return Small().state_dict()


WEIGHTS = [weights(1), weights(2)]
NAMES = list(WEIGHTS[0])

# ---- nestings


def renamed(tensors: dict[str, Tensor], change: Callable[[str], str]) -> dict[str, Tensor]:
    return {change(name): tensor for name, tensor in tensors.items()}


HARMLESS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "nothing": lambda tensors: tensors,
    "other order": lambda tensors: dict(reversed(tensors.items())),
    "OrderedDict": OrderedDict,
    "parameters": lambda tensors: {
        name: nn.Parameter(t) if t.is_floating_point() else t for name, t in tensors.items()
    },
    "no count of batches": lambda tensors: {name: t for name, t in tensors.items() if not name.endswith("tracked")},
    "wrapped layer": lambda tensors: renamed(tensors, lambda name: name.replace("features.", "features._orig_mod.")),
    "wrapped head": lambda tensors: renamed(tensors, lambda name: name.replace("fc.", "fc._orig_mod.")),
    "float64": lambda tensors: {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()},
    "strided": lambda tensors: {name: torch.stack([t, t], dim=-1)[..., 0] for name, t in tensors.items()},
}

# With none of these a set of weights is complete.
INCOMPLETE: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "one missing": lambda tensors: {name: t for name, t in tensors.items() if name != "fc.bias"},
    "one misnamed": lambda tensors: renamed(tensors, lambda name: name.replace("features.0.bias", "features.0.offset")),
    "another width": lambda tensors: tensors | {"features.0.weight": torch.ones(3, 1, 3, 3)},
    "only the head": lambda tensors: {name: t for name, t in tensors.items() if name.startswith("fc.")},
}

# With one of these it is found, and cannot be copied.
UNUSABLE: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "surplus": lambda tensors: tensors | {"features.9.weight": torch.ones(2)},
    "NaN": lambda tensors: tensors | {"fc.bias": torch.full((3,), float("nan"))},
    "more classes": lambda tensors: tensors | {"fc.weight": torch.ones(5, 2), "fc.bias": torch.ones(5)},
    "whole numbers": lambda tensors: tensors | {"fc.bias": torch.ones(3, dtype=torch.int64)},
    "complex": lambda tensors: tensors | {"fc.bias": torch.ones(3, dtype=torch.complex64)},
}

CHANGES = HARMLESS | INCOMPLETE | UNUSABLE
KEYS = ("state_dict", "model", "model_ema", "ema", "net", "module", "weights", "a.b", "teacher", "0")
PREFIXES = ("", "", "module.", "_orig_mod.", "model.", "net.backbone.", "module._orig_mod.", "ema_model.module.")
JUNK: dict[str, Any] = {
    "epoch": 3,
    "n_averaged": torch.tensor(7),
    "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    "loss": torch.tensor(0.5),
    "criterion.weight": torch.ones(3),
    "args": ["--lr", None, {"deep": {"er": torch.ones(4)}}],
    "name": "small",
    "rng": torch.arange(5, dtype=torch.uint8),
}


@dataclass(frozen=True)
class Place:
    """A set of weights in a checkpoint: its keys and prefix, which weights, and a change of them."""

    keys: tuple[str, ...]
    prefix: str
    which: int
    change: str

    def key(self) -> str:
        """Return the place as `--key` names it."""
        return ".".join((*self.keys, self.prefix)).rstrip(".")

    def kind(self) -> tuple[int, str]:
        """Return what the content is: equal kinds are equal tensors."""
        changed = self.change in ("float64", "no count of batches", *UNUSABLE)
        return self.which, self.change if changed else ""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by their names in the checkpoint."""
        return renamed(CHANGES[self.change](dict(WEIGHTS[self.which])), lambda name: f"{self.prefix}{name}")


@st.composite
def places(draw: st.DrawFn) -> list[Place]:
    """Draw places in different mappings, none of which lies in another."""
    first = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
    paths = (
        [(key, *draw(st.lists(st.sampled_from(KEYS), max_size=2))) for key in first] if draw(st.booleans()) else [()]
    )
    changes = st.sampled_from([*HARMLESS, *CHANGES])
    return [
        Place(path, draw(st.sampled_from(PREFIXES)), draw(st.sampled_from([0, 0, 1])), draw(changes)) for path in paths
    ]


def checkpoint_of(chosen: list[Place], junk: list[str]) -> dict[str, Any]:
    """Nest the weights of all places, with other things beside them."""
    content: dict[str, Any] = {name: JUNK[name] for name in junk}
    for place in chosen:
        mapping = content
        for key in place.keys:
            mapping = mapping.setdefault(key, {})
        mapping.update(place.tensors())
    return content


def saved(content: Any, *, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def read(data: bytes) -> dict[tuple[str, ...], Tensor]:
    """Read a checkpoint as the program does that `netsim convert` starts."""
    content = torch.load(io.BytesIO(data), map_location="cpu", pickle_module=unpickle, weights_only=False)
    through_a_file = safetensors.torch.load(safetensors.torch.save(unpickle.tensors_of(content)))
    return {tuple(json.loads(keys)): tensor for keys, tensor in through_a_file.items()}


@inputs(
    200,
    chosen=places(),
    junk=st.lists(st.sampled_from(sorted(JUNK)), max_size=3, unique=True),
    by_key=st.sampled_from([None, None, 0, 1, 2, 3]),
    zipped=st.booleans(),
)
def test_weights_are_found_and_copied_or_refused(
    chosen: list[Place], junk: list[str], by_key: int | None, zipped: bool
) -> None:
    content = checkpoint_of(chosen, junk)
    key = chosen[by_key].key() if by_key is not None and by_key < len(chosen) else ""
    assume(chosen or any(isinstance(JUNK[name], Tensor) for name in junk))
    tensors, target = read(saved(content, zipped=zipped)), network()
    found = outcome(lambda: find_weights(tensors, target, key=key or None, origin="x.pt"), "x.pt")
    complete = [place for place in chosen if place.change not in INCOMPLETE if not key or place.key() == key]
    if len({place.kind() for place in complete}) > 1:
        assert isinstance(found, SettingsError) and all(repr(place.key()) in str(found) for place in complete)
        return
    assert isinstance(found, FoundWeights)
    copied = outcome(lambda: fill(target, found.tensors, origin="x.pt"), "x.pt")
    mixed = complete and not complete[0].key() and any(isinstance(JUNK[name], Tensor) for name in junk)
    if not complete or complete[0].change in UNUSABLE or mixed:
        assert isinstance(copied, NetworkError)
        assert content_hash(target) == content_hash(network())
    else:
        assert copied is None and found.key in [place.key() for place in complete]
        for name, tensor in named_tensors(target).items():
            assert torch.equal(tensor, WEIGHTS[complete[0].which][name])


# ---- files that are damaged or hostile


class Runs:
    """Unpickled, it calls a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, Any]:
        return self.call


def in_child(call: Callable[[], None], *, seconds: int = 30, gigabytes: int = 4) -> tuple[int, str]:
    """Call a function in a process of its own, as `netsim convert` does; return its exit code and its error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + gigabytes * 2**30,) * 2)
            signal.alarm(seconds)
            warnings.simplefilter("ignore")
            call()
            status = 0
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode(errors="replace")[:2000])
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


TRAPS = (
    os.system,
    os.mkdir,
    os.open,
    eval,
    exec,
    open,
    io.open,
    pickle.loads,
    torch.load,
    os.putenv,
    sys.exit,
    print,
    Path,
)
PLACES = ("state", "epoch", "key", "tensor", "argument")


@inputs(
    60,
    trap=st.sampled_from(TRAPS),
    place=st.sampled_from(PLACES),
    protocol=st.sampled_from(range(1, 6)),
    zipped=st.booleans(),
    flips=st.lists(st.tuples(st.sampled_from(range(1000)), st.sampled_from([1, 2, 8, 64, 128, 255])), max_size=3),
    cut=st.sampled_from([1000] * 4 + list(range(1000))),
)
def test_a_pickle_runs_nothing_and_is_read_or_refused(
    trap: Any, place: str, protocol: int, zipped: bool, flips: list[tuple[int, int]], cut: int
) -> None:
    with new_folder() as folder:
        (folder / "evidence").mkdir()
        hostile = Runs(trap, f"{folder}/evidence/trace")
        content: Any = {
            "state": {"state_dict": WEIGHTS[0], "epoch": hostile},
            "epoch": WEIGHTS[0] | {"epoch": hostile},
            "key": WEIGHTS[0] | {hostile: 1},
            "tensor": {"a": [hostile, {"b": WEIGHTS[0]}]},
            "argument": {"a": Runs(OrderedDict, hostile), "w": WEIGHTS[0]},
        }[place]
        buffer = io.BytesIO()
        torch.save(content, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        data = bytearray(buffer.getvalue())
        for position, mask in flips:
            data[position * (len(data) - 1) // 999] ^= mask
        (folder / "x.pt").write_bytes(data[: len(data) * cut // 1000])
        code, error = in_child(lambda: unpickle.main(str(folder / "x.pt"), str(folder / "out")))
        assert list((folder / "evidence").iterdir()) == [] and set(files_below(folder)) <= {"x.pt", "out"}
        assert code != -signal.SIGALRM, "it hangs"
        if not flips and cut == 1000 and place not in ("tensor", "argument"):
            assert code == 0, error
            names = {json.loads(keys)[-1] for keys in safetensors.torch.load_file(folder / "out")}
            assert names == set(NAMES)


@inputs(
    150,
    flips=st.lists(st.tuples(st.sampled_from(range(1000)), st.sampled_from([1, 2, 8, 64, 128])), max_size=2),
    cut=st.sampled_from([1000] * 4 + list(range(1000))),
    in_header=st.booleans(),
)
def test_a_damaged_file_of_weights_is_refused_or_has_all_tensors(
    flips: list[tuple[int, int]], cut: int, in_header: bool
) -> None:
    whole = weights_to_bytes(network(), {"mean": [0.1], "std": [0.2]})
    data, length = bytearray(whole), 8 + int.from_bytes(whole[:8], "little") if in_header else len(whole)
    for position, mask in flips:
        data[position * (length - 1) // 999] ^= mask
    target = network(5)
    before = content_hash(target)
    loaded = outcome(
        lambda: load_weights(target, bytes(data[: len(data) * cut // 1000]), origin="w.safetensors"), "w.safetensors"
    )
    if isinstance(loaded, NetsimError):
        assert isinstance(loaded, NetworkError) and content_hash(target) == before
    elif not flips and cut == 1000:
        assert content_hash(target) == content_hash(network())
    assert all(torch.isfinite(tensor).all() for tensor in named_tensors(target).values())


_numbers = st.one_of(
    st.sampled_from([0, 1, 0.5, -1, 1e308, 1e-320, 10**400, float("nan"), float("inf"), True, None, "1"])
)
_values = st.one_of(st.lists(_numbers, max_size=3), _numbers, st.sampled_from([{}, [[0.5]], "0.5", [[]], {"a": 1}]))


_usual = st.lists(st.sampled_from([0.1, 0.5, 0.75, 1]), min_size=1, max_size=1)


@inputs(
    100,
    mean=mostly(_usual, _values, times=2),
    std=mostly(_usual, _values, times=2),
    beside=st.sampled_from(["", "reference", "sha256", "key"]),
    value=_values,
)
def test_metadata_of_weights_are_a_normalisation_or_refused(mean: Any, std: Any, beside: str, value: Any) -> None:
    with new_folder() as folder:
        path = folder / "w.safetensors"
        path.write_bytes(weights_to_bytes(network(), {"mean": mean, "std": std, beside: value}))
        loaded = outcome(
            lambda: load_network(f"python:integration.fuzz.test_fuzz_checkpoints:Small@{path}"),
            str(path),
            "mean",
            "std",
            "Small",
            "small",
        )
        good = all(
            isinstance(values, list) and len(values) == 1 and isinstance(values[0], int | float)
            for values in (mean, std)
        )
        if isinstance(loaded, Network):
            assert good
            assert loaded.mean.flatten().tolist() == torch.tensor(mean, dtype=torch.float32).tolist()
            assert loaded.std.flatten().tolist() == torch.tensor(std, dtype=torch.float32).tolist()
        else:
            assert not (good and 0 <= mean[0] <= 1 and 0.5 <= std[0] <= 1), loaded
