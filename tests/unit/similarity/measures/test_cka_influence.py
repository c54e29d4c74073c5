"""The largest influence of one image is a share of all, by hand and for images that do not matter."""

import numpy as np
import pytest

from netsim.similarity.influence import image_influence
from netsim.similarity.measures.cka_influence import cka_influence
from unit.similarity.measures.examples import related


def test_cka_influence_is_the_largest_part_of_all_influence(rng):
    X, Y = related(rng)
    sizes = [abs(value) for value in image_influence(X, Y)]
    assert cka_influence(X, Y) == pytest.approx(max(sizes) / sum(sizes))
    assert 1 / 120 < cka_influence(X, Y) < 0.1
    X[3], Y[3] = 50, 50
    assert cka_influence(X, Y) > 0.3


def test_cka_influence_is_nan_where_no_image_changes_cka(rng):
    X, Y = related(rng)
    assert np.isnan(cka_influence(X, 2 * X + 1)) and np.isnan(cka_influence(X[:3], Y[:3]))
