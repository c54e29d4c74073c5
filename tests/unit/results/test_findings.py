"""Findings say what the results say, and name every reason not to trust them."""

import dataclasses

import numpy as np
import pytest

from netsim.errors import SettingsError
from netsim.results import findings
from netsim.results.findings import (
    all_well,
    better_than_chance,
    biased_headline,
    headline,
    matrix_table,
    network_table,
    number,
    summary,
    verdict_lines,
    warnings,
)
from netsim.results.matrices import ESTIMATORS
from netsim.results.measured import Measured, MeasuredMatrix
from netsim.results.results import Results
from netsim.results.stopping import Verdict
from netsim.settings import UntilSettings
from netsim.similarity.uncertainty import Estimate, few_shards
from support.pages import Page, page_of, warned
from support.results import make_results, with_cells, with_groups, with_inverted, with_loss, with_summary, with_verdict


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64)


@pytest.fixture(scope="module")
def page(results) -> Page:
    return page_of(results)


def test_headline_is_the_finding_in_one_sentence(results):
    means = {
        ("natural", "unbiased"): Estimate(0.874, 0.011, 15),
        ("natural", "biased"): Estimate(0.9, 0.01, 15),
        ("inverted", "unbiased"): Estimate(-0.0041, 0.012, 15),
        ("inverted", "biased"): Estimate(0.05, 0.02, 15),
        ("difference", "unbiased"): Estimate(0.878, 0.014, 15),
        ("difference", "biased"): Estimate(0.85, 0.02, 15),
    }
    changed = dataclasses.replace(results, means=means, n=1512)
    for name, floor in (("natural", 0.02), ("inverted", 0.04)):
        changed = with_cells(changed, name, floor=np.full((3, 3), floor))
    over = [f"{changed.inference.means[name].networks.se:.2f}" for name in ("natural", "inverted", "difference")]
    assert headline(changed) == (
        f"Natural similarity 0.87 ± 0.01 (images) ± {over[0]} (networks); after inversion 0.00 ± 0.01 (images) "
        f"± {over[1]} (networks); difference 0.88 ± 0.01 (images) ± {over[2]} (networks) "
        "(unbiased CKA, mean of 6 cells, n = 1,512 images in 16 shards)"
    )
    assert biased_headline(changed) == (
        "Natural similarity 0.90 ± 0.01; after inversion 0.05 ± 0.02; difference 0.85 ± 0.02 "
        "(biased CKA; independent representations would give 0.02 and 0.04 on natural and inverted images)"
    )
    assert f"Natural similarity 0.87 ± 0.01 (images) ± {over[0]} (networks); after" in page_of(changed).text


def test_two_networks_have_an_error_over_images_only():
    two = make_results(2, n=64)
    assert "(networks)" not in headline(two) and headline(two).count("(images)") == 3
    assert findings.network_intervals(two) == ""


def test_intervals_over_networks_stand_under_the_headline(results, page):
    sentence = findings.network_intervals(results)
    low, high = results.inference.means["inverted"].total.interval
    assert f"inverted {low:.2f} to {high:.2f}".replace("-", "−") in sentence.replace("−0.00", "0.00")
    assert "over other networks and images" in sentence and "t with 2 degrees of freedom" in sentence
    assert sentence in page.text


def test_replicates_have_a_ceiling_and_parts_of_the_variance(results):
    assert findings.ceiling_line(results) == findings.variance_line(results) == ""
    grouped = with_groups(make_results(6, n=64), *"aabbcc")
    inference = grouped.inference
    line, parts = findings.ceiling_line(grouped), findings.variance_line(grouped)
    assert f"inverted {inference.ceiling['inverted'].value:.3f} ± " in line
    assert findings.crossed(inference.normalized["natural"]) in line
    assert f"{inference.parts['inverted'].seeds:.3f} from training seeds" in parts
    assert "over other architectures and images" in findings.network_intervals(grouped)
    shown = page_of(grouped).text
    assert line in shown and parts in shown


