"""Procrustes similarity against SciPy, roots of matrices, and the law of random matrices."""

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes, sqrtm
from scipy.spatial import procrustes as scipy_procrustes

from netsim.similarity.measures.procrustes import procrustes
from unit.similarity.measures.examples import (
    centred,
    related,
)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50)])
def test_procrustes_is_one_minus_half_the_squared_distance_scipy_finds(rng, n, d):
    X, Y = related(rng, n, d, d)
    x, y = (centred(side) / np.linalg.norm(centred(side)) for side in (X, Y))
    rotation, nuclear_norm = orthogonal_procrustes(x, y)
    assert procrustes(X, Y) == pytest.approx(1 - np.linalg.norm(x @ rotation - y) ** 2 / 2, abs=1e-10)
    assert procrustes(X, Y) == pytest.approx(nuclear_norm, abs=1e-10)
    assert 1 - procrustes(X, Y) ** 2 == pytest.approx(scipy_procrustes(X, Y)[2], abs=1e-10)


@pytest.mark.parametrize(("n", "dx", "dy"), [(60, 12, 7), (20, 50, 7), (20, 50, 30), (10, 4, 40)])
def test_procrustes_of_any_widths_is_the_trace_of_the_root_of_both_gram_matrices(rng, n, dx, dy):
    """Fidelity of Gram matrices: |X^T Y|_* = tr sqrt(X^T Y Y^T X), here by the matrix root."""
    X, Y = (centred(side) for side in related(rng, n, dx, dy))
    narrow, wide = sorted((X, Y), key=lambda side: side.shape[1])
    trace = np.trace(sqrtm(narrow.T @ wide @ wide.T @ narrow)).real
    assert procrustes(X, Y) == pytest.approx(trace / np.linalg.norm(X) / np.linalg.norm(Y), abs=1e-6)


def test_procrustes_of_unrelated_isotropic_features_is_what_random_matrices_give(rng):
    """X^T Y is sqrt(n) times a Gaussian d x d matrix, whose singular values are sqrt(d) times 8 / (3 pi) on average."""
    n, d = 8000, 40
    result = procrustes(rng.normal(size=(n, d)), rng.normal(size=(n, d)))
    assert result == pytest.approx(8 / (3 * np.pi) * np.sqrt(d / n), rel=0.02)
