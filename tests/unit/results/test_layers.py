"""A comparison of layers has a name in the store, and is read from the sums of its shards."""

import io
import json
import re
import shutil

import numpy as np
import pytest

from netsim.errors import StoreError
from netsim.results.layers import (
    LayerSimilarity,
    LayerSpec,
    find_spec,
    keep_spec,
    layer_file,
    layer_stage,
    layers_json,
    load_layers,
)
from netsim.stages.work import StageResult, commit
from netsim.store.run import Run

SPEC = LayerSpec(("resnet18", "vgg"), (("layer1", "layer2"), ("features.0",)), "pooled")


@pytest.fixture
def run(finished, tmp_path) -> Run:
    shutil.copytree(finished.url, tmp_path / "run")
    return Run.open(tmp_path / "run")


def store(run: Run, spec: LayerSpec, *, broken: int | None = None) -> dict[str, np.ndarray]:
    """Commit made-up HSIC of three layers on every shard of every set; return it by set, (G, L, L).

    Shard `broken` is not an npz file.
    """
    rng, stored = np.random.default_rng(0), {}
    for name, shards in layer_stage(spec).shards(run.sweep).items():
        factors = rng.random((shards, 3, 10))
        hsic = stored[name.partition("/")[2]] = factors @ factors.swapaxes(1, 2)
        for shard in range(shards):
            buffer = io.BytesIO()
            np.savez(buffer, hsic=hsic[shard], magnitudes=np.ones(3))
            files = {layer_file(name, shard): b"text" if shard == broken else buffer.getvalue()}
            commit(run, layer_stage(spec), name, shard, StageResult(files=files), 1.0)
    return stored


def test_the_key_of_a_spec_stays_what_stores_have():
    assert SPEC.key == "9afb4c1d9ae8"
    others = {
        LayerSpec(SPEC.networks, SPEC.layers, "flattened").key,
        LayerSpec(SPEC.networks, SPEC.layers[::-1], "pooled").key,
        LayerSpec(SPEC.networks[::-1], SPEC.layers, "pooled").key,
    }
    assert len(others) == 3 and SPEC.key not in others


def test_sets_are_natural_and_inverted_through_each_network_once():
    assert SPEC.sets == ["natural", "inverted/resnet18", "inverted/vgg"]
    assert LayerSpec(("vgg", "vgg"), SPEC.layers, "pooled").sets == ["natural", "inverted/vgg"]


def test_a_stored_spec_reads_back_as_it_was(run):
    keep_spec(run, SPEC)
    assert find_spec(run, SPEC.key) == SPEC


def test_the_stage_has_every_shard_of_every_set(run):
    assert layer_stage(SPEC).shards(run.sweep) == {f"{SPEC.key}/{name}": 4 for name in SPEC.sets}
    assert layer_file(f"{SPEC.key}/natural", 7) == f"layers/{SPEC.key}/natural/00007.npz"


def test_similarity_is_the_ratio_of_summed_hsic_with_its_jackknife_error(run):
    stored = store(run, SPEC)
    similarities = load_layers(run, SPEC)
    assert list(similarities) == SPEC.sets

    def cka(hsic: np.ndarray) -> np.ndarray:
        total = hsic.sum(axis=0)
        return (total / np.sqrt(np.outer(np.diag(total), np.diag(total))))[:2, 2:]

    for name, hsic in stored.items():
        replicates = np.array([cka(np.delete(hsic, shard, axis=0)) for shard in range(4)])
        error = np.sqrt(3 / 4 * ((replicates - replicates.mean(axis=0)) ** 2).sum(axis=0))
        np.testing.assert_allclose(similarities[name].cka, cka(hsic), rtol=1e-12)
        np.testing.assert_allclose(similarities[name].se, error, rtol=1e-9)
        assert similarities[name].cka.shape == (2, 1)


def test_a_shard_that_is_missing_or_no_npz_file_is_named(run):
    with pytest.raises(StoreError, match=rf"layers {SPEC.key}/natural shard 0 is not done"):
        load_layers(run, SPEC)
    store(run, SPEC, broken=2)
    path = layer_file(f"{SPEC.key}/natural", 2)
    with pytest.raises(StoreError, match=rf"{re.escape(path)} in .* is damaged .*; `netsim verify --repair"):
        load_layers(run, SPEC)


def test_json_has_layers_by_set_and_null_where_similarity_is_undefined():
    spec = LayerSpec(SPEC.networks, SPEC.layers, "pooled", refused=({}, {"features.1": "is constant"}))
    cells = LayerSimilarity(cka=np.array([[0.5], [np.nan]]), se=np.array([[0.25], [np.nan]]))
    assert json.loads(json.dumps(layers_json(spec, {"natural": cells}), allow_nan=False)) == {
        "networks": ["resnet18", "vgg"],
        "layers": [["layer1", "layer2"], ["features.0"]],
        "activations": "pooled",
        "left_out": [{}, {"features.1": "is constant"}],
        "sets": {"natural": {"cka_unbiased": [[0.5], [None]], "se": [[0.25], [None]]}},
    }