def test_the_largest_asymmetries_are_named_with_adjusted_p_values(results, page):
    asymmetry = results.inference.asymmetry
    (i, j), *_ = asymmetry.largest(1)
    names = results.networks
    line = findings.asymmetry_line(results)
    difference = findings.with_error(asymmetry.difference(i, j))
    p = findings.probability_of(asymmetry.adjusted(i, j))
    assert f"through {names[i]} seen by {names[j]} {difference} (p {p})" in line
    different = sum(p < 0.05 for p in asymmetry.pair_p.values())
    assert f"{different} of 3 pairs differ" in line and line in page.text
    assert results.cells("inverted")[i, j] > results.cells("inverted")[j, i]
    two = make_results(2, n=64)
    twins = with_summary(two, "mobilenet", weights_hash=two.summaries["densenet"].weights_hash)
    assert findings.asymmetry_line(twins) == ""


def test_intervals_and_the_paired_test_stand_under_the_headline(results, page):
    sentence = findings.intervals(results)
    low, high = results.means["difference", "unbiased"].interval
    assert f"difference {low:.3f} to {high:.3f}, p < 0.001 (paired; t with 15 degrees of freedom" in sentence
    assert sentence in page.text
    assert findings.probability(Estimate(0.01, 0.01, 15)) == "= 0.333"
    assert findings.probability(Estimate(np.nan, np.nan, 15)) == "= –"


def test_the_answer_of_a_sweep_that_stopped_stands_above_the_headline(results):
    mean = dataclasses.replace(results, means=results.means | {("inverted", "unbiased"): Estimate(0.2, 0.01, 15)})
    stopped = with_verdict(mean, half_width=0.03)
    line, others = verdict_lines(stopped)
    assert line == (
        "Known: inverted mean 0.20 is known to ± 0.0240 (asked for: ± 0.03) after 64 of at most 576 pairs, look 3; "
        "95 % interval 0.18 to 0.22, and 0.16 to 0.24 at any look"
    )
    assert others.startswith("All other intervals")
    assert page_of(stopped).text.index(line) < page_of(stopped).text.index(headline(stopped).partition(" (")[0])


def test_the_least_known_row_stands_for_all(results):
    rows = results.rows["inverted", "unbiased"]
    rows = rows | {results.networks[1]: Estimate(0.3, 0.02, 15)}
    stopped = with_verdict(
        dataclasses.replace(results, rows={("inverted", "unbiased"): rows}), half_width=0.01, of="rows"
    )
    assert stopped.verdict.half_width == pytest.approx(2.4 * 0.02, rel=0.01)
    assert (
        "Not known yet: inverted row mobilenet, the least known of all rows, 0.30 is known to ± 0.0479"
        in (verdict_lines(stopped)[0])
    )


@pytest.mark.parametrize(
    ("value", "n", "text"),
    [
        (0.1, 64, "Different: inverted rows a − b = 0.100 after 64 of at most 512 pairs, look 3; 95 % interval at any"),
        (0.01, 64, "Equivalent within 0.05: inverted rows a − b = 0.010 after 64 of"),
        (0.03, 64, "Not known yet: inverted rows a − b = 0.030 after 64 of at most 512 pairs"),
        (0.03, 512, "Undecided: inverted rows a − b = 0.030 after all 512 pairs, look 3"),
    ],
)
def test_an_answer_on_two_rows_says_what_is_known(value, n, text):
    rule = UntilSettings(differ=("a", "b"), delta=0.05)
    line = findings.verdict_line(Verdict(rule, {"a − b": Estimate(value, 0.009, 15)}, n, 512, 3))
    assert line.startswith(text)
    assert line.endswith("raise pairs.count to continue") == text.startswith("Undecided")


