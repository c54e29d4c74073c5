"""RBF CKA against scikit-learn's kernel and the formula of Song et al."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from netsim.errors import DataError
from netsim.similarity.measures.rbf_cka import rbf_cka
from unit.similarity.definitions import hsic_unbiased as song
from unit.similarity.measures.examples import (
    related,
    split,
)


def test_rbf_cka_is_the_ratio_of_mean_hsic_with_scikit_learns_kernel_and_leaves_out_each_shard(rng):
    X, Y = related(rng, 90)
    result, replicates = rbf_cka(split(X, Y, 3))

    def gamma(rows):
        shards, upper = np.split(rows, 3), np.triu_indices(30, k=1)
        distances = [np.linalg.norm(shard[:, None] - shard[None], axis=2)[upper] for shard in shards]
        return 1 / (2 * np.median(distances) ** 2)

    sums = []
    for at in (slice(0, 30), slice(30, 60), slice(60, 90)):
        K, L = rbf_kernel(X[at], gamma=gamma(X)), rbf_kernel(Y[at], gamma=gamma(Y))
        sums.append([song(K, L), song(K, K), song(L, L)])
    totals = [np.sum(sums, axis=0), *(np.sum(sums, axis=0) - np.array(sums))]
    expected = [cross / np.sqrt(own_x * own_y) for cross, own_x, own_y in totals]
    assert result == pytest.approx(expected[0], rel=1e-9)
    np.testing.assert_allclose(replicates, expected[1:], rtol=1e-9)


def test_rbf_cka_of_unrelated_rows_is_about_zero(rng):
    result = [rbf_cka(split(rng.normal(size=(200, 5)), rng.normal(size=(200, 3)), 2))[0] for _ in range(20)]
    assert np.mean(result) == pytest.approx(0, abs=0.01)
    assert np.min(result) < 0  # never clamped


def test_rbf_cka_of_too_few_images_a_shard_is_an_error(rng):
    with pytest.raises(DataError, match=r"^a shard must have at least 4 rows, got 3 in shard 0\."):
        rbf_cka(split(*related(rng, 6), 2))
