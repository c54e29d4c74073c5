"""Wrappers are looked through in any order, and a preprocessing is understood or refused, never ignored."""

import itertools

import pytest
import torch
import torch.distributed
from torch import nn
from torchvision import transforms
from torchvision.transforms import v2

import netsim
from netsim.errors import NetworkError
from netsim.networks import as_network, load_network
from netsim.networks.wrappers import unwrap
from support.classifiers import AttackerModel, Classifier, images

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
STATED = netsim.Preprocessing(mean=MEAN, std=STD, size=16)


@pytest.fixture(scope="module")
def group():
    """A process group of this process alone, which DistributedDataParallel requires."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {
    "parallel": nn.DataParallel,
    "distributed": nn.parallel.DistributedDataParallel,
    "compiled": torch.compile,
    "attacker": AttackerModel,
}


@pytest.mark.parametrize("kinds", list(itertools.permutations(WRAPPERS, 3)), ids="-".join)
def test_wrappers_in_any_order_are_peeled_and_an_attacker_keeps_its_normalisation(kinds, group):
    model = Classifier().eval()
    wrapped = model
    for kind in kinds:
        wrapped = WRAPPERS[kind](wrapped)
    inner, preprocessing = unwrap(wrapped)
    assert inner is model
    attacked = "attacker" in kinds
    assert (
        preprocessing == netsim.Preprocessing()
        if not attacked
        else torch.allclose(preprocessing.mean.flatten().cpu(), torch.tensor(MEAN))
    )
    expected = model((images(3) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    result = as_network(wrapped, images(1))(images(3))
    assert torch.allclose(result, expected if attacked else model(images(3)), atol=1e-6)


@pytest.mark.parametrize("level", range(4))
def test_whichever_of_the_wrappers_states_a_preprocessing_it_is_kept(level):
    layers = [Classifier().eval()]
    for wrap in (nn.DataParallel, torch.compile, nn.DataParallel):
        layers.append(wrap(layers[-1]))
    layers[level].preprocessing = STATED
    assert unwrap(layers[-1])[1] == STATED
    assert as_network(layers[-1], images(1)).mean.flatten().tolist() == pytest.approx(MEAN)


def test_two_that_agree_are_one_and_what_only_one_states_is_kept():
    attacker = AttackerModel(Classifier().eval())
    attacker.model.preprocessing = STATED
    _, preprocessing = unwrap(attacker)
    assert (preprocessing.size, preprocessing.crop) == (16, None)
    wrapped = nn.DataParallel(attacker.model)
    wrapped.preprocessing = netsim.Preprocessing(
        mean=[255 * mean for mean in MEAN], std=[255 * std for std in STD], largest=255, crop=0.9
    )
    assert unwrap(wrapped)[1].crop == 0.9 and unwrap(wrapped)[1].size == 16


@pytest.mark.parametrize(
    "other",
    [
        netsim.Preprocessing(),
        netsim.Preprocessing(mean=MEAN),
        netsim.Preprocessing(mean=MEAN, std=STD, size=32),
        netsim.Preprocessing(mean=MEAN, std=STD, order="BGR"),
        netsim.Preprocessing(mean=MEAN, std=STD, largest=255),
        netsim.Preprocessing(mean=(0.1, 0.2), std=STD),
    ],
)
def test_two_that_disagree_are_refused(other):
    model = Classifier()
    model.preprocessing = STATED
    wrapped = nn.DataParallel(model)
    wrapped.preprocessing = other
    with pytest.raises(NetworkError, match=r"Classifier must have one preprocessing, got two .* Remove one"):
        unwrap(wrapped)
    attacker = AttackerModel(Classifier())
    attacker.preprocessing = netsim.Preprocessing()
    with pytest.raises(NetworkError, match="two that disagree"):
        unwrap(attacker)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (
            {"mean": MEAN, "std": list(STD), "axis": -3},
            r"got dict\. Write netsim\.Preprocessing\(mean=\(0\.1, 0\.2, 0\.3\), std=\(0\.4, 0\.5, 0\.6\)\)",
        ),
        ({"mean": 0.5}, r"got dict\. Write netsim\.Preprocessing\(mean=\(0\.5,\)\)"),
        ({"mean": "grey"}, r"got dict\. Write netsim\.Preprocessing\(mean=\.\.\.\)"),
        ({"mean": [10**400]}, r"got dict\. Write netsim\.Preprocessing\(mean=\.\.\.\)"),
        ({}, r"got dict\. Write netsim\.Preprocessing\(mean=\.\.\., std=\.\.\.\)"),
        (lambda x: x / 2, r"got function\. Write netsim\.Preprocessing\(mean=\.\.\., std=\.\.\.\)"),
        (netsim.Preprocessing, r"got the class itself\. Call it"),
        (
            transforms.Normalize(MEAN, STD),
            r"got Normalize\. Write netsim\.Preprocessing\(mean=\(0\.1, .* or rename",
        ),
        (transforms.Compose([]), r"got Compose\. Write"),
        (v2.Normalize(MEAN, STD), r"got Normalize\. Write netsim\.Preprocessing\(mean=\(0\.1"),
        (nn.Identity(), r"got Identity\. .* or rename the attribute if the forward pass applies it"),
        ((MEAN, STD), r"got tuple\."),
        ("imagenet", r"got str\."),
        (False, r"got bool\."),
    ],
)
def test_what_is_no_preprocessing_is_named_and_shown_how_to_write(value, got):
    model = Classifier()
    model.preprocessing = value
    for given in (model, nn.DataParallel(model), AttackerModel(model)):
        with pytest.raises(NetworkError, match=f"preprocessing of Classifier must be a netsim.Preprocessing, {got}"):
            as_network(given, images(1))


def test_none_is_as_good_as_no_preprocessing():
    model = Classifier()
    model.preprocessing = None
    assert unwrap(model)[1] == netsim.Preprocessing()


def test_a_preprocessing_of_a_layer_is_not_taken_for_that_of_the_whole():
    inner = Classifier()
    inner.preprocessing = STATED
    outer = torch.optim.swa_utils.AveragedModel(inner)
    with pytest.raises(NetworkError, match="of AveragedModel must be stated by itself, got it from its layer 'module'"):
        unwrap(outer)
    outer.preprocessing = STATED
    assert unwrap(outer) == (outer, STATED)
    with pytest.raises(NetworkError, match="from its layer '0'"):
        unwrap(nn.Sequential(inner))


@pytest.mark.parametrize("normalizer", [nn.Identity(), transforms.Normalize(MEAN, STD), lambda x: x])
def test_an_attacker_with_another_normalizer_is_refused_by_its_name(normalizer):
    attacker = AttackerModel(Classifier())
    del attacker.normalizer
    attacker.normalizer = normalizer
    name = type(normalizer).__name__
    for given in (attacker, torch.compile(nn.DataParallel(attacker))):
        with pytest.raises(NetworkError, match=f"of AttackerModel must have new_mean .* got {name}. Give its .model"):
            as_network(given, images(1))


class Normalising(Classifier):
    """It has the attributes of an AttackerModel, and returns logits."""

    def __init__(self):
        super().__init__()
        self.model, self.normalizer = Classifier(), transforms.Normalize(MEAN, STD)

    def forward(self, x):
        return self.model(self.normalizer(x))


def test_a_classifier_that_normalises_itself_is_no_attacker():
    model = Normalising().eval()
    assert unwrap(model) == (model, netsim.Preprocessing())
    assert torch.equal(as_network(model, images(1))(images(3)), model(images(3)))


def test_a_function_of_the_users_may_return_a_wrapper(tmp_path, monkeypatch):
    (tmp_path / "lab_wrapped.py").write_text(
        "import netsim, torch\nfrom torch import nn\n"
        "def f():\n"
        "    model = nn.DataParallel(nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 3)))\n"
        "    model.preprocessing = netsim.Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=4)\n"
        "    return torch.compile(model)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_network("python:lab_wrapped:f").mean.flatten().tolist() == [0.5] * 3
