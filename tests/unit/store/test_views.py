"""Some networks on some pairs are shown without computing anything."""

import shutil

import numpy as np
import pytest

from netsim.errors import SettingsError
from netsim.results.results import load_results
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, STAGES
from netsim.store.views import WHOLE, open_run, view, whole
from support.sweeps import TINY, new_run, run_all, tiny


@pytest.fixture(scope="module")
def grown(finished, tmp_path_factory) -> Run:
    """A store that was asked for three networks, then for two of them and another on more pairs."""
    url = tmp_path_factory.mktemp("grown") / "run"
    shutil.copytree(finished.url, url)
    networks = ["other=small:mobilenet@none", TINY["networks"][0]]
    run = new_run(str(url), tiny(networks=networks, pairs={"count": 48, "shard_size": 8}), label="more")
    run_all(run)
    return run


def test_a_view_has_the_networks_it_names_in_their_order(finished):
    shown = view(finished, ["shufflenet", "vgg"])
    results, every = load_results(shown), load_results(finished)
    assert results.networks == ("shufflenet", "vgg")
    chosen = np.ix_([2, 0], [2, 0])
    for kind in ("natural", "inverted"):
        np.testing.assert_array_equal(results.cells(kind), every.cells(kind)[chosen])
        np.testing.assert_array_equal(results.cells(kind, kind="se"), every.cells(kind, kind="se")[chosen])


def test_a_view_of_everything_is_the_run(finished):
    assert view(finished) is finished and view(finished, pairs=32) is finished


def test_networks_of_other_sweeps_can_be_shown(grown, finished):
    shown = view(grown, ["vgg", "resnet18"], pairs=32)
    assert shown.sweep.names == ("vgg", "resnet18")
    before = load_results(finished).cells("inverted")[:2, :2]
    np.testing.assert_array_equal(load_results(shown).cells("inverted"), before)


def test_fewer_pairs_need_their_own_sums_and_nothing_else(grown):
    shown = view(grown, pairs=16)
    missing = {stage.name: len(stage.missing(shown)) for stage in STAGES if stage.missing(shown)}
    assert set(missing) == {"aggregate", "control", "report"}
    run_all(shown, only=("aggregate", "control"))
    assert load_results(shown).n == 16 and AGGREGATE.missing(grown) == []


@pytest.mark.parametrize("pairs", [8, 20, 56])
def test_a_number_of_pairs_that_cannot_be_shown_is_refused(grown, pairs):
    message = rf"--pairs must be a multiple of 8 from 16 to 48, the pairs in .*, got {pairs}; `netsim extend"
    with pytest.raises(SettingsError, match=message):
        view(grown, pairs=pairs)


def test_an_unknown_network_is_refused(grown):
    with pytest.raises(SettingsError, match=r"no network 'othr' in .*; did you mean 'other'"):
        view(grown, ["vgg", "othr"])


@pytest.mark.parametrize("networks", [[], ["vgg"], ["vgg", "resnet18", "vgg"]])
def test_a_view_needs_two_different_networks(finished, networks):
    with pytest.raises(SettingsError, match=r"^--networks must be two or more different names, got "):
        view(finished, networks)


def test_the_whole_store_has_all_networks_and_the_most_pairs(grown):
    run = open_run(grown.url, WHOLE)
    assert set(run.sweep.names) == {"vgg", "resnet18", "shufflenet", "other"} and run.sweep.shards == 6
    assert run.sweep.identities(run.sweep.names) == whole(grown).sweep.identities(run.sweep.names)
    assert open_run(grown.url).sweep.id == grown.sweep.id and open_run(grown.url, "tiny").sweep.shards == 4
