"""Files of tensors: what can be read without running code, from a disk and from object storage, and what is refused."""

import argparse
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from netsim.errors import NetworkError
from netsim.networks import load_network, weights_to_bytes
from netsim.networks.tensor_files import NeedsPickleError, read_tensors
from netsim.networks.weights import named_tensors
from support.seaweed import BUCKET

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, 2.0])}


class Intruder:
    """Unpickled, it creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self):
        return open, (self.trace, "w")


# ---- what is read


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.ckpt", "x.safetensors", "x"])
def test_what_torch_saves_is_read_whatever_it_is_called(tmp_path, name, zipped):
    content = {"epoch": 3, "lr": 0.1, "note": "best", "args": {"width": [1, 2], "seed": None}, "state_dict": WEIGHTS}
    optimizer = {"state": {0: {"exp_avg": torch.ones(1)}}, "param_groups": [{"params": [0]}]}
    torch.save(content | {"optimizer": optimizer}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    read = read_tensors(f"{tmp_path}/{name}")
    assert read.tensors.keys() == {("state_dict", "fc.weight"), ("state_dict", "fc.bias")} and read.metadata == {}
    assert all(torch.equal(tensor, WEIGHTS[keys[-1]]) for keys, tensor in read.tensors.items())


@pytest.mark.filterwarnings("error")
def test_a_file_of_another_pickle_protocol_is_read_or_refused_without_a_warning(tmp_path):
    for protocol in (3, 4):
        torch.save({"weight": torch.arange(3.0)}, tmp_path / f"{protocol}.pt", pickle_protocol=protocol)
    (tensor,) = read_tensors(f"{tmp_path}/3.pt").tensors.values()
    assert tensor.tolist() == [0, 1, 2]
    with pytest.raises(NeedsPickleError, match="numbers and text only, got a newer pickle protocol"):
        read_tensors(f"{tmp_path}/4.pt")


def test_what_torch_saves_is_read_from_object_storage_like_from_a_disk(tmp_path, object_storage):
    torch.save({"state_dict": WEIGHTS}, tmp_path / "x.pt")
    object_storage.filesystem().put(f"{tmp_path}/x.pt", f"{BUCKET}/weights/x.pt")
    read = read_tensors(f"s3://{BUCKET}/weights/x.pt")
    assert torch.equal(read.tensors["state_dict", "fc.weight"], WEIGHTS["fc.weight"])
    torch.save({"args": argparse.Namespace()}, tmp_path / "y.pt")
    object_storage.filesystem().put(f"{tmp_path}/y.pt", f"{BUCKET}/weights/y.pt")
    with pytest.raises(NeedsPickleError, match=r"^s3://.*/y\.pt must hold .*, got argparse\.Namespace"):
        read_tensors(f"s3://{BUCKET}/weights/y.pt")


def test_an_archive_that_another_program_compressed_is_read_too(tmp_path):
    """Mapped into memory, its bytes would not be the numbers."""
    torch.save(WEIGHTS, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as stored,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for member in stored.infolist():
            compressed.writestr(member.filename, stored.read(member))
    assert torch.equal(read_tensors(f"{tmp_path}/y.pt").tensors["fc.weight",], WEIGHTS["fc.weight"])


def test_parameters_and_a_mapping_that_contains_itself_are_read(tmp_path):
    content: dict = {"model": {"w": nn.Parameter(torch.ones(2))}}
    content["itself"] = content
    torch.save(content, tmp_path / "x.pt")
    (tensor,) = read_tensors(f"{tmp_path}/x.pt").tensors.values()
    assert torch.equal(tensor, torch.ones(2)) and not tensor.requires_grad


# ---- what is refused


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    ("extra", "got"),
    [
        (lambda _: argparse.Namespace(width=1), r"argparse\.Namespace"),
        (lambda _: np.float64(0.5), r"numpy\._?core\.multiarray\.scalar"),
        (lambda _: nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
        (Intruder, "io.open|open"),
    ],
)
def test_what_could_run_code_is_refused_by_name_and_not_run(tmp_path, extra, got, zipped):
    torch.save({"w": torch.ones(1), "x": extra(tmp_path / "trace")}, tmp_path / "x.pt",
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    with pytest.raises(NeedsPickleError, match=rf"x\.pt must hold tensors, numbers and text only, got ({got}), and a"):
        read_tensors(f"{tmp_path}/x.pt")
    assert not (tmp_path / "trace").exists()


def test_a_class_that_was_registered_as_safe_is_refused_and_stays_registered(tmp_path):
    """Whether a file is read must not depend on which modules a process has imported."""
    torch.save({"w": torch.ones(1), "args": argparse.Namespace(width=1)}, tmp_path / "x.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        with pytest.raises(NeedsPickleError, match=r"argparse\.Namespace"):
            read_tensors(f"{tmp_path}/x.pt")
        assert argparse.Namespace in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    ("tensor", "got"),
    [
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "a quantized tensor"),
        (lambda: torch.eye(2).to_sparse(), "a tensor with the layout sparse_coo"),
        (lambda: torch.ones(2, device="meta"), "a tensor without values, on the device meta"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_do_not_hold_their_own_numbers_are_refused(tmp_path, tensor, got):
    torch.save({"model": {"w": tensor()}}, tmp_path / "x.pt")
    with pytest.raises(NetworkError, match=rf"must hold plain tensors, got {got}: model\.w\. Save it dense"):
        read_tensors(f"{tmp_path}/x.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), r"must hold a dict of tensors, got Tensor\. Save a state_dict\(\)"),
        ({"epoch": 1, "best": 0.5}, r"must hold a dict of tensors at any depth, got the keys 'epoch', 'best'$"),
        ({}, r"got the keys none$"),
    ],
)
def test_a_file_without_named_tensors_is_told_what_it_holds(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(NetworkError, match=message):
        read_tensors(f"{tmp_path}/x.pt")


@pytest.mark.filterwarnings("error:'torch.load' received")
def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "x.pt")
    with pytest.raises(NetworkError, match=r"got a TorchScript program\. Save its state_dict\(\)"):
        read_tensors(f"{tmp_path}/x.pt")


@pytest.mark.parametrize("cut", [4, 100, -1])
def test_a_file_that_was_cut_is_damaged(tmp_path, cut):
    torch.save(WEIGHTS, tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:cut])
    with pytest.raises(NetworkError, match=r"y\.pt is damaged, or no checkpoint .* Copy it again\.$"):
        read_tensors(f"{tmp_path}/y.pt")
    (tmp_path / "z.pt").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(NetworkError, match=r"z\.pt is damaged, or no checkpoint|z\.pt must hold tensors"):
        read_tensors(f"{tmp_path}/z.pt")


# ---- places


@pytest.mark.parametrize("url", ["nowhere/x.safetensors", "nosuchprotocol://x.safetensors"])
def test_a_file_that_cannot_be_read_is_named(url):
    with pytest.raises(NetworkError, match=f"cannot read the weights '{url}'"):
        load_network(f"small:vgg@{url}")


def test_a_path_is_read_as_it_is_written(tmp_path):
    data = weights_to_bytes(load_network("small:vgg"))
    for name in ("w1.safetensors", "w[2].safetensors", "w?.safetensors"):
        (tmp_path / name).write_bytes(data)
        assert read_tensors(f"{tmp_path}/{name}").name == f"{tmp_path}/{name}"
    for name in ("w*.safetensors", "w[1].safetensors"):  # which match w1.safetensors
        with pytest.raises(NetworkError, match=r"cannot read the weights '.*w.*': there is no such file$"):
            read_tensors(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file, _: file.mkdir(), r"cannot read the weights '.*': Is a directory$"),
        (lambda file, _: file.write_bytes(b""), r"cannot read the weights '.*': the file is empty$"),
        (lambda file, _: file.symlink_to("gone"), r"cannot read the weights '.*': there is no such file$"),
        (lambda file, data: file.write_bytes(data[:5000]), r"is damaged \(.*\)\. Copy or convert it again\.$"),
        (lambda file, data: file.write_bytes(data[:4]), r"is damaged \(.*\)\. Copy or convert it again\.$"),
        (lambda file, _: file.write_bytes(b"<!doctype html>"), r"must be a safetensors file"),
    ],
)
def test_what_is_no_file_of_weights_is_called_what_it_is(tmp_path, make, message):
    make(tmp_path / "x.safetensors", weights_to_bytes(load_network("small:vgg")))
    with pytest.raises(NetworkError, match=message):
        read_tensors(str(tmp_path / "x.safetensors"))


def test_metadata_in_the_header_comes_back_and_is_empty_elsewhere(tmp_path):
    network, file = load_network("small:vgg"), tmp_path / "x.safetensors"
    metadata = {"reference": "small:vgg", "mean": [0.5], "std": [0.25]}
    file.write_bytes(weights_to_bytes(network, metadata))
    read = read_tensors(str(file))
    assert (read.name, read.metadata) == (str(file), metadata)
    assert all(torch.equal(read.tensors[name,], tensor) for name, tensor in named_tensors(network).items())
    file.write_bytes(weights_to_bytes(network))
    assert read_tensors(file.as_uri()).metadata == {}


def test_a_hint_ends_the_message_about_a_missing_file():
    with pytest.raises(NetworkError, match=r"^cannot read the weights 'nowhere/x': .*\.\nConvert it\.$"):
        read_tensors("nowhere/x", hint="Convert it.")
