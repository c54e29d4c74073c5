"""Rows of the matrices are sums over all shards, of values that belong together."""

import json

import pytest

from netsim.errors import StoreError
from netsim.results.results import load_results
from netsim.similarity import cka
from netsim.stages.work import compute_unit
from netsim.store.records import sealed
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, TRAIN
from support.sweeps import new_run, run_all, tiny, unit_of


def test_matrices_are_cka_of_the_stored_representations(finished):
    """The sums of all stages agree with one call on all representations at once."""
    results = load_results(finished)
    for kind in ("natural", "inverted"):
        for i, through in enumerate(results.networks):
            set_name = "natural" if kind == "natural" else f"inverted/{through}"
            first = finished.array(f"representations/{set_name}/{through}")[...]
            for j, observer in enumerate(results.networks):
                second = finished.array(f"representations/{set_name}/{observer}")[...]
                for estimator in ("biased", "unbiased"):
                    expected = pytest.approx(cka.linear_cka(first, second, estimator), abs=1e-10)
                    assert results.cells(kind, estimator)[i, j] == expected


def test_identical_networks_have_inverted_cka_one(tmp_path):
    settings = tiny(networks=["a=small:vgg@none", "b=small:vgg@none", "small:resnet18@none"])
    run = new_run(str(tmp_path), settings)
    run_all(run)
    inverted = load_results(run).cells("inverted")
    assert inverted[0, 1] == pytest.approx(1, abs=1e-9) and inverted[1, 0] == pytest.approx(1, abs=1e-9)
    assert inverted[0, 2] < 0.999


def test_a_row_requires_every_shard(finished, tmp_path):
    run = new_run(str(tmp_path), finished.settings)
    missing = r"is not finished: 3 of 3 shards of train are missing, the first train \S+ shard 0; resume with `netsim"
    with pytest.raises(StoreError, match=missing):
        load_results(run)
    with pytest.raises(StoreError, match=r"embed natural shard 0 by \w+ is not done"):
        compute_unit(run, AGGREGATE, *AGGREGATE.missing(run)[0])


def test_shards_computed_with_other_weights_are_not_mixed(tmp_path):
    """A network is trained again, with other weights, after its record was removed for damage."""
    run = new_run(str(tmp_path / "run"), tiny())
    run_all(run)
    compute_unit(run, TRAIN, "vgg", 0)
    load_results(run)  # the same weights again
    record = json.loads(run.files.get("commits/train/vgg/00000.json"))
    record["facts"]["weights_hash"] = "of another training"
    del record["seal"]
    run.files.put("commits/train/vgg/00000.json", json.dumps(sealed(record)).encode())
    run = Run.open(run.url)
    with pytest.raises(
        StoreError, match=r"invert vgg shard 0 in .* was computed with other weights of vgg; `netsim verify --repair "
    ):
        load_results(run)
    with pytest.raises(StoreError, match=r"embed natural/\w+ shard 0 in .* was computed with other weights"):
        compute_unit(run, AGGREGATE, *unit_of(run, AGGREGATE, "natural/vgg")[1:])
