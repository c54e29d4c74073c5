"""Jensen-Shannon divergence against SciPy, entropies, and by hand."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from netsim.similarity.measures.jensen_shannon import jensen_shannon
from unit.similarity.measures.examples import (
    predicted,
)


def test_jensen_shannon_is_scipys_and_the_entropy_of_the_mixture_beyond_that_of_its_parts(rng):
    X, Y = predicted(rng)
    p, q = (np.exp(side) / np.exp(side).sum(axis=1, keepdims=True) for side in (X, Y))
    assert jensen_shannon(X, Y) == pytest.approx(np.mean(jensenshannon(p, q, axis=1) ** 2), abs=1e-12)
    beyond = stats.entropy((p + q) / 2, axis=1) - (stats.entropy(p, axis=1) + stats.entropy(q, axis=1)) / 2
    assert jensen_shannon(X, Y) == pytest.approx(beyond.mean(), abs=1e-12)


def test_jensen_shannon_by_hand():
    sure, other, unsure = np.array([[1000.0, 0]]), np.array([[0, 1000.0]]), np.array([[5.0, 5]])
    assert jensen_shannon(sure, other) == pytest.approx(np.log(2))
    quarter = -0.75 * np.log(0.75) - 0.25 * np.log(0.25) - np.log(2) / 2  # entropy of (3/4, 1/4), less half of ln 2
    assert jensen_shannon(sure, unsure) == pytest.approx(quarter)
    assert jensen_shannon(np.vstack([sure, sure]), np.vstack([other, unsure])) == pytest.approx(
        (np.log(2) + quarter) / 2
    )


def test_jensen_shannon_is_defined_where_rounding_is_all_that_differs(rng):
    X = rng.normal(size=(2000, 100))
    assert jensen_shannon(X, X + np.spacing(X)) == pytest.approx(0, abs=1e-15)
