"""Pairs are drawn with their images, from the images that the run began with."""

import shutil

import numpy as np
import pytest

from netsim.errors import StoreError
from netsim.images import load_images
from netsim.results.as_json import to_json
from netsim.results.results import load_results
from netsim.stages import inputs
from netsim.stages.work import compute_unit
from netsim.store.stages import CHECK, DRAW, INVERT, TRAIN
from support.sweeps import new_run, run_all, tiny
from tasks.prepare import prepare
from unit.stages.examples import photograph_settings


def test_labels_of_every_stored_pair_differ_and_images_are_those_of_the_source(finished):
    images = load_images("fashion-mnist", "test")
    seed, target = (finished.array(f"pairs/{kind}")[...] for kind in ("seed", "target"))
    assert (images.labels[seed] != images.labels[target]).all()
    np.testing.assert_array_equal(finished.array("images/target")[...], images.read(target))
    np.testing.assert_array_equal(finished.array("images/seed")[...], images.read(seed))


def test_a_longer_run_keeps_the_pairs_and_inversions_of_a_shorter_one(finished, tmp_path):
    run = new_run(str(tmp_path), tiny(pairs={"count": 48, "shard_size": 8}))
    run_all(run, only=("train", "draw"))
    INVERT.prepare(run, [("vgg", 1)])
    compute_unit(run, INVERT, "vgg", 1)
    for path in ("pairs/seed", "pairs/target"):
        np.testing.assert_array_equal(run.array(path)[:32], finished.array(path)[...])
    np.testing.assert_array_equal(run.array("inverted/vgg/image")[8:16], finished.array("inverted/vgg/image")[8:16])


def test_once_pairs_are_drawn_the_images_may_be_deleted(tmp_path):
    settings = photograph_settings(tmp_path / "images")
    run = prepare(settings, str(tmp_path / "run"))
    run_all(run, only=("check", "train", "draw"))
    shutil.rmtree(tmp_path / "images")
    inputs.kept_networks.clear()
    inputs.listed_images.cache_clear()
    inputs._readable.cache_clear()
    run_all(prepare(settings, run.url))
    results = load_results(run)
    assert np.isnan(results.summaries["a"].accuracy)  # its 1000 classes are not these two
    assert to_json(results)["accuracy"] == {"a": None, "b": None}


def test_images_that_changed_since_the_run_began_are_refused(tmp_path):
    run = prepare(photograph_settings(tmp_path / "images"), str(tmp_path / "run"))
    compute_unit(run, CHECK, "test", 0)
    compute_unit(run, TRAIN, "a", 0)
    (tmp_path / "images" / "a" / "0.png").unlink()
    inputs.listed_images.cache_clear()
    inputs._readable.cache_clear()
    DRAW.prepare(run, DRAW.missing(run))
    with pytest.raises(StoreError, match="have changed since this run began; changed images need a new --store"):
        compute_unit(run, DRAW, "pairs", 0)


def test_the_files_that_seeds_and_targets_were_drawn_from_are_recorded(tmp_path):
    run = prepare(photograph_settings(tmp_path / "images"), str(tmp_path / "run"))
    run_all(run, only=("check", "train", "draw"))
    names = load_images(run.settings.images.source, "test", 32).names
    for shard in range(2):
        facts, part = run.record("draw", "pairs", shard).facts, slice(4 * shard, 4 * shard + 4)
        for kind in ("seed", "target"):
            assert facts[f"{kind}_names"] == [names[index] for index in run.array(f"pairs/{kind}")[part]]


def test_images_without_files_have_no_names(finished):
    facts = finished.record("draw", "pairs").facts
    assert facts["seed_names"] is None and facts["target_names"] is None
