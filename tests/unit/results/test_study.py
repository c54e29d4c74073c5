"""Studies show the cells of the networks that count, by architecture and eps, and mark the others."""

import dataclasses
import json

import numpy as np
import pytest

from netsim.errors import SettingsError
from netsim.results import study as studies
from netsim.results.measured import Measured, MeasuredMatrix
from netsim.results.results import Results
from netsim.results.study import has_levels, make_study, trained_with
from netsim.similarity.uncertainty import Estimate
from support.results import make_results, with_eps, with_loss, with_summary

LEVELS = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def results() -> Results:
    return with_eps(make_results(9, n=64), *LEVELS, architectures=3)


def measure_of(results, name="agreement", rng_seed=0):
    """Make up a measure of both sets."""
    rng, m = np.random.default_rng(rng_seed), len(results.networks)

    def matrix():
        return MeasuredMatrix(
            *rng.random((3, m, m)), rng.random((m, m, 16)), mean=Estimate(0.5, 0.1, 15), null_mean=0.1
        )

    return Measured(name, f"{name} of a test", "this test", matrix(), matrix(), None)


def loop_mean(results, cells, level, other, architecture=None):
    """Average cells of two architectures: those of a row are of `level`, those of a column of `other`."""
    kinds = [(results.summaries[name].reference, results.summaries[name].eps) for name in results.networks]
    return np.mean(
        [
            cells[i, j]
            for i, (a, eps) in enumerate(kinds)
            for j, (b, seen) in enumerate(kinds)
            if a != b and (eps, seen) == (level, other) and architecture in (None, a)
        ]
    )


def test_means_are_those_of_the_cells_of_every_quantity(results):
    measured = {"agreement": measure_of(results), "stir": measure_of(results, "stir")}
    shown = make_study(results, measured)
    cells = {
        ("cka", "natural"): results.cells("natural"),
        ("cka", "inverted"): results.cells("inverted"),
        ("on_converged", "inverted"): results.on_converged[0],
        ("seed_only", "natural"): results.controls.values["natural_seed"],
        ("seed_only", "inverted"): results.controls.values["inverted_seed"],
        ("agreement", "natural"): measured["agreement"].natural.value,
        ("agreement", "inverted"): measured["agreement"].inverted.value,
    }
    assert shown.curves.keys() == cells.keys() and shown.eps == LEVELS and shown.architectures == ("a0", "a1", "a2")
    for key, values in cells.items():
        curve = shown.curves[key]
        for k, level in enumerate(LEVELS):
            assert curve.same[k].value == pytest.approx(loop_mean(results, values, level, level), abs=1e-12)
            row = loop_mean(results, values, level, level, "small:a1")
            assert curve.rows["a1"][k].value == pytest.approx(row, abs=1e-12)
            assert curve.cross[k][0].value == pytest.approx(loop_mean(results, values, level, 0.0), abs=1e-12)
    assert shown.not_measured == ("jensen_shannon", "retrained_agreement")
    assert shown.titles["agreement"] == "agreement of a test"


def test_errors_over_images_are_those_of_the_replicates(results):
    shown = make_study(results)
    replicates = results.matrices["inverted"].leave_one_out[0]
    left_out = [loop_mean(results, replicates[..., g], 1.0, 1.0) for g in range(16)]
    se = np.sqrt(15 / 16 * np.square(left_out - np.mean(left_out)).sum())
    assert shown.curves["cka", "inverted"].same[2].images.se == pytest.approx(se, rel=1e-9)
    converged = [loop_mean(results, cells, 1.0, 1.0) for cells in results.on_converged[1:]]
    se = np.sqrt(15 / 16 * np.square(converged - np.mean(converged)).sum())
    assert shown.curves["on_converged", "inverted"].same[2].images.se == pytest.approx(se, rel=1e-9)


def test_networks_that_only_look_are_in_no_study():
    with_observers = with_eps(make_results(9, n=64, observers=("seer",)), *LEVELS, architectures=3)
    shown = make_study(with_observers)
    assert [each.name for each in shown.networks] == list(with_observers.networks)
    expected = loop_mean(with_observers, with_observers.cells("inverted"), 0.5, 0.5)
    assert shown.curves["cka", "inverted"].same[1].value == pytest.approx(expected, abs=1e-12)


def test_a_network_below_its_floor_is_marked_and_in_no_value(results):
    bad = with_summary(results, results.networks[3], accuracy=0.8)  # a1, standard
    shown = make_study(bad)
    assert [each.name for each in shown.networks if each.below_floor] == [results.networks[3]]
    curve = shown.curves["cka", "inverted"]
    assert np.isnan(curve.rows["a1"][0].value) and np.isfinite(curve.rows["a1"][1].value)
    assert curve.same[0].value != make_study(results).curves["cka", "inverted"].same[0].value
    assert curve.same[1] == make_study(results).curves["cka", "inverted"].same[1]
    assert "†" in studies.level_table(shown)[0]["eps 0"] and "†" not in studies.level_table(shown)[0]["eps 1"]
    assert [("†" in row["eps 0"]) for row in studies.architecture_table(shown)] == [False, True, False]
    assert ["†" in row["eps 1"] for row in studies.cross_table(shown)] == [True, False, False]
    assert [row["counted"] for row in studies.study_network_table(shown)].count("NO †") == 1
    assert f"({'†'}): {results.networks[3]} (80.0 %)" in studies.study_warnings(shown)[0]
    assert not any(each.below_floor for each in make_study(bad, floor=0.8).networks)


