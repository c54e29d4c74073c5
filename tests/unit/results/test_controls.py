"""The seed-only control: its population value, its mean over cells, and what is said of it."""

import dataclasses

import numpy as np
import pytest

from netsim.images.pairs import draw_pairs
from netsim.results.controls import QUANTITIES, seed_only
from netsim.results.findings import biased_headline, controlled, warnings, with_error
from netsim.similarity.cka import linear_cka
from support.results import make_results


@pytest.mark.parametrize("classes", [2, 3, 5, 10])
def test_an_observer_of_nothing_but_seeds_is_similar_to_one_of_targets_by_the_number_of_classes(classes):
    """One-hot codes of the labels that pairs of other labels have, and of any labels."""
    labels = np.arange(6000) % classes
    pairs = draw_pairs(labels, 3000)
    target, seed = (np.eye(classes)[label] for label in (pairs.target_label, pairs.seed_label))
    assert linear_cka(target, seed, estimator="unbiased") == pytest.approx(seed_only(classes), abs=0.02)
    pairs = draw_pairs(labels, 3000, seed_labels="any")
    target, seed = (np.eye(classes)[label] for label in (pairs.target_label, pairs.seed_label))
    assert abs(linear_cka(target, seed, estimator="unbiased")) < 0.01


def test_the_mean_is_over_the_cells_of_two_networks():
    results = make_results(4, n=64, observers=("seer",))
    for name in QUANTITIES:
        values = results.controls.values[name][:, :4]
        assert results.controls.mean(name).value == pytest.approx(values[~np.eye(4, dtype=bool)].mean())
        shards = [results.controls.leave_one_out[name][:, :4, s][~np.eye(4, dtype=bool)].mean() for s in range(16)]
        expected = np.sqrt(15 / 16 * np.square(shards - np.mean(shards)).sum())
        assert results.controls.mean(name).se == pytest.approx(expected)
        assert [each.value for each in results.controls.itself(name)] == np.diag(values).tolist()


@pytest.mark.parametrize(("classes", "warned"), [(2, True), (10, True), (11, False), (1000, False)])
def test_few_classes_are_warned_of_and_no_floor_is_given_then(classes, warned):
    results = dataclasses.replace(make_results(3), classes=classes, seed_labels="other")
    assert any("seed-only control" in warning for warning in warnings(results)) == warned
    assert ("independent representations would give" in biased_headline(results)) != warned
    assert not any("seed-only" in warning for warning in warnings(dataclasses.replace(results, seed_labels="any")))


def test_sentences_give_the_controls_and_the_mean_on_converged_images():
    results = make_results(3)
    sentences = " ".join(controlled(results))
    for name in ("natural_seed", "inverted_seed", "adjusted", "seen_seed", "seen_target"):
        assert with_error(results.controls.mean(name)) in sentences
    assert "On converged images alone, 100.0 % of all" in sentences
    assert "On converged" not in " ".join(controlled(dataclasses.replace(results, on_converged=None)))