def test_looks_are_listed_one_below_the_other(results):
    stopped = with_verdict(results, half_width=0.03)
    later = dataclasses.replace(stopped.verdict, n=72, looks=4)
    rows = findings.verdict_table([stopped.verdict, later])
    assert [(row["look"], row["pairs"], row["of"]) for row in rows] == [("3", "64", "mean"), ("4", "72", "mean")]
    assert set(rows[0]) == {"look", "pairs", "of", "value", "interval", "at any look", "verdict"}


def test_a_sweep_without_a_rule_has_no_answer(results):
    assert verdict_lines(results) == []


def test_nothing_is_warned_of_when_all_went_well(results, page):
    assert warnings(results) == []
    assert not warned(page)


def test_warning_names_the_networks_that_have_not_converged_and_only_those(results):
    late = with_loss(results, "mobilenet", final=np.full(64, 0.2))
    [warning] = warnings(late)
    assert "mobilenet (100.0 %)" in warning
    assert "densenet" not in warning
    assert "0.05" in warning
    page = page_of(late)
    assert warned(page)
    assert warning in page.text
    table = next(table for table in page.tables if table[0][0] == "network")
    assert [line[9] for line in table[1:]] == ["yes", "NO", "yes"]
    assert warnings(with_loss(results, "mobilenet", final=np.full(64, np.nan)))


def test_an_accuracy_without_meaning_is_no_reason_to_doubt(results):
    """The network was trained on other classes than the images have."""
    unknown = with_summary(results, "densenet", accuracy=np.nan)
    assert warnings(unknown) == []
    assert "clearly better than chance; no image" in all_well(results) and "chance" not in all_well(unknown)
    assert "densenet has no accuracy on these images: its outputs are not the 10 classes" in all_well(unknown)
    assert "densenet has no accuracy" in summary(unknown) and "has no accuracy" not in summary(results)


def without_error(results):
    """Return results in which the error of one cell is undefined, for a reason."""
    natural = results.matrices["natural"]
    undefined, leave_one_out = natural.undefined.astype(object), natural.leave_one_out.copy()
    cell = results.networks.index("densenet"), results.networks.index("resnext")
    leave_one_out[(0, *cell, 3)] = np.nan
    undefined[(0, *cell)] = "no standard error: without shard 3, resnext: constant"
    return with_cells(results, "natural", undefined=undefined, leave_one_out=leave_one_out)


@pytest.mark.parametrize("shards", [5, 8, 64])
def test_as_many_shards_as_are_needed_are_no_reason_to_doubt(results, shards):
    assert warnings(dataclasses.replace(results, shards=shards)) == []


def test_a_warning_of_few_shards_says_how_wide_intervals_are_and_what_to_do():
    """The quantiles of Student's t with 1 and with 7 degrees of freedom are in every table: 12.706 and 2.365."""
    sentence = few_shards(2)
    assert "reach 12.7 standard errors to either side, instead of 2.4 with 8 shards" in sentence
    assert "Use at least 8 shards: raise pairs.count, or lower pairs.shard_size, which requires a new" in sentence


def with_end(results, name, estimator, observer, end, value):
    """Move the interval of densenet's cell, by an estimator's index, so that one of its ends has this value."""
    cka, leave_one_out = (getattr(results.matrices[name], each).copy() for each in ("cka", "leave_one_out"))
    cell = estimator, results.networks.index("densenet"), results.networks.index(observer)
    shift = value - results.cells(name, ESTIMATORS[estimator], kind=end)[cell[1:]]
    cka[cell] += shift
    leave_one_out[cell] += shift
    return with_cells(results, name, cka=cka, leave_one_out=leave_one_out)


