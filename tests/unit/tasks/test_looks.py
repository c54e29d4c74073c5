"""Looks of a sweep in the flow process: one after the other, shown, and none after the answer."""

import logging

import numpy as np
import pytest

from netsim.results.stopping import current_look, verdict_at
from netsim.store.quarantine import quarantine
from netsim.store.run import Run
from support import grown
from support.sweeps import run_all
from tasks import looks
from tasks.looks import each_look


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """What is announced, and each table of looks by its number of rows."""
    lines: list[str] = []
    monkeypatch.setattr(looks, "announce", lambda message, level: lines.append(message) or level == logging.INFO)
    monkeypatch.setattr(looks, "show_looks", lambda _, verdicts: lines.append(f"table of {len(verdicts)}"))
    return lines


@pytest.fixture
def run(tmp_path) -> Run:
    """A sweep of at most 11 shards that asks for more than it can know."""
    rng, path = np.random.default_rng(0), tmp_path / "images.npz"
    pixels = rng.integers(256, size=(48, grown.SIDE, grown.SIDE), dtype=np.uint8)
    np.savez(path, images=pixels, labels=np.arange(48) % 3)
    settings = grown.settings(f"npz:{path}", [grown.net(5), grown.net(6)], 44)
    settings["pairs"]["until"] = {"half_width": 1e-6}
    return current_look(grown.ask(str(tmp_path / "run"), settings))


def test_a_sweep_without_a_rule_has_one_look(finished, shown):
    assert list(each_look(finished)) == [finished] and shown == []


def test_looks_follow_each_other_until_all_pairs_are_used_and_are_shown(run, shown):
    seen = []
    for look in each_look(run):
        assert Run.open(run.url).sweep == look.sweep  # workers open the store
        seen.append(look.sweep.shards)
        run_all(look, only=grown.WORK)
    assert seen == [8, 9, 10, 11]
    assert [line.partition(":")[0] for line in shown[::2]] == ["Not known yet"] * 3 + ["Undecided"]
    assert shown[1::2] == ["table of 1", "table of 2", "table of 3", "table of 4"]
    assert "after all 44 pairs, look 4" in shown[-2]


def test_a_sweep_resumes_at_the_look_it_came_to_and_shows_the_earlier_ones_too(run, shown):
    for _, look in zip(range(2), each_look(run), strict=False):
        run_all(look, only=grown.WORK)
    shown.clear()
    looked = []
    for look in each_look(Run.open(run.url)):
        looked.append(look.sweep.shards)
        run_all(look, only=grown.WORK)
    assert looked == [10, 11] and shown[1::2] == ["table of 3", "table of 4"]


def test_a_look_that_cannot_be_completed_is_the_last_one(run, shown):
    looked = []
    for look in each_look(run):
        looked.append(look.sweep.shards)
        run_all(look, only=["train", "draw"])
        quarantine(look, ("invert", "net5", 0), {"error": "none"})
    assert (looked, shown, verdict_at(run)) == ([8], [], None)
