"""Fixtures of the tests of images."""

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same for every test."""
    return np.random.default_rng(0)
