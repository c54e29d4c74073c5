"""Dropping removes what only a network or a sweep needed, and a store without it is as if it had never been there."""

import shutil
from pathlib import Path

import pytest

from netsim.errors import SettingsError
from netsim.results.as_json import to_json
from netsim.results.layers import keep_spec, layer_stage
from netsim.results.results import load_results
from netsim.stages.layers import layer_spec
from netsim.stages.work import compute_unit
from netsim.store.drop import drop, plan_drop
from netsim.store.records import commit_path
from netsim.store.run import Run, all_networks, all_sweeps
from netsim.store.stages import EMBED
from netsim.verify import verify
from support.sweeps import TINY, new_run, run_all, tiny, unit_of

MORE = [*TINY["networks"], "extra=small:mobilenet@none"]


@pytest.fixture
def grown(finished, tmp_path) -> Run:
    """A run of three networks, then of a fourth too, which then was looked at in one cohort with another."""
    shutil.copytree(finished.url, tmp_path / "run")
    run = new_run(str(tmp_path / "run"), tiny(networks=MORE), label="more")
    run_all(run, only=("train", "draw", "invert"))
    run.forget(*unit_of(run, EMBED, "natural", 1))  # computed again together with the fourth
    run_all(run)
    return run


def files(url: str) -> dict[str, bytes]:
    """Read all files of a store but those that name what it was asked."""
    paths = [path for path in Path(url).rglob("*") if path.is_file()]
    return {str(path.relative_to(url)): path.read_bytes() for path in paths}


def test_what_only_a_network_needed_is_removed_and_nothing_else(grown, finished):
    before = files(grown.url)
    planned = plan_drop(grown.url, ["extra"], ["more"])
    assert planned.networks == ("extra",) and [sweep.label for sweep in planned.sweeps] == ["more"]
    drop(grown.url, planned)
    after = files(grown.url)
    assert set(before) - set(after) == set(planned.paths)
    assert not [path for path in after if "extra" in path]
    again = commit_path(*unit_of(finished, EMBED, "natural", 1))  # see the fixture
    kept = {path: data for path, data in files(finished.url).items() if path != again}
    assert {path: after[path] for path in kept} == kept and again in after


def test_the_rest_is_whole_and_shows_what_it_showed(grown, finished):
    drop(grown.url, plan_drop(grown.url, ["extra"], ["more"]))
    run = Run.open(grown.url)
    assert verify(run) == [] and run.sweep.id == finished.sweep.id
    # a shard was computed again, which may have taken another time
    shown, before = (to_json(load_results(each)) | {"provenance": None} for each in (run, finished))
    assert shown == before
    assert [network.name for network in all_networks(run.files)] == sorted(finished.sweep.names)


def test_a_network_that_was_dropped_comes_back_with_the_same_bits(grown):
    before = to_json(load_results(grown))
    drop(grown.url, plan_drop(grown.url, ["extra"], ["more"]))
    again = new_run(grown.url, tiny(networks=MORE), label="more")
    computed = run_all(again)
    assert computed["invert"] == 4 and computed["train"] == 1
    after = to_json(load_results(again))
    assert {key for key in after if after[key] != before[key]} <= {"provenance"}


def test_another_network_of_the_name_of_a_dropped_one_is_not_taken_for_it(grown):
    drop(grown.url, plan_drop(grown.url, ["extra"], ["more"]))
    other = new_run(grown.url, tiny(networks=[*TINY["networks"], "extra=small:wrn2@none"]))
    assert run_all(other)["embed"] == 24  # each set was looked at by the one that was dropped
    load_results(other)
    assert verify(other) == []


def test_a_network_that_a_sweep_shows_is_kept_and_the_sweep_is_named(grown):
    with pytest.raises(
        SettingsError, match=rf"^extra must not be dropped while .* got more \({grown.sweep.id}\); drop"
    ):
        plan_drop(grown.url, ["extra"])
    with pytest.raises(SettingsError, match=r"vgg must not be dropped while a sweep shows it, got tiny \("):
        plan_drop(grown.url, ["vgg"], ["more"])


def test_a_sweep_alone_is_forgotten_with_its_report_and_no_value_of_a_network(grown, finished):
    planned = plan_drop(grown.url, [], ["more"])
    assert planned.networks == ()
    kinds = {path.split("/")[0] for path in planned.paths}
    assert kinds == {"sweeps", "commits", "results", "report"}
    drop(grown.url, planned)
    assert [sweep.id for sweep in all_sweeps(grown.files)] == [finished.sweep.id]
    assert run_all(new_run(grown.url, tiny(networks=MORE)))["report"] == 1


def test_comparisons_of_layers_with_a_dropped_network_go_and_others_stay(grown):
    for names in (["vgg", "extra"], ["vgg", "resnet18"]):
        spec = layer_spec(grown, names, ["*"], "flattened")
        keep_spec(grown, spec)
        for set_name in spec.sets:
            compute_unit(grown, layer_stage(spec), f"{spec.key}/{set_name}", 0)
    stays = spec.key
    drop(grown.url, plan_drop(grown.url, ["extra"], ["more"]))
    left = [path for path in files(grown.url) if "layers/" in path]
    assert len([path for path in left if f"layers/{stays}/" in path]) == len(left) == 1 + 2 * 3  # its spec; three sets


def test_an_interrupted_drop_is_continued(grown):
    planned = plan_drop(grown.url, ["extra"], ["more"])
    for path in planned.paths[: len(planned.paths) // 2]:
        grown.files.remove(path)
    rest = plan_drop(grown.url, ["extra"])
    assert set(rest.paths) == set(planned.paths[len(planned.paths) // 2 :]) and rest.sweeps == ()
    drop(grown.url, rest)
    assert verify(Run.open(grown.url)) == []


@pytest.mark.parametrize(
    ("networks", "sweeps", "message"),
    [(["extr"], [], "no network 'extr' in .*; did you mean 'extra'"), ([], ["mor"], "no sweep 'mor' in .* 'more'")],
)
def test_what_the_store_does_not_have_is_named(grown, networks, sweeps, message):
    with pytest.raises(SettingsError, match=message):
        plan_drop(grown.url, networks, sweeps)
