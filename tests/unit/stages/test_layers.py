"""CKA of layers is that of their activations, taken by hand; results are kept by key; wrong names are refused."""

import csv
import io
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from netsim.errors import NetworkError, SettingsError, StoreError
from netsim.networks import Network
from netsim.report.page import write_layers
from netsim.results.layers import LayerSpec, find_spec, finished_layers, keep_spec, layer_stage, load_layers
from netsim.similarity.blocked import blocked_similarity
from netsim.stages import inputs
from netsim.stages.layer_axes import Axes
from netsim.stages.layers import flat_rows, layer_grams, layer_spec
from netsim.stages.work import compute_unit
from netsim.store.run import Run
from netsim.store.views import view
from tasks.prepare import prepare_layers


@pytest.fixture
def run(finished, tmp_path) -> Run:
    shutil.copytree(finished.url, tmp_path / "run")
    return Run.open(tmp_path / "run")


def compute(run: Run, spec) -> None:
    keep_spec(run, spec)
    for name, shard in layer_stage(spec).missing(run):
        compute_unit(run, layer_stage(spec), name, shard)


def by_hand(run: Run, set_name: str, network: str, layer: str, pooled: bool) -> list[np.ndarray]:
    """Compute a layer's activations for every shard, by running the blocks of a ResNet one after the other."""
    body = inputs.network(run, network).body
    rows = []
    for shard in range(run.settings.pairs.shards):
        x = (inputs.set_images(run, set_name, shard)[0] - 0.286) / 0.353
        with torch.no_grad():
            x = body.maxpool(body.relu(body.bn1(body.conv1(x))))
            for name in ("layer1", "layer2", "layer3", "layer4"):
                x = getattr(body, name)(x)
                if name == layer:
                    break
        rows.append((x.mean(dim=(2, 3)) if pooled else x.flatten(1)).numpy())
    return rows


@pytest.mark.parametrize("activations", ["pooled", "flattened"])
def test_cka_of_layers_is_that_of_blocks_of_their_activations(run, activations):
    spec = layer_spec(run, ["resnet18", "resnet18"], ["layer?"], activations)
    assert spec.layers == (("layer1", "layer2", "layer3", "layer4"),) * 2
    compute(run, spec)
    by_set = load_layers(run, spec)
    assert list(by_set) == ["natural", "inverted/resnet18"]
    for set_name, similarity in by_set.items():
        sides = {
            layer: by_hand(run, set_name, "resnet18", layer, activations == "pooled") for layer in ("layer1", "layer3")
        }
        shards = [dict(zip(sides, rows, strict=True)) for rows in zip(*sides.values(), strict=True)]
        expected = blocked_similarity(shards, [("layer1", "layer3")])["layer1", "layer3"]
        assert similarity.cka[0, 2] == pytest.approx(expected.cka, abs=1e-4)
        assert similarity.se[0, 2] == pytest.approx(expected.estimate.se, rel=1e-2)
        np.testing.assert_allclose(np.diag(similarity.cka), 1)
        np.testing.assert_allclose(similarity.cka, similarity.cka.T)


def test_layers_of_two_networks_are_rows_and_columns_on_three_sets(run, tmp_path):
    spec = layer_spec(run, ["resnet18", "vgg"], ["layer[12]", "features.?"], "pooled")
    compute(run, spec)
    by_set = load_layers(run, spec)
    assert list(by_set) == ["natural", "inverted/resnet18", "inverted/vgg"]
    assert by_set["natural"].cka.shape == (2, len(spec.layers[1])) and np.isfinite(by_set["natural"].cka).all()
    assert finished_layers(run) == {spec.key: spec}
    others = [name for name in run.settings.names if name != "resnet18"]
    assert not finished_layers(view(run, others)) and finished_layers(view(run, ["vgg", "resnet18"], 16))
    svg, png, pdf, table = write_layers(run, spec, tmp_path / "out").values()
    assert pdf.read_bytes().startswith(b"%PDF")
    assert svg.read_text().count("features.3") == 3 and png.read_bytes().startswith(b"\x89PNG")
    assert spec.key[:6] in table.name  # so that other layers do not overwrite it
    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    assert (lines[1]["network"], lines[1]["layer"], lines[1]["other_network"]) == ("resnet18", "layer1", "vgg")
    assert len(lines) == 3 * by_set["natural"].cka.size
    assert float(lines[1]["cka_unbiased"]) == by_set["natural"].cka[0, 1]


def test_finished_shards_are_kept_and_other_activations_have_another_key(run):
    spec = layer_spec(run, ["resnet18", "resnet18"], ["layer1"], "pooled")
    keep_spec(run, spec)
    stage = layer_stage(spec)
    assert len(stage.missing(run)) == 2 * 4
    compute_unit(run, stage, *stage.missing(run)[0])
    assert len(stage.missing(run)) == 2 * 4 - 1 and not finished_layers(run)
    with pytest.raises(StoreError, match="shard 1 is not done"):
        load_layers(run, spec)
    keys = {layer_spec(run, ["resnet18"] * 2, ["layer1"], kind).key for kind in ("pooled", "flattened")}
    assert len(keys) == 2 and spec.key in keys
    assert prepare_layers(run, ["resnet18", "resnet18"], ["layer1"], "pooled") == spec.key