def test_ends_of_intervals_that_cka_cannot_have_are_counted_and_explained(results, page):
    assert "symmetric and not clipped" not in findings.intervals(results) + page.text
    beyond = with_end(results, "natural", 0, "resnext", "high", 1.02)
    beyond = with_end(beyond, "natural", 1, "mobilenet", "high", 1.02)
    beyond = with_end(beyond, "natural", 0, "mobilenet", "high", 1.0004)  # which shows as 1.000
    words = "of 20 for cells and means, 1 end above 1, where CKA over all images cannot be: read such an end as 1 or 0"
    assert words in findings.intervals(beyond) and words in page_of(beyond).text
    for name in ("mobilenet", "resnext"):
        beyond = with_end(beyond, "inverted", 0, name, "low", -0.1)
    assert "1 end above 1 and 2 ends below 0" in findings.intervals(beyond)


def test_cells_that_one_image_carries_are_warned_of_where_influence_was_measured(results):
    def measured(natural, inverted):
        matrices = [
            MeasuredMatrix(
                np.array(cells),
                np.zeros((3, 3)),
                np.full((3, 3), 0.04),
                np.zeros((3, 3, 4)),
                Estimate(0.1, 0.1, 1, True),
                0.04,
            )
            for cells in (natural, inverted)
        ]
        return {"cka_influence": Measured("cka_influence", "", "", *matrices, None)}

    small, large = np.full((3, 3), 0.08), np.array([[np.nan, 0.08, 0.3], [0.11, 0.9, 0.02], [0.08, 0.1, np.nan]])
    assert (
        findings.influence_warnings(results, {}) == findings.influence_warnings(results, measured(small, small)) == []
    )
    [warning] = findings.influence_warnings(results, measured(small, large))
    assert "more than 10.0 % of all influence on CKA in 2 of 6 cells of the inverted matrix, at most 30.0 %" in warning
    assert "(through densenet, observer resnext; 4.0 % with one side's images permuted)" in warning
    assert len(findings.influence_warnings(results, measured(large, large))) == 2


def test_debiased_cells_are_the_unbiased_ones(results):
    np.testing.assert_array_equal(results.cells("inverted", "debiased"), results.cells("inverted", "unbiased"))
    with pytest.raises(SettingsError, match=r"^unknown estimator 'unbaised'; did you mean 'unbiased'\?$"):
        results.cells("inverted", "unbaised")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda results: with_loss(results, "densenet", stalled=3), "densenet (3 of 64)"),
        (lambda results: with_loss(results, "densenet", nonfinite=2), "densenet (2 of 64)"),
        (lambda results: with_summary(results, "densenet", accuracy=0.12), "densenet (12.0 %)"),
        (lambda results: with_summary(results, "densenet", other_size=384), "densenet (384 pixels a side)"),
        (lambda results: dataclasses.replace(results, preset="fast"), "Compare only with runs of the same preset"),
        (lambda results: with_inverted(results, 0, 1, np.nan), "1 of 9 unbiased values of the inverted matrix"),
        (lambda results: dataclasses.replace(results, shards=4), "standard errors rest on 4 shards of images"),
        (without_error, "standard errors of 1 of 9 unbiased values of the natural matrix, and of their means (no st"),
    ],
)
def test_every_other_reason_to_doubt_is_warned_of(results, change, words):
    [warning] = warnings(change(results))
    assert words in warning
    assert warned(page_of(change(results)))


def test_better_than_chance_fits_two_classes_and_a_thousand():
    assert not better_than_chance(0.52, 1 / 2)
    assert better_than_chance(0.6, 1 / 2)
    assert not better_than_chance(0.12, 1 / 10)
    assert better_than_chance(0.3, 1 / 10)
    assert not better_than_chance(0.0013, 1 / 1000)
    assert better_than_chance(0.05, 1 / 1000)


def test_numbers_are_written_as_a_reader_expects():
    assert [findings.number(v, 2) for v in (0.125, -0.014, -0.001, np.nan, np.inf)] == [
        "0.12",
        "−0.01",
        "0.00",
        "–",
        "–",
    ]
    assert findings.with_error(Estimate(0.0312, 0.0021, 15)) == "0.031 ± 0.002"
    assert findings.with_error(Estimate(np.nan, np.nan, 15)) == "– ± –"