def test_floors_are_of_standard_and_of_robust_networks(results):
    assert not any(each.below_floor for each in make_study(results).networks)  # robust ones have 0.8 to 0.85
    shown = make_study(results, robust_floor=0.82)
    assert {each.eps for each in shown.networks if each.below_floor} == {1.0}
    assert shown.eps == (0.0, 0.5)
    unknown = with_summary(results, results.networks[0], accuracy=float("nan"))
    assert not make_study(unknown, floor=1e-9).networks[0].below_floor


def test_a_network_that_did_not_converge_is_marked_and_kept(results):
    name = results.networks[4]  # a1 at 0.5
    loss = results.loss[name].final.copy()
    loss[:4] = 0.2  # 4 of 64 images
    shown = make_study(with_loss(results, name, final=loss))
    assert [each.name for each in shown.networks if not each.converged] == [name]
    inverted, natural = (studies.architecture_table(shown, ("cka", kind)) for kind in ("inverted", "natural"))
    assert [row["eps 0.5"].endswith("*") for row in inverted] == [False, True, False]
    assert not any("*" in cell for row in natural for cell in row.values())
    assert any(f"{name} (6.2 %)" in warning for warning in studies.study_warnings(shown))
    assert shown.curves["cka", "inverted"] == make_study(results).curves["cka", "inverted"]


def test_json_has_everything_and_no_nan(results):
    printed = json.loads(json.dumps(make_study(results).to_json(), allow_nan=False))
    assert printed["eps"] == list(LEVELS) and printed["norm"] == "l2"
    assert printed["networks"][1] | {"above": 0} == {
        "name": results.networks[1], "architecture": "a0", "eps": 0.5, "norm": "l2", "accuracy": 0.85, "robust": 0.8,
        "floor": 0.0, "above": 0, "below_floor": False, "converged": True,
    }  # fmt: skip
    assert set(printed["quantities"]["cka"]) == {"title", "natural", "inverted"}
    assert printed["quantities"]["cka"]["inverted"]["slope"]["networks"]["df"] == 2
    assert printed["not_measured"] == ["agreement", "jensen_shannon", "retrained_agreement"]


def test_sentences_state_slopes_asymmetry_and_what_is_missing(results):
    shown = make_study(results)
    headline = studies.study_headline(shown)
    slope = shown.curves["cka", "inverted"].slope
    assert f"changes by {'+' if slope.value > 0 else '−'}{abs(slope.value):.2f}" in headline
    assert (
        "For each unit of eps (l2)" in headline
        and "3 levels of eps from 0 to 1" in headline
        and "(networks)" in headline
    )
    assert "minus the mirrored cells" in studies.study_asymmetry(shown)
    assert [row["robust"] for row in studies.asymmetry_table(shown)] == ["eps 0.5", "eps 1", "all"]
    (missing,) = studies.study_warnings(shown)
    assert "netsim measure STORE agreement jensen_shannon retrained_agreement" in missing
    two = make_study(with_eps(make_results(4, n=64), 0.0, 0.5, architectures=2))
    assert "Two architectures have no error over networks: add others." in studies.study_warnings(two)


def test_results_without_values_on_converged_images_have_no_such_curve(results):
    assert ("on_converged", "inverted") not in make_study(dataclasses.replace(results, on_converged=None)).curves


@pytest.mark.parametrize(
    ("reference", "trained"),
    [
        ("robust:wide_resnet50_2_l2_eps0.01", ("wide_resnet50_2", 0.01, "l2")),
        ("robust:resnet50_linf_eps4.0", ("resnet50", 4.0, "linf")),
        ("robust:resnet18_l2_eps0", ("resnet18", 0.0, "")),
        ("torchvision:resnet18@IMAGENET1K_V1", ("resnet18", 0.5, "l2")),
        ("python:lab.nets:mine_l2_eps3@w.safetensors", ("mine_l2_eps3", 0.5, "l2")),
    ],
)
def test_eps_is_that_of_the_training_or_of_a_published_name(results, reference, trained):
    summary = dataclasses.replace(results.summaries[results.networks[1]], reference=reference)
    assert trained_with(summary) == trained


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            lambda results: make_results(3, n=64),
            r"a study must have networks of 2 levels of eps or more, got 1 \(eps 0\)\. Add robust networks: "
            r"training\.adversarial, docs/howto/networks\.md\.",
        ),
        (
            lambda results: with_eps(make_results(3, n=64), *LEVELS, architectures=1),
            r"a study must have networks of 2 architectures or more, got 1 \(a0\)\. Add others with `netsim add`\.",
        ),
        (
            lambda results: with_summary(results, results.networks[1], norm="linf"),
            r"eps must be of one norm, got linf and l2\. Choose networks with --networks\.",
        ),
        (lambda results: with_eps(make_results(4, n=64), 0.0, 3.0, architectures=2), None),
    ],
)
def test_what_is_no_study_is_one_error(results, change, error):
    changed = change(results)
    assert has_levels(changed) == (error is None)
    if error:
        with pytest.raises(SettingsError, match=f"^{error}$"):
            make_study(changed)


def test_floors_that_leave_nothing_are_named(results):
    message = r"6 are below their accuracy floor, such as \w+ \(85\.0 %\): lower --floor or --robust-floor\."
    with pytest.raises(SettingsError, match=message):
        make_study(results, robust_floor=0.9)
