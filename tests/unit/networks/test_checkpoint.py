"""A network's weights are found in a checkpoint by their names and shapes; where two sets differ, the user chooses."""

import json

import pytest
import torch
from torch import Tensor, nn

from netsim.errors import NetworkError, SettingsError
from netsim.networks import Network, as_network
from netsim.networks.checkpoint import find_weights
from netsim.networks.unpickle import tensors_of
from netsim.networks.weights import fill


class Small(nn.Module):
    def __init__(self, features: nn.Module | None = None) -> None:
        super().__init__()
        self.features = features or nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.fc = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean(dim=(2, 3)))


class WithModel(nn.Module):
    """A network with a part that is called `model`."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Small()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


NETWORK = as_network(Small(), torch.rand(2, 1, 5, 5))
PARTIAL = as_network(WithModel(), torch.rand(2, 1, 5, 5))


def weights(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return Small().state_dict()


def find(checkpoint: dict, network: Network = NETWORK, key: str | None = None):
    """Find the weights in a checkpoint as `netsim convert` reads it."""

    saved = {tuple(json.loads(keys)): tensor for keys, tensor in tensors_of(checkpoint).items()}
    return find_weights(saved, network, key=key, origin="x.pt")


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("checkpoint", "key"),
    [
        (lambda w: w, ""),
        (lambda w: {"state_dict": w}, "state_dict"),
        (lambda w: {"model_state_dict": w, "loss": torch.tensor(0.1)}, "model_state_dict"),
        (lambda w: {"weights": {"best": under("net.", w)}}, "weights.best.net"),
        (lambda w: under("module.", w), "module"),
        (lambda w: under("_orig_mod.", w), "_orig_mod"),
        (lambda w: under("module._orig_mod.", w), "module._orig_mod"),
        (lambda w: under("_orig_mod.module.backbone.", w), "_orig_mod.module.backbone"),
        (lambda w: {name.replace("features.", "features.module."): tensor for name, tensor in w.items()}, ""),
        (lambda w: {name.replace("fc.", "_orig_mod.fc."): tensor for name, tensor in w.items()}, ""),
        (lambda w: {"model": w, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}}, "model"),
    ],
)
def test_weights_are_found_whatever_they_are_wrapped_in(checkpoint, key):
    expected = weights()
    found = find(checkpoint(expected))
    assert found.key == key and found.tensors.keys() == expected.keys() and found.ignored == ()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.items())


def test_a_part_of_a_network_that_is_called_model_keeps_its_name():
    raw = under("model.", weights())
    for checkpoint, key in ((raw, ""), (under("model.", raw), "model"), ({"model": raw}, "model")):
        found = find(checkpoint, PARTIAL)
        assert found.key == key and found.tensors.keys() == raw.keys()


@pytest.mark.parametrize(
    ("checkpoint", "keys"),
    [
        (lambda a, b: {"state_dict": a, "state_dict_ema": b}, ("state_dict", "state_dict_ema")),
        (lambda a, b: {"model": a, "model_ema": under("module.", b)}, ("model", "model_ema.module")),
        (lambda a, b: {"teacher": a, "student": b}, ("student", "teacher")),
        (lambda a, b: under("model.", a) | under("ema_model.", b), ("ema_model", "model")),
        (
            lambda a, b: {"state_dict": under("net.", a), "callbacks": {"EMA": {"ema": b}}},
            ("state_dict.net", "callbacks.EMA.ema"),
        ),
        (lambda a, b: a | under("averaged.", b), ("", "averaged")),
        (lambda a, b: {"model": a | {"surplus": torch.ones(1)}, "ema": b}, ("ema", "model")),
    ],
)
def test_of_two_sets_that_differ_none_is_taken_unless_its_key_is_given(checkpoint, keys):
    raw, averaged = weights(0), weights(1)
    content = checkpoint(raw, averaged)
    with pytest.raises(SettingsError) as caught:
        find(content)
    assert str(caught.value).endswith(f"got 2 that differ: {keys[0]!r}, {keys[1]!r}. Choose one, as in --key {keys[1]}")
    taken = [find(content, key=key) for key in keys]
    assert [found.key for found in taken] == list(keys)
    heads = [found.tensors["fc.weight"] for found in taken]
    assert not torch.equal(*heads) and any(torch.equal(heads[0], w["fc.weight"]) for w in (raw, averaged))


def test_the_first_parts_of_a_key_are_enough_and_equal_sets_are_one():
    raw, averaged = weights(0), weights(1)
    content = {"model": raw, "model_ema": under("module.", averaged)}
    assert find(content, key="model_ema").key == find(content, key="model_ema.module.").key == "model_ema.module"
    assert torch.equal(find(content, key="model").tensors["fc.bias"], raw["fc.bias"])
    assert find({"model": raw, "ema": dict(raw)}).key == "ema"
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in raw.items()}
    with pytest.raises(SettingsError, match="2 that differ"):
        find({"model": raw, "ema": half})


def test_a_set_of_weights_that_are_not_finite_is_one_set():
    """NaN differs from itself, but a copy has the same bits. Copying the weights then fails with their names."""
    spoiled = weights() | {"fc.bias": torch.full((3,), float("nan"))}
    for content in ({"model": spoiled}, {"model": spoiled, "ema": {name: t.clone() for name, t in spoiled.items()}}):
        with pytest.raises(NetworkError, match=r"x\.pt must have the tensors of .*, got not finite fc\.bias"):
            fill(as_network(Small(), torch.rand(2, 1, 5, 5)), find(content).tensors, origin="x.pt")
    with pytest.raises(SettingsError, match="2 that differ"):
        find({"model": spoiled, "ema": weights()})


def test_a_network_of_other_shapes_is_no_second_set_but_another_number_of_classes_is():
    small, wide = weights(), Small(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))).state_dict()
    assert find({"student": small, "teacher": wide}).key == "student"
    more = small | {"fc.weight": torch.ones(9, 2), "fc.bias": torch.ones(9)}
    assert find({"student": more}).key == "student"
    with pytest.raises(SettingsError, match="2 that differ"):
        find({"a": small, "b": more})


def test_tensors_beside_the_weights_are_ignored_and_named_but_not_those_among_them():
    found = find({"state_dict": under("model.", weights()) | {"criterion.weight": torch.ones(3)}})
    assert found.key == "state_dict.model" and found.ignored == ("criterion.weight",)
    assert find(under("module.", weights()) | {"n_averaged": torch.tensor(7)}).ignored == ("n_averaged",)
    among = find(weights() | {"criterion.weight": torch.ones(3)})
    assert "criterion.weight" in among.tensors and among.ignored == ()
    twice = find(weights() | {"features.module.0.bias": torch.ones(2)})
    assert "features.module.0.bias" in twice.tensors  # not in place of features.0.bias


def test_a_network_behind_a_layer_that_normalises_images_is_refused_unless_its_key_is_given():
    content = under("1.", weights()) | {"0.mean": torch.ones(1, 1, 1), "0.std": torch.ones(1, 1, 1)}
    with pytest.raises(NetworkError, match=r"got 0.mean, 0.std, by which images are normalised first\. .* --key 1$"):
        find(content)
    assert find(content, key="1").key == "1"


def test_the_normalisation_of_robustness_comes_along():
    both = under("model.", weights()) | under("attacker.model.", weights())
    both |= {f"{owner}.new_{kind}": torch.full((1, 1, 1), 0.5) for owner in ("normalizer", "attacker.normalize")
             for kind in ("mean", "std")}  # fmt: skip
    for wrapper in ("", "module.", "net.module."):
        found = find(under(wrapper, both))
        assert found.key == f"{wrapper}model" and found.normalisation == {"mean": [0.5], "std": [0.5]}
        assert found.ignored == ()
    assert find(under("model.", weights())).normalisation == {}


def test_without_a_complete_set_the_most_similar_one_comes_out_for_its_faults_to_be_listed():
    short = weights()
    del short["fc.bias"]
    assert find({"model": under("net.", short), "log": {"fc.weight": torch.ones(1)}}).key == "model.net"
    other = {"a": {"x": torch.ones(1)}, "b": {"y": torch.ones(1), "z": torch.ones(1)}}
    assert set(find(other).tensors) == {"y", "z"}


def test_a_key_that_is_not_there_is_named_with_those_that_are():
    content = {"state_dict": weights(0), "state_dict_ema": weights(1)}
    with pytest.raises(SettingsError, match=r"no tensors under 'ema' in x\.pt; known are state_dict, state_dict_ema"):
        find(content, key="ema")
    with pytest.raises(SettingsError, match=r"no tensors under 'modle' in x\.pt; did you mean 'model'"):
        find(under("model.", weights()), key="modle")
