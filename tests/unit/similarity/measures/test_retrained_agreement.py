"""Agreement of retrained classifiers, by hand and with classifiers trained anew."""

import numpy as np
import pytest

from benchmarks.coverage import retrained_agreements
from netsim.similarity.measures.retrained_agreement import retrained_agreement
from netsim.similarity.retraining import retrained_scores
from unit.similarity.test_retraining import drawn, trained_anew


def agreement_of(x, y):
    return retrained_agreement([lambda side=side: side for side in zip(x, y, strict=True)])


def test_value_and_replicates_are_those_of_classifiers_trained_anew(rng):
    one, labels = drawn(rng)
    other = one @ rng.normal(size=(6, 9)) + 3 * rng.normal(size=(5, 8, 9))
    value, replicates = agreement_of(*(retrained_scores(rows, labels) for rows in (one, other)))
    same = [trained_anew(one, labels, shard) == trained_anew(other, labels, shard) for shard in range(5)]
    assert value == pytest.approx(np.concatenate(same).mean(), abs=1e-12) and 0.2 < value < 1
    np.testing.assert_allclose(replicates, [np.mean(np.delete(same, shard, axis=0)) for shard in range(5)], atol=1e-12)


def test_networks_that_differ_in_a_rotation_agree_after_retraining(rng):
    one, labels = drawn(rng)
    rotated = 7 * one @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    value, replicates = agreement_of(retrained_scores(one, labels), retrained_scores(rotated, labels))
    assert value == 1 and (replicates == 1).all()


def test_an_undefined_side_and_few_shards_are_nan(rng):
    one, labels = drawn(rng)
    classes, constant = retrained_scores(one, labels), retrained_scores(np.zeros_like(one), labels)
    value, replicates = agreement_of(classes, constant)
    assert type(value) is float and np.isnan(value) and np.isnan(replicates).all() and len(replicates) == 5
    alone = retrained_scores(one[:1], labels[:1])
    value, replicates = agreement_of(alone, alone)
    assert np.isnan(value) and np.isnan(replicates).all()


def test_its_error_is_the_spread_of_values_over_other_images():
    """Of 60 sets, a standard deviation is known to about 9 %."""
    estimated = retrained_agreements(256, shards=8, sets=60)
    spread = np.std([each.value for each in estimated], ddof=1)
    assert np.mean([each.se for each in estimated]) == pytest.approx(spread, rel=0.25)
