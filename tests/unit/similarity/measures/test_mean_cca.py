"""Mean canonical correlation against Hotelling's eigenproblem, SciPy, scikit-learn and closed forms."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import subspace_angles
from sklearn.cross_decomposition import CCA

from netsim.similarity.measures.mean_cca import mean_cca
from unit.similarity.measures.examples import (
    by_covariances,
    centred,
    related,
)


@pytest.mark.parametrize(("dx", "dy"), [(12, 7), (7, 12), (1, 1)])
def test_mean_cca_is_hotellings_and_the_mean_cosine_of_scipys_subspace_angles(rng, dx, dy):
    X, Y = related(rng, dx=dx, dy=dy)
    assert mean_cca(X, Y) == pytest.approx(by_covariances(X, Y)[0].mean(), abs=1e-10)
    assert mean_cca(X, Y) == pytest.approx(np.cos(subspace_angles(centred(X), centred(Y))).mean(), abs=1e-10)


def test_mean_cca_is_the_correlation_of_scikit_learns_scores(rng):
    X, Y = related(rng, 300, 4, 3)
    scores = CCA(n_components=3, max_iter=10_000, tol=1e-12).fit_transform(X, Y)
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(scores[0].T, scores[1].T, strict=True)]
    assert mean_cca(X, Y) == pytest.approx(np.mean(correlations), abs=1e-4)


def test_mean_cca_of_gaussian_pairs_is_the_mean_of_their_correlations(rng):
    rho, n = np.array([0.9, 0.5, 0.2]), 50_000
    X = rng.normal(size=(n, 3))
    Y = rho * X + np.sqrt(1 - rho**2) * rng.normal(size=(n, 3))
    assert mean_cca(X @ rng.normal(size=(3, 3)), Y @ rng.normal(size=(3, 3))) == pytest.approx(rho.mean(), abs=0.01)


def test_mean_cca_of_unrelated_rows_is_the_mean_of_wachters_law(rng):
    """Wachter 1980: the limit of squared canonical correlations of independent sides, with a = d/n, b = d'/n."""
    n, dx, dy = 1000, 150, 250
    a, b = dx / n, dy / n
    low, high = ((np.sqrt(a * (1 - b)) - sign * np.sqrt(b * (1 - a))) ** 2 for sign in (1, -1))

    def density(square):
        return np.sqrt((high - square) * (square - low)) / (2 * np.pi * a * square * (1 - square))

    assert quad(density, low, high)[0] == pytest.approx(1, abs=1e-6)
    expected = quad(lambda square: np.sqrt(square) * density(square), low, high)[0]
    assert mean_cca(rng.normal(size=(n, dx)), rng.normal(size=(n, dy))) == pytest.approx(expected, abs=0.01)