def test_a_module_that_runs_twice_counts_as_it_ran_last_and_in_place_changes_do_not_reach_back():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu, self.fc = nn.Linear(16, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(self.relu(self.relu(self.first(x.flatten(1))) - 0.1))

    model, images = Twice(), torch.rand(5, 1, 4, 4)
    network = Network(model, images, name="twice", reference="x")
    first, relu = layer_grams(network, images, ["first", "relu"], "pooled")
    with torch.no_grad():
        before = model.first(images.flatten(1))
        after = (before.relu() - 0.1).relu()
    for gram, rows in ((first, before), (relu, after)):
        centred = (rows - rows.mean(dim=0)).numpy()
        np.testing.assert_allclose(gram, centred @ centred.T, atol=1e-5)


def test_pooled_activations_are_means_over_positions_or_tokens():
    maps, tokens = torch.rand(2, 3, 4, 5), torch.rand(2, 7, 3)
    assert torch.equal(flat_rows(maps, "pooled", Axes(0, 1)), maps.mean(dim=(2, 3)))
    assert torch.equal(flat_rows(tokens, "pooled", Axes(0, 2)), tokens.mean(dim=1))
    assert torch.equal(flat_rows(tokens, "pooled", Axes(0, 1)), tokens.mean(dim=2))
    channels_last = torch.rand(2, 4, 5, 6)
    assert torch.equal(flat_rows(channels_last, "pooled", Axes(0, 3)), channels_last.mean(dim=(1, 2)))
    assert torch.equal(flat_rows(tokens, "pooled", Axes(1, 2)), tokens.mean(dim=0))
    assert flat_rows(maps, "flattened", Axes(0, 1)).shape == (2, 60)
    assert torch.equal(flat_rows(tokens, "flattened", Axes(1, 2)), tokens.movedim(1, 0).flatten(1))
    assert torch.equal(flat_rows(tokens[..., 0], "pooled", Axes(0, 1)), tokens[..., 0])


def test_a_layer_without_one_row_per_image_is_refused():
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.window, self.fc = nn.Linear(4, 4), nn.Linear(16, 3)

        def forward(self, x):
            return self.fc(self.window(x.reshape(-1, 4)).reshape(len(x), 16))

    network = Network(Windows(), torch.rand(5, 1, 4, 4), name="windows", reference="x")
    with pytest.raises(
        NetworkError, match="layer window of windows must have an axis of images, got shape 8 x 4 for 2"
    ):
        layer_grams(network, torch.rand(5, 1, 4, 4), ["window"], "pooled")


def test_layers_that_cannot_be_compared_are_left_out_with_a_reason_and_the_others_go_on(run):
    body = inputs.network(run, "resnet18").body
    body.add_module("idle", nn.ReLU())
    try:
        spec = layer_spec(run, ["resnet18", "vgg"], ["layer1", "idle", "features.0"], "pooled")
        with pytest.raises(NetworkError, match="layer idle of resnet18 is missing, because the layer does not run"):
            layer_spec(run, ["resnet18", "vgg"], ["idle", "features.0"], "pooled")
    finally:
        del body.idle
    assert spec.layers == (("layer1",), ("features.0",))
    assert spec.refused == ({"idle": "is missing, because the layer does not run in a forward pass"}, {})
    compute(run, spec)
    assert find_spec(run, spec.key) == spec and load_layers(run, spec)["natural"].cka.shape == (1, 1)
    assert spec.key == LayerSpec(spec.networks, spec.layers, "pooled").key  # as in stores of earlier versions


def test_activations_that_vary_by_rounding_only_have_no_similarity():
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dead, self.fc = nn.Identity(), nn.Linear(16, 3)

        def forward(self, x):
            jitter = (x.flatten(1) > 0.5).float() * 2**-24
            return self.fc(x.flatten(1)) + 0 * self.dead(0.5 + jitter).sum()

    images = torch.rand(6, 1, 4, 4)
    network = Network(Dead(), images, name="dead", reference="x")
    [gram] = layer_grams(network, images, ["dead"], "pooled")
    assert (gram == 0).all()


@pytest.mark.parametrize(
    ("networks", "patterns", "activations", "message"),
    [
        (["resnet18", "vgg"], ["layr1"], "pooled", "no layer matches 'layr1'; did you mean 'layer1'"),
        (["resnet18", "vgg"], ["layer1"], "pooled", "no layer of vgg matches layer1; it has features"),
        (["resnet81", "vgg"], ["layer1"], "pooled", "no network 'resnet81' in this run; did you mean 'resnet18'"),
        (["resnet18"], ["layer1"], "pooled", "networks must be two, got 1. Give one twice"),
        (
            ["resnet18", "resnet18"],
            ["layer1"],
            "poled",
            "must be pooled or flattened, got 'poled'; did you mean 'pooled'",
        ),
    ],
)
def test_an_unknown_network_layer_or_kind_is_one_clear_line(finished, networks, patterns, activations, message):
    with pytest.raises(SettingsError, match=message):
        layer_spec(finished, networks, patterns, activations)


def test_a_layer_that_returns_no_tensor_or_does_not_run_is_named():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.idle, self.fc = nn.LSTM(4, 3, batch_first=True), nn.ReLU(), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.lstm(x.flatten(1, 2))[0][:, -1])

    images = torch.rand(4, 1, 4, 4)
    network = Network(Odd(), images, name="odd", reference="x")
    with pytest.raises(NetworkError, match="layer lstm of odd must have one tensor, got 3 in a tuple; choose another"):
        layer_grams(network, images, ["lstm"], "pooled")
    with pytest.raises(NetworkError, match="layer idle of odd is missing, because the layer does not run"):
        layer_grams(network, images, ["idle"], "pooled")
