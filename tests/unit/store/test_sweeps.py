"""A sweep is named by what it compares and shows, and survives the store."""

import json
from dataclasses import replace

import pytest

from netsim.errors import SettingsError, StoreError
from netsim.settings import parse_settings
from netsim.store.run import Run, all_networks, all_sweeps
from netsim.store.sweeps import StoredNetwork, Sweep
from support.sweeps import new_run, tiny, unlisted

NETWORKS = ["small:vgg", "small:resnet18@none"]


def sweep(content: str = "0" * 64, **changes) -> Sweep:
    return unlisted(parse_settings({"networks": NETWORKS} | changes), content)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": {"source": "folder:/elsewhere"}},
        {"images": {"unreadable": "skip"}},
        {"inversion": {"iterations": 2000}},
        {"networks": [{"reference": "small:vgg", "name": "vgg"}, "small:resnet18@none"]},
    ],
)
def test_how_settings_are_written_does_not_change_the_name_of_a_sweep(changes):
    assert sweep(**changes).id == sweep().id


def test_what_a_sweep_compares_and_shows_changes_its_name():
    changes = [
        {"networks": NETWORKS[::-1]},
        {"networks": ["x=small:vgg", NETWORKS[1]]},
        {"networks": [{"reference": "small:vgg", "group": "g"}, NETWORKS[1]]},
        {"observers": ["seer=small:vgg@none"]},
        {"pairs": {"count": 64}},
        {"pairs": {"until": {"half_width": 0.1}}},
        {"pairs": {"until": {"half_width": 0.2}}},
        {"inversion": {"tolerance": 0.2}},
        {"inversion": {"iterations": 5}},
    ]
    names = {sweep(**change).id for change in changes} | {sweep().id, sweep("1" * 64).id}
    assert len(names) == len(changes) + 2
    assert replace(sweep(), label="other").id == sweep().id


def test_a_sweep_reads_back_as_it_was(tmp_path):
    settings = tiny(observers=["seer=small:vgg@none"])
    run = new_run(str(tmp_path / "run"), settings, label="mine")
    (read,) = all_sweeps(run.files)
    assert read == run.sweep and read.label == "mine" and read.asked and read.settings == settings
    assert Run.open(run.url).sweep == run.sweep == Run.open(run.url, "mine").sweep == Run.open(run.url, read.id).sweep


def test_a_look_has_fewer_pairs_and_stays_the_same_sweep(tmp_path):
    settings = tiny(pairs={"count": 96, "shard_size": 8, "until": {"half_width": 0.1}})
    run = new_run(str(tmp_path / "run"), settings)
    look = run.sweep.at_look(9)
    assert (look.shards, look.settings.pairs.count, look.at_most) == (9, 72, 96)
    assert (look.id, look.given_settings, look.at_look(10).given_settings) == (run.sweep.id, settings, settings)
    run.seen_by(look).ask()
    assert run.latest().sweep == look and all_sweeps(run.files) == [look]


def test_networks_are_listed_with_how_they_are_trained(tmp_path):
    run = new_run(str(tmp_path / "run"), tiny(training={"epochs": 3}))
    by_name = {network.name: network for network in all_networks(run.files)}
    assert set(by_name) == {"vgg", "resnet18", "shufflenet"}
    assert by_name["vgg"].training.epochs == 3 and by_name["resnet18"].training is None
    assert StoredNetwork.from_json(by_name["vgg"].to_json()) == by_name["vgg"]


def test_the_sweep_that_was_run_last_is_opened(tmp_path):
    url = str(tmp_path / "run")
    first, second = (new_run(url, tiny(networks=names), label=label) for names, label in (
        (["small:vgg@none", "small:wrn2@none"], "first"), (["small:vgg@none", "small:wrn4@none"], "second")
    ))  # fmt: skip
    assert Run.open(url).sweep.id == second.sweep.id
    new_run(url, first.settings, label="first")
    assert Run.open(url).sweep.id == first.sweep.id and len(all_sweeps(first.files)) == 2
    with pytest.raises(SettingsError, match=r"no sweep 'secnd' in .*; did you mean 'second'"):
        Run.open(url, "secnd")


def test_two_names_of_one_network_are_one_network_in_the_store(tmp_path):
    run = new_run(str(tmp_path / "run"), tiny(networks=["a=small:vgg@none", "b=small:vgg@none", "small:wrn2@none"]))
    assert run.sweep.names == ("a", "wrn2") and run.sweep.shown == {"a": "a", "b": "a", "wrn2": "wrn2"}
    assert [network.name for network in run.sweep.networks] == ["a", "a", "wrn2"]
    assert run.sweep.stored_name("b") == "a"
    with pytest.raises(SettingsError, match="no network 'c' in this run"):
        run.sweep.stored_name("c")


def test_a_name_that_another_network_has_is_refused_and_nothing_is_stored(tmp_path):
    url = str(tmp_path / "run")
    new_run(url, tiny(networks=["mine=small:vgg@none", "small:wrn2@none"]))
    with pytest.raises(
        StoreError, match=r"the name mine is taken in .* by another network: small:vgg@none there and small:wrn4@none"
    ):
        new_run(url, tiny(networks=["mine=small:wrn4@none", "small:wrn2@none"]))
    with pytest.raises(StoreError, match="the name Mine is taken"):  # one file on some systems
        new_run(url, tiny(networks=["Mine=small:wrn4@none", "small:wrn2@none"]))
    assert len(all_sweeps(Run.open(url).files)) == 1 and len(all_networks(Run.open(url).files)) == 2


def test_a_network_that_another_process_has_just_added_is_refused_too(tmp_path):
    """Between the look at the store and the write, another one took the name."""
    run = new_run(str(tmp_path / "run"), tiny(networks=["mine=small:vgg@none", "small:wrn2@none"]))
    late = replace(run.sweep, networks=(replace(run.sweep.networks[0], identity="other"), run.sweep.networks[1]))
    with pytest.raises(StoreError, match="the name mine is taken"):
        Run.create(run.url, late)


def test_other_training_of_a_name_is_told_by_setting(tmp_path):
    new_run(str(tmp_path / "run"), tiny())
    with pytest.raises(StoreError, match=r"another network: training.epochs is 1 there and 2 here; rename yours"):
        new_run(str(tmp_path / "run"), tiny(training={"epochs": 2, "batch_size": 256}))


@pytest.mark.parametrize("folder", ["sweeps", "networks"])
def test_a_damaged_document_is_named(tmp_path, folder):
    run = new_run(str(tmp_path / "run"), tiny())
    path = next((tmp_path / "run" / folder).iterdir())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": "1"}))
    with pytest.raises(StoreError, match=rf"{folder}/.*json is damaged or was edited"):
        (all_sweeps if folder == "sweeps" else all_networks)(run.files)
