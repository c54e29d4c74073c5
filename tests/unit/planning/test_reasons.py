"""Each stage that has work says why."""

import shutil

import pytest

from netsim.planning.count import seen_by
from netsim.planning.reasons import reasons
from netsim.planning.resolve import Known, resolve
from netsim.store.run import Run
from netsim.store.stages import STAGES
from support.sweeps import TINY, new_run, tiny


@pytest.fixture
def store(finished, tmp_path) -> str:
    shutil.copytree(finished.url, tmp_path / "run")
    return str(tmp_path / "run")


def why(store: str, **changes) -> dict[str, list[str]]:
    """Return the reasons of every stage that has work."""
    run = seen_by(store, resolve(tiny(**changes), store))
    every = {stage.name: reasons(run, Known.at(store), stage, stage.missing(run)) for stage in STAGES}
    return {name: listed for name, listed in every.items() if listed}


def test_a_new_store_is_the_reason_of_everything(tmp_path):
    stages = ("train", "draw", "invert", "embed", "aggregate", "control", "report")
    assert why(str(tmp_path / "none")) == {name: ["new store"] for name in stages}


def test_nothing_has_a_reason_where_nothing_is_missing(store):
    assert why(store) == {}


def test_a_new_network_is_named(store):
    networks = [*TINY["networks"], "extra=small:mobilenet@none"]
    new = ["new network extra"]
    expected = {"train": new, "invert": new, "embed": new, "aggregate": new, "control": new, "report": ["new sweep"]}
    assert why(store, networks=networks) == expected


def test_more_pairs_are_counted(store):
    more = ["pairs 32 \N{RIGHTWARDS ARROW} 48"]
    stages = ("draw", "invert", "embed", "aggregate", "control")
    expected = dict.fromkeys(stages, more) | {"report": ["new sweep"]}
    assert why(store, pairs={"count": 48, "shard_size": 8}) == expected


def test_both_are_given_where_both_hold(store):
    networks = ["x0=small:mobilenet@none", *(f"small:{name}@none" for name in ("wrn2", "wrn4", "densenet"))]
    both = why(store, networks=[*TINY["networks"], *networks], pairs={"count": 48, "shard_size": 8})
    assert both["embed"] == ["new networks x0, wrn2, wrn4 and 1 more", "pairs 32 \N{RIGHTWARDS ARROW} 48"]


def test_what_an_interrupted_run_left_is_not_finished(store):
    Run.open(store).forget("invert", "vgg", 2)
    assert why(store) == {"invert": ["not finished before"]}


def test_known_networks_that_no_sweep_compared_are_named(store):
    extra = "extra=small:mobilenet@none"
    new_run(store, tiny(networks=["small:vgg", extra]))
    pairs = ["extra with resnet18", "extra with shufflenet", "resnet18 with extra", "shufflenet with extra"]
    apart, unfinished = f"not compared before: {', '.join(pairs[:3])} and 1 more", "not finished before"
    listed = why(store, networks=[*TINY["networks"], extra])
    assert listed["train"] == listed["invert"] == [unfinished]
    assert listed["aggregate"] == [apart, unfinished]
    assert listed["embed"][-1] == unfinished
    assert set(listed["embed"][0].removeprefix("not compared before: ").split(" and ")[0].split(", ")) <= set(pairs)


def test_an_observer_that_becomes_a_network_was_not_inverted_before(store):
    extra = "extra=small:mobilenet@none"
    new_run(store, tiny(observers=[extra]))
    assert why(store, networks=[*TINY["networks"], extra])["invert"] == ["not inverted before: extra"]


def test_another_view_is_a_new_sweep(store):
    assert why(store, networks=TINY["networks"][::-1]) == {"report": ["new sweep"]}
