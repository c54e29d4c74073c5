"""Agreement of predicted classes by hand and by frequencies."""

import numpy as np
import pytest

from netsim.similarity.measures.agreement import agreement
from netsim.similarity.measures.cohen_kappa import cohen_kappa
from unit.similarity.measures.examples import (
    logits_of,
    split,
    value,
)


def test_agreement_counts_images_of_the_same_class_and_leaves_out_each_shard():
    X, Y = logits_of([0, 1, 2, 0, 1, 2], 3), logits_of([0, 1, 1, 0, 2, 1], 3)
    result, replicates = agreement(split(X, Y, 3))
    assert result == pytest.approx(3 / 6)
    np.testing.assert_allclose(replicates, [1 / 4, 2 / 4, 3 / 4])
    assert np.isnan(agreement(split(X, Y, 1))[1]).all()


def test_agreement_of_unrelated_predictions_is_the_sum_of_products_of_frequencies(rng):
    p, q = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]
    X, Y = (logits_of(rng.choice(3, size=50_000, p=own), 3) for own in (p, q))
    assert value("agreement", X, Y) == pytest.approx(np.dot(p, q), abs=0.01)
    assert cohen_kappa(X, Y) == pytest.approx(0, abs=0.01)
