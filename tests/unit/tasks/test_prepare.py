"""Preparation of flows."""

import subprocess
import sys

import pytest

from netsim.errors import SettingsError, StoreError
from netsim.planning import preflight
from netsim.store.quarantine import quarantine, quarantined
from netsim.store.run import Run
from support.sweeps import run_all, tiny
from tasks.prepare import prepare, prepare_layers, prepare_measures


@pytest.fixture
def drawn(tmp_path) -> Run:
    """A run whose networks are recorded and whose pairs are drawn."""
    run = Run.create(str(tmp_path / "run"), tiny(networks=["small:vgg@none", "small:shufflenet@none"]))
    run_all(run, only=("train", "draw"))
    return run


def fail(*_: object) -> None:
    raise AssertionError("the settings were checked")


def test_settings_are_checked_until_networks_and_pairs_are_in_the_store(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "preflight", fail)
    assert prepare(drawn.settings, drawn.url) == drawn.url
    with pytest.raises(AssertionError, match="the settings were checked"):
        prepare(drawn.settings, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_quarantined_shards_are_released_for_the_next_attempt_of_their_flow(drawn, finished):
    quarantine(drawn, ("invert", "vgg", 0), {"error": "none"})
    prepare(drawn.settings, drawn.url)
    assert quarantined(drawn) == {}


def test_measures_need_known_names_and_representations(drawn):
    with pytest.raises(SettingsError, match="ckaa"):
        prepare_measures(drawn.url, ["ckaa"])
    with pytest.raises(StoreError, match="is not finished: 12 of 12 shards of embed are missing"):
        prepare_measures(drawn.url, ["rsa_pearson"])


def test_layers_need_inversions(drawn):
    with pytest.raises(StoreError, match="is not finished: 8 of 8 shards of invert are missing"):
        prepare_layers(drawn.url, ["vgg"], ["*"], "pooled")


def test_the_flow_process_imports_no_torch():
    """It would take seconds and half a gigabyte that only workers need."""
    code = "import sys, tasks.verbs, tasks.dispatch, tasks.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
