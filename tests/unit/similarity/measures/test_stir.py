"""STIR is unbiased linear CKA of one network's representations of two sets."""

import numpy as np
import pytest

from netsim.similarity.cka import linear_cka
from netsim.similarity.measures.stir import stir
from unit.similarity.measures.examples import (
    related,
    split,
)


def test_stir_is_unbiased_cka_of_both_sets_and_without_each_shard(rng):
    natural, inverted = related(rng, 60, 8, 8)
    result, replicates = stir(split(natural, inverted, 3))
    assert result == pytest.approx(linear_cka(natural, inverted, "unbiased"), abs=1e-12)
    for g, left_out in enumerate(np.split(np.arange(60), 3)):
        without = (np.delete(side, left_out, axis=0) for side in (natural, inverted))
        assert replicates[g] == pytest.approx(linear_cka(*without, "unbiased"), abs=1e-12)


def test_stir_is_one_for_an_observer_that_sees_no_difference_and_about_zero_for_unrelated_images(rng):
    natural = rng.normal(size=(400, 6))
    assert stir(split(natural, natural.copy(), 4))[0] == pytest.approx(1)
    assert stir(split(natural, rng.normal(size=(400, 6)), 4))[0] == pytest.approx(0, abs=0.03)
