"""Preparation of flows."""

import subprocess
import sys

import numpy as np
import pytest

from netsim.errors import DataError, SettingsError, StoreError
from netsim.planning import preflight
from netsim.store.quarantine import quarantine, quarantined
from netsim.store.run import Run
from support.sweeps import new_run, run_all, tiny
from tasks.prepare import checked, prepare, prepare_layers, prepare_measures


@pytest.fixture
def drawn(tmp_path) -> Run:
    """A run whose networks are recorded and whose pairs are drawn."""
    run = new_run(str(tmp_path / "run"), tiny(networks=["small:vgg@none", "small:shufflenet@none"]))
    run_all(run, only=("train", "draw"))
    return run


def fail(*_: object, **__: object) -> None:
    raise AssertionError("the settings were checked")


def test_settings_are_checked_until_networks_and_pairs_are_in_the_store(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "preflight", fail)
    assert prepare(drawn.settings, drawn.url).url == drawn.url
    with pytest.raises(AssertionError, match="the settings were checked"):
        prepare(drawn.settings, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("until", [{}, {"until": {"half_width": 0.1}}])
def test_the_flow_of_a_command_relies_on_its_checks_of_the_same_sweep(until, tmp_path, monkeypatch):
    pairs = {"count": 64, "shard_size": 4} | until
    settings = tiny(networks=["small:vgg@none", "small:shufflenet@none"], pairs=pairs)
    run = prepare(settings, str(tmp_path / "run"))
    monkeypatch.setattr(preflight, "preflight", fail)
    with checked(run):
        assert prepare(settings, run.url).sweep.id == run.sweep.id
        with pytest.raises(AssertionError, match="the settings were checked"):
            prepare(tiny(networks=["small:vgg@none", "small:resnet18@none"], pairs=pairs), run.url)
    with pytest.raises(AssertionError, match="the settings were checked"):
        prepare(settings, run.url)


def test_quarantined_shards_are_released_for_the_next_attempt_of_their_flow(drawn, finished):
    quarantine(drawn, ("invert", "vgg", 0), {"error": "none"})
    prepare(drawn.settings, drawn.url)
    assert quarantined(drawn) == {}


def test_measures_need_known_names_and_representations(drawn):
    with pytest.raises(SettingsError, match="ckaa"):
        prepare_measures(drawn, ["ckaa"])
    with pytest.raises(StoreError, match="is not finished: 16 of 16 shards of embed are missing"):
        prepare_measures(drawn, ["rsa_pearson"])


def test_layers_need_inversions(drawn):
    with pytest.raises(StoreError, match="is not finished: 8 of 8 shards of invert are missing"):
        prepare_layers(drawn, ["vgg"], ["*"], "pooled")


def test_the_flow_process_imports_no_torch():
    """It would take seconds and half a gigabyte that only workers need."""
    code = "import sys, tasks.verbs, tasks.dispatch, tasks.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_sweep_whose_networks_were_all_trained_is_resumed_without_torch(tmp_path):
    pixels, labels = np.random.default_rng(0).integers(256, size=(12, 28, 28), dtype=np.uint8), np.arange(12) % 3
    np.savez(tmp_path / "images.npz", images=pixels, labels=labels)
    settings = tiny(
        images={"source": f"npz:{tmp_path / 'images.npz'}"},
        networks=["small:vgg", "small:shufflenet"],
        pairs={"count": 8, "shard_size": 4},
    )
    run = new_run(str(tmp_path / "run"), settings)
    run_all(run, only=("train", "draw"))
    code = """
import json
import sys
from netsim.settings import parse_settings
from tasks.prepare import prepare
run = prepare(parse_settings(json.loads(sys.argv[1])), sys.argv[2])
assert run.sweep.id == sys.argv[3]
sys.exit("torch" in sys.modules)
"""
    arguments = [settings.model_dump_json(), run.url, run.sweep.id]
    assert subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode == 0


RULE = {"count": 80, "shard_size": 8, "until": {"half_width": 0.1}}


def test_a_sweep_that_may_stop_early_begins_with_its_first_look(tmp_path):
    settings = tiny(networks=["small:vgg@none", "small:shufflenet@none"], pairs=RULE)
    run = prepare(settings, str(tmp_path / "run"))
    assert (run.sweep.shards, run.sweep.at_most, run.sweep.given_settings) == (8, 80, settings)
    assert Run.open(run.url).sweep == run.sweep == prepare(settings, run.url).sweep


def test_a_rule_that_compares_a_network_with_itself_is_refused(tmp_path):
    rule = RULE | {"until": {"differ": ["vgg", "again"]}}
    settings = tiny(networks=["small:vgg@none", "again=small:vgg@none"], pairs=rule)
    with pytest.raises(SettingsError, match=r"differ must be two networks, got vgg and again, which are one"):
        prepare(settings, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_too_few_images_for_all_pairs_are_told_before_the_first_look(tmp_path):
    with pytest.raises(DataError, match="80000 pairs require as many different targets, got 2000 images"):
        prepare(tiny(networks=["small:vgg@none", "a=small:vgg@none"], pairs=RULE | {"count": 80_000}), str(tmp_path))
