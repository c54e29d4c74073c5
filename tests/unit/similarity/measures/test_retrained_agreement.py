"""Agreement of retrained classifiers, by hand and with classifiers trained anew."""

import numpy as np
import pytest

from netsim.similarity.measures.retrained_agreement import retrained_agreement
from netsim.similarity.retraining import retrained_classes
from unit.similarity.test_retraining import drawn, trained_anew


def agreement_of(x, y):
    return retrained_agreement([lambda side=side: side for side in zip(x, y, strict=True)])


def test_value_and_replicates_are_those_of_classifiers_trained_anew(rng):
    one, labels = drawn(rng)
    other = one @ rng.normal(size=(6, 9)) + 3 * rng.normal(size=(5, 8, 9))
    value, replicates = agreement_of(*(retrained_classes(rows, labels) for rows in (one, other)))

    def share(without):
        kept = [shard for shard in range(5) if shard not in without]
        same = [
            trained_anew(one, labels, [*without, shard], shard) == trained_anew(other, labels, [*without, shard], shard)
            for shard in kept
        ]
        return np.concatenate(same).mean()

    assert value == pytest.approx(share([]), abs=1e-12) and 0.2 < value < 1
    np.testing.assert_allclose(replicates, [share([shard]) for shard in range(5)], atol=1e-12)


def test_networks_that_differ_in_a_rotation_agree_after_retraining(rng):
    one, labels = drawn(rng)
    rotated = 7 * one @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    value, replicates = agreement_of(retrained_classes(one, labels), retrained_classes(rotated, labels))
    assert value == 1 and (replicates == 1).all()


def test_an_undefined_side_and_few_shards_are_nan(rng):
    one, labels = drawn(rng)
    classes, constant = retrained_classes(one, labels), retrained_classes(np.zeros_like(one), labels)
    value, replicates = agreement_of(classes, constant)
    assert type(value) is float and np.isnan(value) and np.isnan(replicates).all() and len(replicates) == 5
    two = retrained_classes(one[:2], labels[:2])
    value, replicates = agreement_of(two, two)
    assert value == 1 and np.isnan(replicates).all()
