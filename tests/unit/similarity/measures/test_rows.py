"""Centred rows: exact where a feature is constant, in float64 whatever the input."""

import numpy as np

from netsim.similarity.measures._rows import centred as centred_rows
from unit.similarity.measures.examples import (
    centred,
)


def test_centred_rows_have_mean_zero_in_double_precision(rng):
    rows = rng.normal(size=(50, 4)) + 1000
    for dtype in (np.float64, np.float32):
        result = centred_rows(rows.astype(dtype))
        assert result.dtype == np.float64
        np.testing.assert_allclose(result, centred(rows.astype(dtype).astype(np.float64)), atol=1e-10)


def test_a_constant_feature_is_exactly_zero_and_no_rows_stay_no_rows():
    assert (centred_rows(np.full((7, 3), 0.1)) == 0).all()
    assert np.mean([0.1] * 7) != 0.1  # subtracting the mean alone leaves rounding error
    assert centred_rows(np.zeros((0, 3))).shape == (0, 3)
