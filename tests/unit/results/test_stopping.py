"""Sweeps that stop when their results are known: verdicts and looks, wherever they were killed."""

import dataclasses
import itertools
import shutil

import numpy as np
import pytest

from netsim.results.results import load_results
from netsim.results.stopping import Verdict, at_looks, current_look, first_look, last_look, verdict_at, verdict_of
from netsim.settings import UntilSettings
from netsim.similarity.uncertainty import Estimate
from netsim.statistics.sequential import anytime_interval, width_interval
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, STAGES
from netsim.store.views import view, whole
from support import grown
from support.sweeps import run_all, run_looks

NETS = [grown.net(width) for width in (5, 6, 7)]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("images") / "images.npz"
    pixels = rng.integers(256, size=(96, grown.SIDE, grown.SIDE), dtype=np.uint8)
    np.savez(path, images=pixels, labels=np.arange(96) % 3)
    return f"npz:{path}"


def ask(url, source: str, pairs: int = 80, until=None, networks=NETS) -> Run:
    """Ask a sweep that may stop of a store, as preparing a flow does."""
    settings = grown.settings(source, networks, pairs)
    settings["pairs"]["until"] = until
    run = current_look(grown.ask(str(url), settings))
    run.ask()
    return run


def width_at(source: str, url, pairs: int) -> float:
    """Return the half width of the inverted mean after so many pairs."""
    run = grown.ask(str(url), grown.settings(source, NETS, pairs))
    run_all(run, only=grown.WORK)
    mean = load_results(run).means["inverted", "unbiased"]
    return float(np.ptp(width_interval(mean))) / 2


@pytest.fixture(scope="module")
def stopped(source, tmp_path_factory) -> Run:
    """A sweep of at most 80 pairs that has stopped at its rule."""
    folder = tmp_path_factory.mktemp("stopped")
    rule = {"half_width": 1.0001 * min(width_at(source, folder / "widths", n) for n in (44, 48, 52))}
    run, _ = run_looks(ask(folder / "run", source, until=rule))
    return run


# ---- verdicts


def verdict(until: dict, *estimates: Estimate, n: int = 256, at_most: int = 512) -> Verdict:
    names = [f"row{number}" for number in range(len(estimates))]
    return Verdict(UntilSettings(**until), dict(zip(names, estimates, strict=True)), n, at_most, 3)


def test_a_width_is_known_when_the_widest_interval_is_narrow_enough():
    narrow, wide = Estimate(0.2, 0.005, 15), Estimate(0.4, 0.01, 15)
    half = width_interval(wide)[1] - 0.4
    assert verdict({"half_width": half + 1e-9}, narrow, wide).outcome == "known"
    assert verdict({"half_width": half - 1e-9}, narrow, wide).outcome == "undecided"
    assert verdict({"half_width": 0.1}, narrow, Estimate(0.4, np.nan, 15)).outcome == "undecided"


@pytest.mark.parametrize(
    ("value", "delta", "outcome"),
    [
        (0.10, None, "different"),
        (-0.10, None, "different"),
        (0.03, None, "undecided"),
        (0.03, 0.1, "equivalent"),
        (0.00, 0.04, "equivalent"),
        (0.00, 0.03, "undecided"),
        (0.05, 0.1, "equivalent"),  # and different from 0, by less than matters
        (0.10, 0.1, "different"),
        (np.nan, 0.1, "undecided"),
    ],
)
def test_two_rows_are_told_apart_by_an_interval_that_holds_at_all_looks(value, delta, outcome):
    estimate = Estimate(value, 0.01, 15)
    assert 0.03 < anytime_interval(Estimate(0, 0.01, 15))[1] < 0.04
    assert verdict({"differ": ("a", "b"), "delta": delta}, estimate).outcome == outcome


def test_a_sweep_ends_at_an_answer_or_with_all_of_its_pairs():
    estimate = Estimate(0.2, 0.005, 15)
    assert verdict({"half_width": 0.1}, estimate).final
    assert not verdict({"half_width": 0.001}, estimate).final
    assert verdict({"half_width": 0.001}, estimate, n=512).final


def asking(run: Run, **until) -> Verdict:
    """Put another question to what a run has stored."""
    pairs = run.settings.pairs.model_copy(update={"until": UntilSettings(**until)})
    settings = run.settings.model_copy(update={"pairs": pairs})
    asked = verdict_at(run.seen_by(dataclasses.replace(run.sweep, settings=settings)))
    assert asked is not None
    return asked


def test_verdicts_are_of_the_estimates_that_results_show(stopped):
    results = load_results(stopped)
    rows, differences = results.rows["inverted", "unbiased"], results.row_differences
    assert asking(stopped, half_width=1.0).estimates == {"mean": results.means["inverted", "unbiased"]}
    assert asking(stopped, half_width=1.0, of="mean").estimates == {"mean": results.means["inverted", "unbiased"]}
    assert asking(stopped, half_width=1.0, of="rows").estimates == rows
    assert asking(stopped, half_width=1.0, of="net6").estimates == {"net6": rows["net6"]}
    assert asking(stopped, differ=("net5", "net7")).estimates == {"net5 − net7": differences["net5", "net7"]}
    (mirrored,) = asking(stopped, differ=("net7", "net5")).estimates.values()
    assert (mirrored.value, mirrored.se) == (-differences["net5", "net7"].value, differences["net5", "net7"].se)


def test_a_network_does_not_differ_from_itself_under_another_name(source, tmp_path):
    networks = [*NETS, f"again={grown.net(5)}"]
    run = ask(tmp_path / "run", source, until={"differ": ["net5", "again"]}, networks=networks)
    run_all(run, only=grown.WORK)
    assert verdict_at(run).outcome == "undecided"


