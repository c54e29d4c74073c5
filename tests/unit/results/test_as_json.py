"""Results as JSON: keys in their order, plain numbers, and None for what is undefined."""

import dataclasses
import json

import numpy as np
import pytest

from netsim.results.as_json import to_json
from support.results import make_results, with_cells, with_groups, with_inverted, with_loss, with_summary, with_verdict

KEYS = [
    "networks", "observers", "n", "shards", "natural", "inverted", "difference", "difference_unbiased",
    "difference_over_networks", "asymmetry", "groups", "verdict", "row_differences", "loss", "controls", "on_converged",
    "converged", "tolerance", "preset", "accuracy", "robust_accuracy", "chance",
    "classes", "seed_labels", "weights", "twins", "left_out",
    "notes", "provenance",
]  # fmt: skip
MATRIX_KEYS = {
    f"{key}{suffix}" for key in ("cka", "se", "interval", "mean", "rows", "columns") for suffix in ("", "_unbiased")
} | {
    "floor", "undefined", "interval_of", "mean_over_networks", "rows_over_networks", "columns_over_networks", "ceiling",
    "normalized", "variance_parts", "clusters", "map",
}  # fmt: skip


@pytest.fixture(scope="module")
def results():
    return make_results(3, n=64)


def test_keys_are_those_that_programs_rely_on(results):
    printed = to_json(results)
    assert list(printed) == KEYS
    assert set(printed["natural"]) == set(printed["inverted"]) == MATRIX_KEYS
    assert set(printed["loss"]["resnext"]) == {
        "median_initial", "median", "mean", "halfway", "quantile_90", "above_tolerance", "distance",
        "iterations", "stopped", "stalled", "nonfinite",
    }  # fmt: skip
    assert set(printed["difference_unbiased"]) == {"value", "se", "interval", "p_value"}
    assert set(printed["row_differences"][0]) == {
        "through", "minus", "value", "se", "interval", "p_value", "p_value_holm",
    }  # fmt: skip


def test_a_biased_value_has_no_p_value_and_says_what_its_interval_covers(results):
    printed = to_json(results)
    assert set(printed["difference"]) == {"value", "se", "interval", "interval_of"}
    for kind in ("natural", "inverted"):
        matrix = printed[kind]
        assert matrix["interval_of"] == "expected value at this n (of the biased estimator)"
        for each in (matrix["mean"], *matrix["rows"].values(), *matrix["columns"].values()):
            assert "p_value" not in each and each["interval_of"] == "expected value at this n"
        for each in (matrix["mean_unbiased"], *matrix["rows_unbiased"].values()):
            assert each["p_value"] < 0.05 and "interval_of" not in each


def test_networks_that_only_look_are_columns_and_have_no_losses():
    results = make_results(3, n=64, observers=("seer",))
    printed = to_json(results)
    assert printed["networks"] == list(results.networks) and printed["observers"] == ["seer"]
    for kind in ("natural", "inverted"):
        for key in ("cka", "se", "interval", "cka_unbiased", "se_unbiased", "interval_unbiased", "floor"):
            assert [len(row) for row in printed[kind][key]] == [4, 4, 4]
        assert printed[kind]["cka_unbiased"] == results.cells(kind).tolist()
        assert list(printed[kind]["columns_unbiased"]) == [*results.networks, "seer"]
        assert list(printed[kind]["rows_unbiased"]) == list(results.networks)
    for key in ("accuracy", "weights"):
        assert list(printed[key]) == [*results.networks, "seer"]
    for key in ("loss", "converged"):
        assert list(printed[key]) == list(results.networks)


def test_an_observer_with_the_weights_of_a_network_is_its_twin():
    results = make_results(3, n=64, observers=("seer",))
    key = results.summaries["mobilenet"].weights_hash
    twins = to_json(with_summary(results, "seer", weights_hash=key))["twins"]
    assert [group["networks"] for group in twins] == [["mobilenet", "seer"]]
    assert twins[0]["left_out_of_means"] == [["mobilenet", "seer"]]  # an observer has no row


def test_twins_and_the_cells_that_no_mean_includes_are_listed(results):
    assert to_json(results)["twins"] == []
    key = results.summaries["densenet"].weights_hash
    twins = with_summary(results, "resnext", weights_hash=key)
    cells = [["densenet", "resnext"], ["resnext", "densenet"]]
    assert to_json(twins)["twins"] == [{"networks": ["densenet", "resnext"], "left_out_of_means": cells}]
    [group] = to_json(with_summary(twins, "mobilenet", weights_hash=key))["twins"]
    assert group["networks"] == list(results.networks) and len(group["left_out_of_means"]) == 6


