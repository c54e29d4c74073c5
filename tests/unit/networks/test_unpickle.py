"""The program that reads a pickle: it finds tensors, and runs nothing."""

import collections
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from netsim.networks import unpickle


def program(checkpoint: Path, out: Path) -> subprocess.CompletedProcess:
    """Run it as `netsim convert` does."""
    command = [sys.executable, "-I", unpickle.__file__, str(checkpoint), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Command:
    """Unpickled, it runs a command of the shell."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_the_tensors_of_every_mapping_come_out_as_they_went_in(tmp_path):
    tensors = collections.OrderedDict(
        weight=torch.rand(3, 4).T,
        half=torch.rand(5).half(),
        count=torch.tensor(7),
        scale=torch.nn.Parameter(torch.ones(2)),
    )
    states = {0: {"exp_avg": torch.ones(2)}}
    content = {"epoch": 3, "schedule": Command(f"touch {tmp_path}/trace"), "optimizer": {"state": states}}
    torch.save(content | tensors | {"a.b": tensors, "c": {"d": tensors}}, tmp_path / "x.pt")
    done = program(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert (done.returncode, done.stderr) == (0, "")
    read = safetensors.torch.load_file(tmp_path / "x.safetensors")
    expected = {(*keys, name): tensor for keys in ((), ("a.b",), ("c", "d")) for name, tensor in tensors.items()}
    assert {tuple(json.loads(keys)) for keys in read} == set(expected)
    for keys, tensor in expected.items():
        copy = read[json.dumps(keys)]
        assert copy.dtype == tensor.dtype and torch.equal(copy, tensor)
    assert not (tmp_path / "trace").exists()


def test_a_file_that_is_no_checkpoint_is_one_line_on_stderr(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"not a pickle")
    done = program(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("UnpicklingError: ") and not (tmp_path / "x.safetensors").exists()


def test_what_a_pickle_looks_up_is_inert_unless_it_rebuilds_tensors(tmp_path):
    assert unpickle.load(io.BytesIO(pickle.dumps(collections.OrderedDict(a=1)))) == {"a": 1}
    assert unpickle.load(io.BytesIO(pickle.dumps(torch.Size([2, 3])))) == torch.Size([2, 3])
    content = [Command(f"touch {tmp_path}/trace"), os.getcwd, {Command: 1}]
    assert unpickle.load(io.BytesIO(pickle.dumps(content))) == [unpickle.Inert, unpickle.Inert, {unpickle.Inert: 1}]
    assert not (tmp_path / "trace").exists()


def test_nothing_done_to_the_inert_class_does_anything():
    inert = unpickle.Inert
    inert.append(1)
    inert.extend([1])
    inert.add(1)
    inert.update({})
    inert["key"] = 1
    inert.__setstate__({})
    assert inert(1, key=2) is inert and inert.__new__(inert) is inert


def test_a_mapping_that_contains_itself_is_read_once():
    loop = {"a": torch.ones(1)}
    loop["again"] = {"loop": loop}
    assert list(unpickle.tensors_of(loop)) == ['["a"]']


@pytest.mark.parametrize("checkpoint", [torch.nn.Linear(2, 2), {}, {"model": {"a": 1}}, {"model": {3: torch.ones(1)}}])
def test_a_checkpoint_without_named_tensors_is_refused(checkpoint):
    with pytest.raises(ValueError, match="it must hold a dict of tensors"):
        unpickle.tensors_of(checkpoint)
