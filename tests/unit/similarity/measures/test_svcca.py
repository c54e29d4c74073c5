"""SVCCA against canonical correlations of principal directions chosen by hand."""

import numpy as np
import pytest

from netsim.similarity.measures.mean_cca import mean_cca
from netsim.similarity.measures.svcca import svcca
from unit.similarity.measures.examples import (
    by_covariances,
    centred,
)


def test_svcca_keeps_the_fewest_principal_directions_with_99_percent_of_variance(rng):
    n, sizes = 400, np.sqrt([50, 30, 10, 8.5, 1, 0.5])  # 98.5 % in four, 99.5 % in five
    X = centred(np.linalg.qr(centred(rng.normal(size=(n, 6))))[0]) * sizes
    Y = X @ rng.normal(size=(6, 4)) + rng.normal(size=(n, 4))
    turned = X @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    eigenvalues, vectors = np.linalg.eigh(np.cov(Y.T))
    kept = next(c for c in range(1, 5) if eigenvalues[-c:].sum() >= 0.99 * eigenvalues.sum())
    reduced = centred(Y) @ vectors[:, -kept:]
    assert svcca(turned, Y) == pytest.approx(by_covariances(X[:, :5], reduced)[0].mean(), abs=1e-10)
    assert svcca(turned, Y) != pytest.approx(by_covariances(X[:, :4], reduced)[0].mean(), abs=1e-4)


def test_svcca_is_not_moved_by_small_features_that_mean_cca_counts_in_full(rng):
    strong = rng.normal(size=(500, 3))
    X, Y = (np.hstack([strong, 1e-3 * rng.normal(size=(500, 3))]) for _ in range(2))
    assert svcca(X, Y) == pytest.approx(1, abs=1e-4)
    assert mean_cca(X, Y) < 0.6
