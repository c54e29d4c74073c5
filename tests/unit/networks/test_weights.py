"""Weights as safetensors, and their content hash."""

import os
from contextlib import suppress

import pytest
import safetensors.torch
import torch

from netsim.errors import NetworkError
from netsim.networks import content_hash, load_network, load_weights, weights_to_bytes
from netsim.networks.sources.small import SMALL
from netsim.networks.weights import class_count, fill, named_tensors, no_code_in_pickles, parse_safetensors


def test_a_file_of_weights_gives_back_the_network_that_wrote_it(tmp_path):
    file = tmp_path / "x.safetensors"
    network = load_network("small:mobilenet", num_classes=4, rng_seed=3)
    file.write_bytes(weights_to_bytes(network))
    for classes in (None, 4):  # None: what the file says
        again = load_network(f"small:mobilenet@{file}", num_classes=classes)
        assert content_hash(again) == content_hash(network)
    assert content_hash(load_network(f"small:mobilenet@file://{file}")) == content_hash(network)
    with pytest.raises(NetworkError, match=r"misshapen classifier\.1\.bias \(4,\) instead of \(5,\)"):
        load_network(f"small:mobilenet@{file}", num_classes=5)


def test_tensors_that_do_not_fit_are_named():
    network = load_network("small:vgg")
    good = safetensors.torch.load(weights_to_bytes(network))
    before = content_hash(network)

    def message(**changes):
        tensors = {name.replace("-", "."): tensor for name, tensor in (good | changes).items() if tensor is not None}
        with pytest.raises(NetworkError) as caught:
            load_weights(network, safetensors.torch.save(tensors), origin="x.safetensors")
        assert content_hash(network) == before
        return str(caught.value)

    assert message(**{"classifier.6.bias": None}) == (
        "x.safetensors must have the tensors of small:vgg, got missing classifier.6.bias"
    )
    assert "surplus extra (1,)" in message(extra=torch.zeros(1))
    assert "misshapen classifier.6.bias (3,) instead of (10,)" in message(**{"classifier.6.bias": torch.zeros(3)})
    assert "not finite classifier.6.bias" in message(**{"classifier.6.bias": torch.full((10,), torch.nan)})
    gone = {name: None for name in good if name.startswith("features")}
    names = "features.0.weight, features.1.bias, features.1.running_mean"
    assert f"missing {names} and 26 more" in message(**gone)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("my tool", None),
        ("[1, 2]", None),
        ('{"mean": 0.5, "std": 0.5}', r"mean in the metadata of the weights must be a list of numbers, got 0.5"),
    ],
)
def test_an_entry_of_netsims_name_that_somebody_else_made_is_passed_over_or_refused(tmp_path, entry, message):
    file = tmp_path / "x.safetensors"
    tensors = safetensors.torch.load(weights_to_bytes(load_network("small:vgg")))
    file.write_bytes(safetensors.torch.save(tensors, {"netsim": entry}))
    if message is None:
        load_network(f"small:vgg@{file}")
    else:
        with pytest.raises(NetworkError, match=message):
            load_network(f"small:vgg@{file}")


def test_weights_of_eight_bits_are_read():
    network = load_network("small:vgg")
    tensors = safetensors.torch.load(weights_to_bytes(network))
    short = tensors["classifier.6.weight"].to(torch.float8_e4m3fn)
    load_weights(network, safetensors.torch.save(tensors | {"classifier.6.weight": short}))
    assert torch.equal(network.head.weight, short.float())


def test_files_from_before_batchnorm_counted_still_fit():
    network = load_network("small:vgg")
    tensors = safetensors.torch.load(weights_to_bytes(network))
    load_weights(
        network, safetensors.torch.save({k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")})
    )


@pytest.mark.parametrize("data", [b"<!doctype html>", b"PK\x03\x04", b"\x80\x02}."])
def test_the_weights_of_a_store_are_safetensors_and_nothing_else(data):
    with pytest.raises(NetworkError, match=r"^w must be a safetensors file .*, because a pickle can run code"):
        parse_safetensors(data + b" " * 8, origin="w")


def test_a_hint_ends_the_message_about_tensors_that_do_not_fit():
    with pytest.raises(NetworkError, match=r"surplus x \(1,\)\. Look there$"):
        fill(load_network("small:vgg"), {"x": torch.zeros(1)}, origin="w", hint=". Look there")


def test_weights_that_a_copy_would_change_are_refused():
    network = load_network("small:vgg")
    tensors = safetensors.torch.load(weights_to_bytes(network))
    name = "classifier.6.weight"
    for dtype in (torch.complex64, torch.int8):  # the imaginary part would be lost; a quantized tensor has a scale
        with pytest.raises(NetworkError, match=rf"of another kind {name} \({dtype} instead of torch.float32\)"):
            load_weights(network, safetensors.torch.save(tensors | {name: tensors[name].to(dtype)}))
    counts = {name: t.double() for name, t in tensors.items() if name.endswith("num_batches_tracked")}
    load_weights(network, safetensors.torch.save(tensors | counts))  # as in averaged weights; they change no output


def test_one_bit_makes_another_hash():
    network = load_network("small:vgg")
    hashes = [content_hash(network)]
    assert content_hash(load_network("small:vgg")) == hashes[0]
    network.head.bias.view(torch.int32)[0] ^= 1
    hashes.append(content_hash(network))
    network.head.bias.view(torch.int32)[0] ^= 1
    assert content_hash(network) == hashes[0]
    network.mean[0] += 0.1  # other normalisation, other network
    hashes.append(content_hash(network))
    network.double()
    hashes.append(content_hash(network))
    assert len(set(hashes)) == 4


def test_memory_layout_does_not_change_the_hash():
    network = load_network("small:resnet18")
    before = content_hash(network)
    assert content_hash(network.to(memory_format=torch.contiguous_format)) == before


def test_tensors_have_the_names_of_the_original_architecture_and_are_no_copies():
    network = load_network("small:vgg")
    tensors = named_tensors(network)
    assert set(tensors) == set(SMALL["vgg"]().state_dict())
    assert tensors["classifier.6.weight"] is network.head.weight


def test_classes_are_counted_in_the_last_layer_of_a_file():
    network = load_network("small:vgg")
    assert class_count({"classifier.6.weight": torch.zeros(7, 128)}, network) == 7
    assert class_count({"classifier.6.weight": torch.zeros(7)}, network) == class_count({}, network) == 10


@pytest.mark.parametrize("before", [None, "0"])
def test_the_ban_on_code_in_pickles_ends_with_its_context(before, monkeypatch):
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(variable, raising=False)
    if before is not None:
        monkeypatch.setenv(variable, before)
    inside = []
    with suppress(KeyError), no_code_in_pickles():
        inside.append(os.environ[variable])
        raise KeyError
    assert inside == ["1"]
    assert os.environ.get(variable) == before