def test_numbers_survive_json_to_the_last_bit(results):
    read_back = json.loads(json.dumps(to_json(results), allow_nan=False))
    for name in ("natural", "inverted"):
        for estimator, suffix in (("biased", ""), ("unbiased", "_unbiased")):
            for key, kind in (("cka", "cka"), ("se", "se")):
                np.testing.assert_array_equal(
                    read_back[name][f"{key}{suffix}"], results.cells(name, estimator, kind=kind)
                )
            low, high = np.moveaxis(np.array(read_back[name][f"interval{suffix}"]), -1, 0)
            np.testing.assert_array_equal(low, results.cells(name, estimator, kind="low"))
            np.testing.assert_array_equal(high, results.cells(name, estimator, kind="high"))
            assert read_back[name][f"mean{suffix}"]["value"] == results.means[name, estimator].value
    for name, loss in results.loss.items():
        assert read_back["loss"][name]["median"] == loss.median
        assert read_back["loss"][name]["distance"] == np.median(loss.distance)


def test_differences_of_rows_name_both_networks(results):
    differences = to_json(results)["row_differences"]
    assert [(entry["through"], entry["minus"]) for entry in differences] == list(results.row_differences)
    assert differences[0]["value"] == results.row_differences["densenet", "mobilenet"].value


def test_p_values_of_all_rows_are_adjusted_together(results):
    """Three tests: the smallest p-value is multiplied by 3, the next by 2, and none falls below an earlier one."""
    differences = to_json(results)["row_differences"]
    stepped, largest = {}, 0.0
    for rank, entry in enumerate(sorted(differences, key=lambda entry: entry["p_value"])):
        largest = max(largest, min(1.0, (3 - rank) * entry["p_value"]))
        stepped[entry["through"], entry["minus"]] = largest
    assert {(entry["through"], entry["minus"]): entry["p_value_holm"] for entry in differences} == pytest.approx(
        stepped
    )


def test_undefined_numbers_are_none_and_undefined_cells_have_their_reason(results):
    undefined = with_summary(with_inverted(results, 1, 2, np.nan), "densenet", accuracy=np.nan)
    undefined = with_loss(undefined, "resnext", final=np.full(64, np.nan))
    reasons = undefined.matrices["inverted"].undefined.astype(object)
    reasons[0, 1, 2] = "resnext is constant"
    undefined = with_cells(undefined, "inverted", undefined=reasons)
    printed = json.loads(json.dumps(to_json(undefined), allow_nan=False))
    assert printed["inverted"]["cka_unbiased"][1][2] is None and printed["inverted"]["cka"][1][2] is not None
    assert printed["inverted"]["undefined"] == [
        {"estimator": "unbiased", "through": "mobilenet", "observer": "resnext", "reason": "resnext is constant"}
    ]
    assert printed["natural"]["undefined"] == []
    assert printed["accuracy"]["densenet"] is None
    assert printed["loss"]["resnext"]["median"] is None


def test_skipped_images_are_counted_by_split(results):
    skipped = dataclasses.replace(results, skipped={"train": (0, 40), "test": (2, 12)})
    assert to_json(skipped)["left_out"] == {
        "train": {"unreadable": 0, "listed": 40},
        "test": {"unreadable": 2, "listed": 12},
    }


def test_both_errors_the_ceiling_clusters_and_maps_are_in_it():
    results = with_groups(make_results(6, n=64), *"aabbcc")
    printed, inference = json.loads(json.dumps(to_json(results), allow_nan=False)), results.inference
    for name in ("natural", "inverted"):
        matrix = printed[name]
        assert matrix["mean_over_networks"] == inference.means[name].to_json()
        assert matrix["mean_over_networks"]["networks"]["df"] == 2
        assert matrix["rows_over_networks"]["vgg" if "vgg" in results.networks else "resnet18"]["total"]["se"] > 0
        assert matrix["ceiling"]["value"] == inference.ceiling[name].value
        assert matrix["normalized"]["networks"]["se"] == inference.normalized[name].networks.se
        assert matrix["variance_parts"] == inference.parts[name].to_json()
        assert [len(cluster["networks"]) for cluster in matrix["clusters"]][-1] == 6
        assert list(matrix["map"]["positions"]) == list(results.networks)
    assert printed["groups"]["resnext"] == "b"
    assert printed["difference_over_networks"] == inference.means["difference"].to_json()
    assert len(printed["asymmetry"]["pairs"]) == 15 and len(printed["asymmetry"]["row_minus_column"]) == 6


def test_two_networks_have_no_clusters():
    printed = to_json(make_results(2, n=64))
    assert printed["natural"]["clusters"] is printed["natural"]["map"] is None
    assert printed["natural"]["mean_over_networks"]["networks"]["se"] is None


def test_accuracy_under_attack_is_that_of_networks_trained_for_it(results):
    assert to_json(results)["robust_accuracy"] == {}
    robust = with_summary(results, "resnext", robust=0.61, eps=0.5, norm="l2")
    assert to_json(robust)["robust_accuracy"] == {"resnext": {"accuracy": 0.61, "norm": "l2", "eps": 0.5}}


def test_the_answer_of_a_sweep_that_stopped_is_printed():
    stopped = with_verdict(make_results(3, n=64), differ=["densenet", "mobilenet"])
    assert to_json(stopped)["verdict"] == stopped.verdict.to_json()
    assert to_json(make_results(3, n=64))["verdict"] is None
