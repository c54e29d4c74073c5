"""Pickled checkpoints made safetensors of: what robustness saves, by robustness itself, and what hides in a pickle."""

import collections
import hashlib
import os
import pickle
import re
from pathlib import Path

import dill
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn
from typer.testing import CliRunner

from flows.cli.main import app
from netsim.errors import NetworkError, SettingsError
from netsim.networks import content_hash, load_network
from netsim.networks import convert as module
from netsim.networks.convert import convert
from netsim.networks.sources._robustness_compat import import_robustness
from netsim.networks.tensor_files import NeedsPickleError

robustness = import_robustness()
SHUFFLENET = "robust:shufflenet_l2_eps3"
DENSENET = "robustness:cifar:densenet_cifar"  # the smallest network that robustness has


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """The folder of weights."""
    monkeypatch.setenv("NETSIM_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def warmed(network: nn.Module, size: int) -> nn.Module:
    """With BatchNorm statistics and weights that no other network has."""
    network.train()
    with torch.no_grad():
        network(torch.rand(4, 3, size, size))
    return network.eval()


def attacker(network: nn.Module, dataset: str) -> nn.Module:
    """As `make_and_restore_model` makes it."""
    about = robustness.datasets.DATASETS[dataset]("unused")
    return robustness.attacker.AttackerModel(network, about).eval()


def save(wrapped: nn.Module, file: Path, *, old_form: bool = False, **more: object) -> str:
    """As robustness.train does, in DataParallel, with its optimizer and schedule, by dill. Returns the hash."""
    parallel = nn.DataParallel(wrapped)
    optimizer = torch.optim.SGD(parallel.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)
    content = {"model": parallel.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    content |= {"epoch": 90, "amp": None, "nat_prec1": torch.tensor(66.9)} | more
    torch.save(content, file, pickle_module=dill, _use_new_zipfile_serialization=not old_form)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def allowed(sha256: str) -> dict[str, object]:
    return {"sha256": sha256, "allow_pickle": True}


def looks_alike(network, model: nn.Module, size: int) -> bool:
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        return torch.allclose(network(x), model(x, with_image=False), rtol=1e-4, atol=1e-5)


# ---- what is published


def test_a_robust_resnet_of_robustness_is_the_same_function_in_torchvisions_class(tmp_path, weights):
    model = attacker(warmed(robustness.imagenet_models.resnet18(num_classes=1000), 64), "imagenet")
    made = convert("robust:resnet18_l2_eps0.25", str(tmp_path / "x.ckpt"), **allowed(save(model, tmp_path / "x.ckpt")))
    assert made.reference == "robust:resnet18_l2_eps0.25" and Path(made.path).parent == weights
    network = load_network(made.reference, input_shape=(3, 64, 64))
    assert looks_alike(network, model, 64)
    assert (network.width, network.num_classes, network.name) == (512, 1000, "resnet18_l2_eps0.25")


@pytest.fixture
def shufflenet(tmp_path) -> tuple[nn.Module, str, str]:
    """One of torchvision's in a DummyModel: model, checkpoint, hash."""
    inner = robustness.model_utils.DummyModel(warmed(torchvision.models.shufflenet_v2_x1_0(weights=None), 64))
    model = attacker(inner, "imagenet")
    return model, str(tmp_path / "x.ckpt"), save(model, tmp_path / "x.ckpt")


def test_a_robust_network_of_torchvisions_loses_one_more_prefix_and_says_where_it_is_from(weights, shufflenet):
    model, checkpoint, sha256 = shufflenet
    made = convert(SHUFFLENET, checkpoint, **allowed(sha256))
    network = load_network(SHUFFLENET, input_shape=(3, 64, 64))
    assert looks_alike(network, model, 64)
    assert network.origin["sha256"] == made.sha256 == sha256 and network.origin["reference"] == SHUFFLENET
    assert network.origin["mean"] == pytest.approx([0.485, 0.456, 0.406])
    names = set(safetensors.torch.load_file(made.path))
    assert names == set(torchvision.models.shufflenet_v2_x1_0(weights=None).state_dict())
    elsewhere = convert(SHUFFLENET, checkpoint, output=str(weights / "y.safetensors"), **allowed(sha256))
    assert elsewhere.reference == f"torchvision:shufflenet_v2_x1_0@{weights}/y.safetensors"
    assert content_hash(load_network(elsewhere.reference)) == content_hash(network)


def test_a_file_that_was_converted_as_another_network_is_refused(weights, shufflenet):
    _, checkpoint, sha256 = shufflenet
    made = convert(SHUFFLENET, checkpoint, **allowed(sha256))
    os.rename(made.path, made.path.replace("eps3", "eps0"))
    with pytest.raises(
        NetworkError,
        match=r"must hold robust:shufflenet_l2_eps0, got robust:shufflenet_l2_eps3\. Convert its checkpoint again",
    ):
        load_network("robust:shufflenet_l2_eps0")


def test_a_download_that_fails_says_what_to_fetch(weights, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match=r"robust-imagenet-models/resolve/main/shufflenet_l2_eps3\.ckpt") as caught:
        convert(SHUFFLENET, **allowed("0" * 64))
    assert "netsim convert robust:shufflenet_l2_eps3 shufflenet_l2_eps3.ckpt" in str(caught.value)


# ---- the robustness library's own


def test_a_cifar_checkpoint_brings_its_normalisation(tmp_path):
    model = attacker(warmed(robustness.cifar_models.densenet_cifar(num_classes=10), 32), "cinic")  # not cifar's
    sha256 = save(model, tmp_path / "x.pt", old_form=True)
    made = convert(DENSENET, str(tmp_path / "x.pt"), **allowed(sha256))
    assert made.reference == f"{DENSENET}@{tmp_path}/x.safetensors"
    network = load_network(made.reference, input_shape=(3, 32, 32))
    assert looks_alike(network, model, 32)
    assert network.num_classes == 10 and network.mean.flatten().tolist() == pytest.approx(
        [0.47889, 0.47227, 0.43047], 1e-4
    )


def test_a_network_of_grey_images_says_how_to_state_them_and_is_converted_then(tmp_path, monkeypatch):
    (tmp_path / "grey_nets.py").write_text(
        "import netsim\nfrom torch import nn\n\n\n"
        "def grey():\n    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 26 * 26, 10))\n\n\n"
        "def stated():\n    net = grey()\n"
        "    net.preprocessing = netsim.Preprocessing(mean=(0,), std=(1,), size=28)\n    return net\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tensors = {"0.weight": torch.rand(2, 1, 3, 3), "0.bias": torch.rand(2), "2.weight": torch.rand(10, 1352)}
    torch.save({"net": tensors | {"2.bias": torch.rand(10)}}, tmp_path / "x.pt")
    with pytest.raises(NetworkError, match=r"netsim\.Preprocessing\(mean=\(0,\), std=\(1,\), size=28\)"):
        convert("python:grey_nets:grey", str(tmp_path / "x.pt"))
    made = convert("python:grey_nets:stated", str(tmp_path / "x.pt"))
    assert torch.equal(load_network(made.reference).head.weight, tensors["2.weight"])


# ---- raw and averaged weights


@pytest.fixture
def two_sets(tmp_path) -> tuple[dict, str]:
    """Raw and averaged weights as timm and torchvision save them: checkpoint, path."""
    raw = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=7).state_dict()
    averaged = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=7).state_dict()
    content = {"state_dict": raw, "state_dict_ema": {f"module.{name}": value for name, value in averaged.items()}}
    torch.save(content, tmp_path / "x.pt")
    return content, str(tmp_path / "x.pt")


def test_averaged_weights_are_taken_only_if_they_are_chosen_and_the_origin_says_so(tmp_path, two_sets):
    content, checkpoint = two_sets
    with pytest.raises(SettingsError, match=r"got 2 that differ: 'state_dict', 'state_dict_ema\.module'"):
        convert("torchvision:shufflenet_v2_x0_5", checkpoint)
    assert not (tmp_path / "x.safetensors").exists()
    for key, prefix in (("state_dict", ""), ("state_dict_ema", "module.")):
        output = str(tmp_path / f"{key}.safetensors")
        made = convert("torchvision:shufflenet_v2_x0_5", checkpoint, key=key, output=output)
        network = load_network(made.reference)
        assert torch.equal(network.head.weight, content[key][f"{prefix}fc.weight"])
        assert network.origin["key"] == made.key == f"{key}.{prefix}".strip(".")


def test_the_command_takes_a_key_and_names_what_it_ignored(tmp_path, two_sets):
    content, *_ = two_sets
    averaged = content["state_dict_ema"] | {"n_averaged": torch.tensor(3)}
    torch.save({"state_dict": content["state_dict"], "ema": averaged}, tmp_path / "y.pt")
    arguments = ["convert", "torchvision:shufflenet_v2_x0_5", f"{tmp_path}/y.pt"]
    done = CliRunner().invoke(app, [*arguments, "--key", "ema"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[2:] == ["weights are those under ema.module", "ignored n_averaged"]


# ---- what does not fit


def test_a_plain_state_dict_of_any_architecture_is_converted_too(tmp_path):
    own = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=7)
    torch.save({"state_dict": own.state_dict()}, tmp_path / "x.pth")
    made = convert("torchvision:shufflenet_v2_x0_5", str(tmp_path / "x.pth"))
    network = load_network(made.reference)
    assert network.num_classes == 7 and torch.equal(network.head.weight, own.fc.weight)
    with pytest.raises(NetworkError, match=r"x\.pth must have the sha256 00, got"):
        convert("torchvision:shufflenet_v2_x0_5", str(tmp_path / "x.pth"), sha256="00", output=f"{tmp_path}/y")


def test_a_prefix_without_a_dot_is_removed_on_request_and_must_be_there(tmp_path):
    own = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=7)
    tensors = {f"backbone_{name}": tensor for name, tensor in own.state_dict().items()}
    torch.save({"state_dict": tensors | {"other": torch.ones(1)}}, tmp_path / "x.pth")
    arguments = ["convert", "torchvision:shufflenet_v2_x0_5", f"{tmp_path}/x.pth", "--strip-prefix"]
    failed = CliRunner().invoke(app, [*arguments, "body_"])
    assert isinstance(failed.exception, SettingsError)
    assert re.search(r"^--strip-prefix must begin names in .*, got 'body_'; names are back", str(failed.exception))
    done = CliRunner().invoke(app, [*arguments, "backbone_"])
    assert done.exit_code == 0, done.output
    network = load_network(f"torchvision:shufflenet_v2_x0_5@{tmp_path}/x.safetensors")
    assert torch.equal(network.head.weight, own.fc.weight)


def changed(tensors, change):
    found = {name: tensor.clone() for name, tensor in tensors.items()}
    change(found)
    return collections.OrderedDict(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda found: found.update(
                {
                    "module.model.model.fc.weight": torch.zeros(10, 1024),
                    "module.model.model.extra": found.pop("module.model.model.fc.bias"),
                }
            ),
            r"missing fc.bias; surplus extra \(1000,\); misshapen fc.weight \(10, 1024\) instead of \(1000, 1024\)",
        ),
        (
            lambda found: found.update({"module.attacker.model.model.fc.bias": torch.ones(1000)}),
            "got 2 that differ: 'model.module.model.model', 'model.module.attacker.model.model'. Choose one",
        ),
        (
            lambda found: found.update({"module.normalizer.new_mean": torch.full((3, 1, 1), 0.5)}),
            r"mean and std of robust:shufflenet_l2_eps3 must be \(0.485, .* got \(0.5,",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_told_why_and_leaves_nothing(weights, shufflenet, tmp_path, change, message):
    model, *_ = shufflenet
    tensors = changed(nn.DataParallel(model).state_dict(), change)
    for name in [name for name in tensors if "attacker" in name and name.replace("attacker.", "") not in tensors]:
        del tensors[name]
    if "that differ" not in message:
        tensors = {name: tensor for name, tensor in tensors.items() if "attacker.model" not in name}
    sha256 = save(model, tmp_path / "y.ckpt", model=tensors)
    with pytest.raises((NetworkError, SettingsError), match=message):
        convert(SHUFFLENET, str(tmp_path / "y.ckpt"), **allowed(sha256))
    assert not weights.exists() or not list(weights.iterdir())


# ---- pickles


class Intruder:
    """Unpickled, it creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self):
        return open, (self.trace, "w")


def test_the_intruder_of_these_tests_is_one(tmp_path):
    pickle.loads(pickle.dumps(Intruder(tmp_path / "trace"))).close()
    assert (tmp_path / "trace").exists()


def test_a_pickle_is_not_read_unless_it_is_allowed_and_the_one_expected(weights, shufflenet, tmp_path):
    model, *_ = shufflenet
    checkpoint, trace = str(tmp_path / "y.ckpt"), tmp_path / "trace"
    sha256 = save(model, tmp_path / "y.ckpt", schedule=Intruder(trace))
    for how in ({}, {"sha256": sha256}, {"allow_pickle": True}):
        with pytest.raises(NeedsPickleError, match=f"--allow-pickle --sha256 {sha256}"):
            convert(SHUFFLENET, checkpoint, **how)
    with pytest.raises(NetworkError, match=f"must have the sha256 {'0' * 64}, got {sha256}"):
        convert(SHUFFLENET, checkpoint, **allowed("0" * 64))
    assert not trace.exists() and not weights.exists()


@pytest.mark.parametrize("old_form", [False, True], ids=["zip", "before torch 1.6"])
def test_an_allowed_pickle_runs_no_code_either(weights, shufflenet, tmp_path, old_form):
    """Neither a function that it looks up, nor one that dill packed into it, with a class of its own."""
    model, *_ = shufflenet
    trace = tmp_path / "trace"

    class Schedule:
        def __init__(self):
            self.when = {"epochs": [30, 60]}
            self.factor = lambda epoch: trace.write_text("here")

    packed = {"schedule": Schedule(), "args": Intruder(trace), "log": [Intruder(trace), {Intruder(trace): 1}]}
    sha256 = save(model, tmp_path / "y.ckpt", old_form=old_form, **packed)
    made = convert(SHUFFLENET, str(tmp_path / "y.ckpt"), **allowed(sha256))
    assert looks_alike(load_network(SHUFFLENET, input_shape=(3, 64, 64)), model, 64) and Path(made.path).exists()
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Intruder, "a model that was pickled as a whole is code"),
        (
            lambda trace: {"model": {"fc.weight": Intruder(trace)}},
            "it must hold a dict of tensors at any depth",
        ),
    ],
)
def test_where_weights_would_be_there_is_no_code_either(tmp_path, content, message):
    trace = tmp_path / "trace"
    torch.save(content(trace), tmp_path / "y.pt")
    sha256 = hashlib.sha256((tmp_path / "y.pt").read_bytes()).hexdigest()
    with pytest.raises(NetworkError, match=message):
        convert(DENSENET, str(tmp_path / "y.pt"), **allowed(sha256))
    assert not trace.exists()


def test_nothing_that_is_there_is_written_over(tmp_path):
    (tmp_path / "y.safetensors").write_bytes(b"mine")
    with pytest.raises(SettingsError, match=r"exists already\. Remove it, or name another file with --output"):
        convert(DENSENET, str(tmp_path / "y.pt"))
    assert (tmp_path / "y.safetensors").read_bytes() == b"mine"
    with pytest.raises(NetworkError, match="cannot read the checkpoint"):
        convert(DENSENET, str(tmp_path / "z.pt"))
    with pytest.raises(SettingsError, match="only those of robust: networks are downloaded"):
        convert(DENSENET)
    with pytest.raises(
        SettingsError,
        match=r"requires a network without weights, got .*@x\.safetensors\. Write robustness:cifar:densenet_cifar",
    ):
        convert(f"{DENSENET}@x.safetensors", str(tmp_path / "z.pt"))


def test_the_process_that_reads_a_pickle_inherits_no_credentials_and_no_folder(tmp_path, monkeypatch):
    reader = tmp_path / "reader.py"
    reader.write_text("import os, sys\nsys.exit(f'{sorted(os.environ)} in {os.getcwd()}')\n")
    monkeypatch.setattr(module, "READER", reader)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    torch.save({"args": Intruder(tmp_path / "trace")}, tmp_path / "y.pt")
    sha256 = hashlib.sha256((tmp_path / "y.pt").read_bytes()).hexdigest()
    with pytest.raises(NetworkError, match="cannot read the checkpoint") as caught:
        convert(DENSENET, str(tmp_path / "y.pt"), **allowed(sha256))
    assert "'PATH'" in str(caught.value) and "AWS" not in str(caught.value)
    assert os.getcwd() not in str(caught.value)