def test_json_has_the_rule_the_answer_and_both_intervals(stopped):
    document = verdict_at(stopped).to_json()
    estimate = load_results(stopped).means["inverted", "unbiased"]
    assert document["rule"] == stopped.settings.pairs.until.model_dump(exclude_none=True)
    assert (document["outcome"], document["n"], document["at_most"]) == ("known", stopped.settings.pairs.count, 80)
    assert document["of"]["mean"] == {
        "value": estimate.value,
        "se": estimate.se,
        "interval": list(width_interval(estimate)),
        "interval_at_any_time": list(anytime_interval(estimate)),
    }


# ---- looks


def test_a_sweep_without_a_rule_has_no_looks(finished):
    assert current_look(finished) is finished and last_look(finished) is finished
    assert first_look(finished.sweep) is finished.sweep
    assert load_results(finished).verdict is None


def test_a_sweep_begins_with_eight_shards_and_may_use_all(source, tmp_path):
    run = ask(tmp_path / "run", source, until={"half_width": 0.1})
    assert (run.sweep.shards, run.sweep.at_most, first_look(run.sweep)) == (8, 80, run.sweep)
    assert last_look(run).settings.pairs.count == 80
    assert [look.sweep.shards for look in at_looks(run)] == [8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20]


def test_a_sweep_stops_at_its_first_look_that_answers(stopped):
    verdicts = list(map(verdict_at, at_looks(stopped)))
    assert verdicts[-1] is None  # more pairs were never drawn
    answered = [each for each in verdicts if each is not None]
    assert [each.outcome for each in answered] == ["undecided"] * (len(answered) - 1) + ["known"]
    assert 1 < len(answered) == answered[-1].looks and 32 < stopped.settings.pairs.count < 80
    assert current_look(stopped).sweep == last_look(stopped).sweep == stopped.sweep
    assert load_results(stopped).verdict == answered[-1]


def test_what_it_stores_is_what_a_sweep_of_as_many_pairs_stores(stopped, source, tmp_path):
    fixed = grown.ask(str(tmp_path / "fixed"), grown.settings(source, NETS, stopped.settings.pairs.count))
    run_all(fixed)
    assert grown.values(stopped) == grown.values(fixed)
    assert grown.sums(stopped) == grown.sums(fixed)
    expected = grown.results(fixed)
    assert grown.results(stopped) == expected | {"verdict": verdict_at(stopped).to_json()}


def test_a_sweep_that_is_run_again_computes_nothing(stopped, source):
    again = ask(stopped.url, source, until=stopped.settings.pairs.until.model_dump(exclude_none=True))
    assert again.sweep == stopped.sweep
    assert not any(run_all(again).values())


def test_a_sweep_that_is_interrupted_anywhere_comes_to_the_same_verdict(stopped, source, tmp_path):
    """After each stage of each look, everything that a process knows is forgotten."""
    rule = stopped.settings.pairs.until.model_dump(exclude_none=True)
    for stage in itertools.cycle(grown.WORK[:-1]):
        run = ask(tmp_path / "run", source, until=rule)
        seen = verdict_at(run)
        if seen is not None and seen.final:
            break
        run_all(run, only=[stage])
    assert verdict_at(run) == verdict_at(stopped)
    assert (grown.values(run), grown.sums(run)) == (grown.values(stopped), grown.sums(stopped))


def test_a_rule_for_pairs_that_the_store_has_computes_sums_only(stopped, source, tmp_path):
    fixed = grown.ask(str(tmp_path / "run"), grown.settings(source, NETS, 80))
    run_all(fixed, only=grown.WORK)
    rule = stopped.settings.pairs.until.model_dump(exclude_none=True)
    run, computed = run_looks(ask(fixed.url, source, until=rule))
    assert set(computed) == {"aggregate", "control", "report"}
    assert run.settings.pairs.count == stopped.settings.pairs.count
    assert verdict_at(run) == verdict_at(stopped)


def test_more_pairs_continue_a_sweep_that_was_undecided_and_not_one_that_was_answered(source, tmp_path, stopped):
    rule = stopped.settings.pairs.until.model_dump(exclude_none=True)
    undecided, _ = run_looks(ask(tmp_path / "run", source, 36, until=rule))
    assert (verdict_at(undecided).outcome, verdict_at(undecided).final) == ("undecided", True)
    continued, _ = run_looks(ask(undecided.url, source, until=rule))
    assert verdict_at(continued) == verdict_at(stopped)
    answered, computed = run_looks(ask(undecided.url, source, 92, until=rule))
    assert answered.settings.pairs.count == continued.settings.pairs.count
    assert set(computed) == {"report"}


def test_views_of_it_have_no_rule(stopped):
    other = view(stopped, ["net5", "net6"])
    assert (other.settings.pairs.until, other.settings.pairs.count) == (None, stopped.settings.pairs.count)
    assert (whole(stopped).settings.pairs.until, whole(stopped).sweep.at_most) == (None, None)
    assert view(stopped) is stopped


def test_a_missing_sum_of_an_earlier_look_is_computed_again_to_the_same_verdict(stopped, source, tmp_path):
    shutil.copytree(stopped.url, tmp_path / "run")
    run = Run.open(str(tmp_path / "run"))
    before = verdict_at(run)
    unit, shard = min(unit for unit in AGGREGATE.units_done(run) if unit[0].endswith("-8"))
    run.forget("aggregate", unit, shard)
    assert current_look(run).sweep.shards == 8
    mended, computed = run_looks(run)
    assert verdict_at(mended) == before
    assert computed == {"aggregate": 1}
    assert all(not stage.missing(mended) for stage in STAGES)


def test_a_verdict_needs_a_rule(finished):
    assert verdict_of(finished, load_results(finished).matrices["inverted"]) is None
