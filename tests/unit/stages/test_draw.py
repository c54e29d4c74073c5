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
from netsim.store.run import Run
from netsim.store.stages import CHECK, DRAW, INVERT, TRAIN
from support.sweeps import run_all, tiny
from tasks.prepare import prepare
from unit.stages.examples import photograph_settings


def test_labels_of_every_stored_pair_differ_and_images_are_those_of_the_source(finished):
    images = load_images("fashion-mnist", "test")
    seed, target = (finished.array(f"pairs/{kind}")[...] for kind in ("seed", "target"))
    assert (images.labels[seed] != images.labels[target]).all()
    np.testing.assert_array_equal(finished.array("images/target")[...], images.read(target))
    np.testing.assert_array_equal(finished.array("images/seed")[...], images.read(seed))


def test_a_longer_run_keeps_the_pairs_and_inversions_of_a_shorter_one(finished, tmp_path):
    run = Run.create(str(tmp_path), tiny(pairs={"count": 48, "shard_size": 8}))
    for stage in (TRAIN, DRAW):
        stage.prepare(run)
        for name, shard in stage.missing(run):
            compute_unit(run, stage, name, shard)
    INVERT.prepare(run)
    compute_unit(run, INVERT, "vgg", 1)
    for path in ("pairs/seed", "pairs/target"):
        np.testing.assert_array_equal(run.array(path)[:32], finished.array(path)[...])
    np.testing.assert_array_equal(run.array("inverted/vgg/image")[8:16], finished.array("inverted/vgg/image")[8:16])


def test_once_pairs_are_drawn_the_images_may_be_deleted(tmp_path):
    settings = photograph_settings(tmp_path / "images")
    run = Run.open(prepare(settings, str(tmp_path / "run")))
    for stage in (CHECK, TRAIN, DRAW):
        stage.prepare(run)
        for name, shard in stage.missing(run):
            compute_unit(run, stage, name, shard)
    shutil.rmtree(tmp_path / "images")
    inputs.load_as_recorded.cache_clear()
    inputs.listed_images.cache_clear()
    inputs._readable.cache_clear()
    run_all(Run.open(prepare(settings, run.url)))
    results = load_results(run)
    assert np.isnan(results.summaries["a"].accuracy)  # its 1000 classes are not these two
    assert to_json(results)["accuracy"] == {"a": None, "b": None}


def test_images_that_changed_since_the_run_began_are_refused(tmp_path):
    run = Run.open(prepare(photograph_settings(tmp_path / "images"), str(tmp_path / "run")))
    compute_unit(run, CHECK, "images", 0)
    compute_unit(run, TRAIN, "a", 0)
    (tmp_path / "images" / "a" / "0.png").unlink()
    inputs.listed_images.cache_clear()
    inputs._readable.cache_clear()
    DRAW.prepare(run)
    with pytest.raises(StoreError, match="have changed since this run began; changed images need a new --store"):
        compute_unit(run, DRAW, "pairs", 0)
