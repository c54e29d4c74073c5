"""Bases of centred features: their rank, and when correlations depend on the images."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from netsim.similarity.measures._canonical import determined, directions, mean_correlation
from netsim.similarity.measures.mean_cca import mean_cca
from netsim.similarity.measures.pwcca import pwcca
from netsim.similarity.measures.svcca import svcca
from unit.similarity.measures.examples import (
    centred,
)


def test_correlations_that_are_one_whatever_the_images_are_nan(rng):
    """Two unrelated spans of 10 and 9 dimensions in the n - 1 of centred rows meet for n = 19, and not for n = 20."""
    for n, forced in ((20, False), (19, True)):
        X, Y = rng.normal(size=(n, 10)), rng.normal(size=(n, 9))
        assert bool(np.cos(subspace_angles(centred(X), centred(Y))).max() > 1 - 1e-9) is forced
        for cca in (mean_cca, pwcca):
            assert bool(np.isnan(cca(X, Y))) is forced
    assert np.isnan(svcca(X, Y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_directions_that_are_only_rounding_of_the_features_do_not_count(rng, dtype):
    X = (rng.normal(size=(300, 4)) @ rng.normal(size=(4, 20)) + 100).astype(dtype)
    basis, sizes = directions(X)
    assert basis.shape == (300, 4)
    np.testing.assert_allclose(sizes, np.linalg.svd(centred(X.astype(np.float64)))[1][:4], rtol=1e-5)
    Y = rng.normal(size=(300, 20)).astype(dtype)
    assert directions(Y)[0].shape == (300, 20)


def test_directions_are_orthonormal_and_span_the_centred_features(rng):
    X = rng.normal(size=(30, 5)) + 3
    basis, sizes = directions(X)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(basis @ basis.T @ centred(X), centred(X), atol=1e-12)
    assert (np.diff(sizes) <= 0).all()


def test_mean_correlation_is_undefined_for_an_empty_basis_and_for_bases_that_must_meet(rng):
    x, y = (np.linalg.qr(rng.normal(size=(10, r)))[0] for r in (4, 5))
    assert determined(x, y) and 0 < mean_correlation(x, y) < 1
    assert mean_correlation(x, x) == pytest.approx(1)
    for other in (y[:, :0], np.linalg.qr(rng.normal(size=(10, 6)))[0]):
        assert not determined(x, other) and np.isnan(mean_correlation(x, other))
