"""Fixtures of all tests of similarity."""

import numpy as np
import pytest

from netsim.similarity import streaming


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(params=("gram", "feature"))
def space(request, monkeypatch):
    """Run the test in each space, whichever would be cheaper."""
    monkeypatch.setattr(streaming, "cheaper_space", lambda *_: request.param)
    return request.param


@pytest.fixture
def small_tiles(monkeypatch):
    """Use tiles of few rows, and one tile in memory at a time, so that small data crosses their edges."""
    monkeypatch.setattr(streaming, "TILE_ROWS", 7)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 1)
