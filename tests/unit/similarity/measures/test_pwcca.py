"""PWCCA against Hotelling's variates weighted one by one, and by hand."""

import numpy as np
import pytest

from netsim.similarity.measures.mean_cca import mean_cca
from netsim.similarity.measures.pwcca import pwcca
from unit.similarity.measures.examples import (
    LINEAR,
    by_covariances,
    centred,
    changes,
    related,
)


@pytest.mark.parametrize(("dx", "dy"), [(12, 7), (7, 12)])
def test_pwcca_weighs_the_correlations_by_the_projections_of_xs_features(rng, dx, dy):
    X, Y = related(rng, dx=dx, dy=dy)
    correlations, variates = by_covariances(X, Y)
    weights = [sum(abs(h @ x) for x in centred(X).T) for h in variates.T]
    assert pwcca(X, Y) == pytest.approx(np.dot(weights, correlations) / np.sum(weights), abs=1e-9)
    assert pwcca(X, Y) != pytest.approx(mean_cca(X, Y), abs=1e-3)


def test_pwcca_leans_to_what_x_has_most_of(rng):
    n = 2000
    shared, X_own, Y_own = rng.normal(size=(3, n))
    Y = np.column_stack([shared, Y_own])
    assert pwcca(np.column_stack([10 * shared, X_own]), Y) == pytest.approx(10 / 11, abs=0.03)
    assert pwcca(np.column_stack([shared, 10 * X_own]), Y) == pytest.approx(1 / 11, abs=0.03)


def test_pwcca_is_unchanged_by_any_invertible_linear_map_of_the_side_without_weights(rng):
    X, Y = related(rng)
    before = pwcca(X, Y)
    assert {kind for kind, changed in changes(rng, Y).items() if abs(pwcca(X, changed) - before) < 1e-9} == LINEAR
