"""RSA against correlations taken pair by pair, and by hand."""

import numpy as np
import pytest
from scipy import stats

from netsim.similarity.measures.rsa import rsa_pearson, rsa_spearman
from unit.similarity.measures.examples import (
    related,
)


def rdm(X):
    """Return the upper triangle of 1 - correlation, image by image."""
    n = len(X)
    return np.array([1 - np.corrcoef(X[i], X[j])[0, 1] for i in range(n) for j in range(i + 1, n)])


def test_rsa_is_the_correlation_of_all_distances_taken_one_by_one(rng):
    for X, Y in (related(rng, 40), (rng.normal(size=(40, 12)), rng.normal(size=(40, 7)))):
        Y = Y + rng.normal(size=Y.shape)  # no image with all features 0
        x, y = rdm(X), rdm(Y)
        assert rsa_pearson(X, Y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-10)
        ranks = stats.rankdata(x), stats.rankdata(y)
        assert rsa_spearman(X, Y) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-10)


def test_rsa_by_hand():
    """Two of three images are opposite, at distance 2, and both at distance 1 from the third."""
    Y = np.array([[1.0, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1]])
    X = Y[[2, 1, 0]]
    assert rsa_pearson(X, Y) == pytest.approx(-0.5)  # of (1, 1, 2) and (2, 1, 1)
    assert rsa_spearman(X, Y) == pytest.approx(-0.5)


def test_rsa_of_unrelated_rows_is_about_zero(rng):
    result = [[f(rng.normal(size=(60, 20)), rng.normal(size=(60, 9))) for _ in range(40)]
             for f in (rsa_pearson, rsa_spearman)]  # fmt: skip
    assert np.mean(result, axis=1) == pytest.approx([0, 0], abs=0.02)
    assert np.min(result) < 0  # never clamped


def test_an_image_with_equal_features_has_no_correlation_distance(rng):
    X, Y = rng.normal(size=(20, 5)), rng.normal(size=(20, 5))
    X[3] = 2.5
    assert np.isnan(rsa_pearson(X, Y)) and np.isnan(rsa_spearman(Y, X))
    assert np.isnan(rsa_pearson(Y, rng.normal(size=(20, 1))))