def test_tables_of_the_ui_hold_the_numbers_of_the_results(results):
    rows = network_table(results)
    assert [row["network"] for row in rows] == list(results.networks)
    for row in rows:
        loss = results.loss[row["network"]]
        assert (row["initial loss"], row["final loss"]) == (number(np.median(loss.initial)), number(loss.median))
        assert row["converged"] == ("yes" if loss.median <= results.tolerance else "NO")
    cell = matrix_table(results, "inverted")[2][results.networks[1]]
    assert cell.startswith(f"{number(results.cells('inverted')[2, 1])} [")


def test_percentages_below_one_have_two_decimals():
    assert [findings.percent(value) for value in (0.893, 0.001, 1.0, np.nan)] == [
        "89.3 %", "0.10 %", "100.0 %", "unknown",
    ]  # fmt: skip


def test_decimals_show_the_first_digit_of_the_smallest_error():
    assert [findings.digits_for(*errors) for errors in ((0.02,), (0.2, 0.004), (1e-9,), (0.5,))] == [2, 3, 4, 2]
    assert findings.digits_for(np.nan, 0) == 3


def test_skipped_images_are_counted_by_split(results):
    skipped = dataclasses.replace(results, skipped={"train": (0, 40_000), "test": (12, 1_200)})
    assert warnings(skipped) == ["12 of 1,200 test images were unreadable and skipped (see netsim status)."]


def test_several_networks_are_listed_in_one_sentence(results):
    late = results
    for name in ("densenet", "mobilenet", "resnext"):
        late = with_loss(late, name, final=np.full(64, 0.2))
    [warning] = warnings(late)
    assert warning.startswith("Not converged: densenet (100.0 %), mobilenet (100.0 %) and resnext (100.0 %) of the")
    assert "Their rows may be too high or too low" in warning
    unknown = with_summary(with_summary(results, "densenet", accuracy=np.nan), "resnext", accuracy=np.nan)
    assert "densenet and resnext have no accuracy on these images: their outputs are not the" in all_well(unknown)


def test_twins_are_named_and_their_cells_are_in_no_mean(results):
    key = results.summaries["densenet"].weights_hash
    twins = with_summary(results, "resnext", weights_hash=key)
    assert warnings(twins) == [
        "Equal weights: densenet and resnext are both the same network. Their similarity to each other is left out of "
        "means, differences and summaries; remove one, or give each its own weights."
    ]
    assert "mean of 4 cells" in headline(twins)
    others = results.floor("natural")[~np.eye(3, dtype=bool)].sum() - results.floor("natural")[[0, 2], [2, 0]].sum()
    assert findings.floor_mean(twins, "natural") == pytest.approx(others / 4)
    three = with_summary(twins, "mobilenet", weights_hash=key)
    assert warnings(three)[0].startswith("Equal weights: densenet, mobilenet and resnext are all the same network.")
    assert "mean of 0 cells" in headline(three) and np.isnan(findings.floor_mean(three, "natural"))


def test_the_floor_of_a_mean_is_over_cells_off_the_diagonal(results):
    off = ~np.eye(3, dtype=bool)
    assert findings.floor_mean(results, "inverted") == pytest.approx(results.floor("inverted")[off].mean())
    floor = results.floor("natural").copy()
    floor[0, 1] = np.nan
    assert np.isnan(findings.floor_mean(with_cells(results, "natural", floor=floor), "natural"))


def test_accuracy_under_attack_is_shown_where_a_network_was_trained_for_it(results):
    assert "under attack" not in findings.network_table(results)[0]
    robust = with_summary(results, "resnext", robust=0.61, eps=0.5, norm="l2")
    assert [row["under attack"] for row in findings.network_table(robust)] == ["", "", "61.0 % (l2 0.5)"]
